"""Hostile servers for the tests of clients."""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def bad():
    """The helpers of `hostile.py`; tests' import mode does not make this folder a package."""
    name = "corewrite_hostile"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "hostile.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
