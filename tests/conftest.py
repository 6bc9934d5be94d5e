"""Settings of every test: one thread, the same examples in every run, and no deadline on a busy machine."""

import os

from hypothesis import settings

# Set before torch is imported: on busy cores the threads of tiny models wait for one another, a hundred times longer.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("corewrite", derandomize=True, deadline=None)
settings.load_profile("corewrite")
