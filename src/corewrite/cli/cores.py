"""How the arithmetic shares the machine's cores; set before anything that computes is imported."""

import math
import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path

SPINS = "1000"
"""How often a thread of libgomp looks whether the others are there before it sleeps: some 20 microseconds, where 300,000 are
the default. Alone on the cores that is as fast; beside a neighbour, threads otherwise burn their share of the cores waiting
for one that is not running (docs/evidence/benchmarks.md, "Beside a neighbour")."""


def share_cores(variables: MutableMapping[str, str] = os.environ) -> None:
    """Let threads that wait for each other sleep soon, and take no more threads than there are cores to use.

    What the user has set counts. Works by environment variables, which are read where libgomp and NumPy are imported, and which
    child processes inherit.
    """
    if "OMP_WAIT_POLICY" not in variables:
        variables.setdefault("GOMP_SPINCOUNT", SPINS)
    quota = cpu_quota()
    if quota is not None and quota < _cores():
        # The libraries count cores; a container with a quota has fewer than it sees, and is stopped when it has used them up.
        variables.setdefault("OMP_NUM_THREADS", str(max(1, math.floor(quota))))


def cpu_quota(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float | None:
    """Cores' worth of time that the control group of this process may use, the least of its own and those above it.

    None where there is no limit, or no control group.
    """
    try:
        lines = membership.read_text("utf-8").splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            for folder in _upwards(root if not controllers else root / "cpu", path):
                limits.append(_limit(folder))
    return min((x for x in limits if x is not None), default=None)


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """A control group's folder and all above it. In a container the path may be the host's: then only the root is there."""
    folder = root / path.strip("/")
    while folder != root:
        yield folder
        folder = folder.parent
    yield root


def _limit(folder: Path) -> float | None:
    try:
        if (file := folder / "cpu.max").is_file():  # version 2
            quota, period = file.read_text("ascii").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text("ascii").strip()
            period = (folder / "cpu.cfs_period_us").read_text("ascii").strip()
    except (OSError, ValueError):
        return None
    return None if quota in ("max", "-1") else int(quota) / int(period)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
