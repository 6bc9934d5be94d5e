"""Every world of the demo tosses coins of its own, and seed 0 those it always had."""

import math

import pytest

from corewrite.experiment import assign
from corewrite.studies.platform import LAUNCHES

USERS = [f"u{i:07d}" for i in range(8_000)]


@pytest.mark.parametrize("launch", LAUNCHES, ids=lambda launch: launch.name[:8])
def test_seeds_split_equal_names_anew(launch):
    arms = {seed: [assign(user, launch.salt(seed)) for user in USERS] for seed in (0, 1, 2)}
    for one, other in ((0, 1), (0, 2), (1, 2)):
        alike = sum(a == b for a, b in zip(arms[one], arms[other], strict=True))
        assert abs(alike - len(USERS) / 2) < 4 * math.sqrt(len(USERS)) / 2


def test_seed_0_keeps_its_split():
    """As of the first release: the figures of `make demo` rest on it."""
    golden = ("ctttttcccctctctc", "ttttcttcctctctct")
    for launch, arms in zip(LAUNCHES, golden, strict=True):
        assert "".join(assign(user, launch.salt(0))[0] for user in USERS[:16]) == arms
