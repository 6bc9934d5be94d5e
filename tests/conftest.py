"""Settings of every test: one thread, the same examples in every run, and no deadline on a busy machine."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Set before torch is imported: on busy cores the threads of tiny models wait for one another, a hundred times longer.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("corewrite", derandomize=True, deadline=None)
settings.load_profile("corewrite")

LONGEST = ("studies", "e2e", "registry", "cycle")
"""Folders whose files take longest: begun first, so that no process works alone at the end."""


DEVICE = ("rewriter", "training")
"""Folders whose tests compute where the policy lies: on a GPU where there is one (`-m device`)."""
ON_PROCESSOR = {f"test_{name}.py" for name in (
    "beam", "clean", "decode", "examples", "losses", "packed", "pairs", "paths", "rm3", "scoring", "server_hostile", "template",
    "trl_parity", "usual_words",
)}  # fmt: skip
"""Files of these folders that compute nothing, or with models of their own on the processor."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """The longest first; otherwise in order."""
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).parts[0] in DEVICE and item.path.name not in ON_PROCESSOR:
            item.add_marker("device")

    def place(item):
        folder = item.path.relative_to(here).parts[0]
        return LONGEST.index(folder) if folder in LONGEST else len(LONGEST)

    items.sort(key=place)


@pytest.fixture(scope="session")
def bad():
    """The hostile servers of `remote/hostile.py`; tests' import mode does not make that folder a package."""
    name = "corewrite_hostile"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "remote" / "hostile.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
