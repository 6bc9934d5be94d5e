"""Settings of every test: one thread, the same examples in every run, and no deadline on a busy machine."""

import os

import pytest
from hypothesis import settings

# Set before torch is imported: on busy cores the threads of tiny models wait for one another, a hundred times longer.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("corewrite", derandomize=True, deadline=None)
settings.load_profile("corewrite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The whole loops first: begun last, one of two processes would wait for the other."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)
