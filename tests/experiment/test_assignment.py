import pytest
from scipy import stats

from corewrite.experiment import assign

USERS = [f"user-{i}" for i in range(20_000)]


def test_golden_arms():
    """Fixed for ever: a change would move users between arms in the middle of a launch."""
    assert [assign(u, "launch-1") for u in USERS[:8]] == [
        "control",
        "control",
        "control",
        "treatment",
        "control",
        "treatment",
        "treatment",
        "control",
    ]


@pytest.mark.parametrize("share", [0.05, 0.5, 0.8])
def test_share(share):
    in_treatment = sum(assign(u, "a", share) == "treatment" for u in USERS)
    assert stats.binomtest(in_treatment, len(USERS), share).pvalue > 0.001


def test_launches_are_independent():
    counts = [[0, 0], [0, 0]]
    for u in USERS:
        counts[assign(u, "launch-1") == "treatment"][assign(u, "launch-2") == "treatment"] += 1
    assert stats.chi2_contingency(counts).pvalue > 0.001


@pytest.mark.parametrize(("salt", "share", "message"), [("", 0.5, "salt"), ("a", 0.0, "share 0"), ("a", 1.0, "share 1")])
def test_refused(salt, share, message):
    with pytest.raises(ValueError, match=message):
        assign("u", salt, share)
