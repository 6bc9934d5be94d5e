"""Who gets what: golden places, shares, and that groups are within or independent of each other as promised."""

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from corewrite.domain import hash_share, sha256_text
from corewrite.domain.traffic_split import (
    NUM_BUCKETS,
    STAGES_OF,
    ArmShares,
    arm_in_v1,
    assign_arm,
    assign_bucket,
    current_arm,
    in_treatment,
    is_gate_bucket,
    is_gate_user,
    is_holdback_bucket,
    is_holdback_user,
)

USERS = [f"user-{i}" for i in range(20_000)]
LAUNCH = {"none": 0.5, "finerank_only": 0.2, "all_stages": 0.3}


def test_golden_buckets():
    """Fixed for ever: a change would put users that were trained on into the gate's share."""
    assert [assign_bucket(u) for u in ["", "u", "user-0", "user-1", "client 7"]] == [4053, 3067, 256, 6890, 2959]


def by_definition(user: str) -> Fraction:
    return Fraction(int(sha256_text(f"gate\x1f{user}")[:13], 16), 16**13)


@given(st.text(max_size=30))
@example("user-0")
def test_gate_and_holdback_are_what_they_were_before_there_were_buckets(user):
    assert 0 <= assign_bucket(user) < NUM_BUCKETS
    assert assign_bucket(user) == by_definition(user) * NUM_BUCKETS // 1
    assert is_gate_user(user) == (hash_share(user, "gate") < 0.2) == is_gate_bucket(assign_bucket(user))
    assert is_holdback_user(user) == (hash_share(user, "gate") < 0.05) == is_holdback_bucket(assign_bucket(user))
    assert is_gate_user(user) or not is_holdback_user(user, 0.2)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.05, 0.07, 0.1337, 0.2])
def test_the_holdback_is_a_whole_number_of_buckets(share):
    assert sum(is_holdback_bucket(b, share) for b in range(NUM_BUCKETS)) == round(share * NUM_BUCKETS)


def test_without_a_holdback_every_client_keeps_its_arm():
    shares = ArmShares(holdback=0, **LAUNCH)
    for user in USERS[:2000]:
        place = hash_share(user, "corewrite")
        assert assign_arm(user, shares) == ("none" if place < 0.5 else "finerank_only" if place < 0.7 else "all_stages")


def test_an_arm_has_one_name_in_settings_and_logs_and_the_earlier_one_over_http():
    assert {arm: arm_in_v1(arm) for arm in STAGES_OF} == {
        "holdback": "holdback", "none": "none", "finerank_only": "launch_1", "all_stages": "launch_2",
    }  # fmt: skip
    assert all(current_arm(arm_in_v1(arm)) == current_arm(arm) == arm for arm in STAGES_OF)


def test_the_holdback_comes_first_and_the_others_share_the_rest():
    found = {u: assign_arm(u, ArmShares(**LAUNCH)) for u in USERS}
    assert {u for u, arm in found.items() if arm == "holdback"} == {u for u in USERS if is_holdback_user(u)}
    counts = Counter(found.values())
    expected = [0.05, *(0.95 * s for s in LAUNCH.values())]
    observed = [counts["holdback"], *(counts[arm] for arm in LAUNCH)]
    assert stats.chisquare(observed, [len(USERS) * s for s in expected]).pvalue > 0.001
    # A new salt, and other shares, move clients between the arms and nobody into or out of the holdback.
    again = {u: assign_arm(u, ArmShares(salt="next", none=0.9, all_stages=0.1)) for u in USERS}
    assert all((found[u] == "holdback") == (again[u] == "holdback") for u in USERS)


def test_arms_rollouts_and_the_gate_are_independent_of_each_other():
    shares = ArmShares(holdback=0, none=0.5, all_stages=0.5)
    groups = [is_gate_user, lambda u: assign_arm(u, shares) == "none", lambda u: in_treatment(u, "ramp-3", 0.1)]
    for i, one in enumerate(groups):
        for other in groups[:i]:
            table = [[0, 0], [0, 0]]
            for u in USERS:
                table[one(u)][other(u)] += 1
            assert stats.chi2_contingency(table).pvalue > 0.001


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"holdback": 0.21}, "less than or equal to 0.2"),
        ({"holdback": -0.1}, "greater than or equal to 0"),
        ({"none": 0.5}, "sum to 1.5, not 1"),
        ({"salt": "gate"}, "take another"),
        ({"salt": ""}, "at least 1 character"),
    ],
)
def test_shares_that_cannot_be_are_refused(settings, words):
    with pytest.raises(ValidationError, match=words):
        ArmShares(**settings)


def test_the_gates_salt_is_refused_for_rollouts_and_launches():
    with pytest.raises(ValueError, match="take another"):
        in_treatment("u", "gate", 0.5)
