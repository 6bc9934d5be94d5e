"""Which search was a user's first impacted one, where the log does not say it of all: missing is never false."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corewrite.experiment import aa_check, check_searches, read_launch, trigger_known
from corewrite.experiment.ab.planning import plan_launch

ARMS = ("none", "all_stages")


def toy(rng, users, *, seen=1.0, by_user=False, better=0.45):
    """Users who search until they are satisfied, at most 8 times; treatment satisfies more on impacted searches.

    So it leaves fewer searches. `seen` is the probability that a search, or all of a user's, says whether it is impacted.
    """
    steps = 8
    treated = rng.random(users) < 0.5
    impacted = rng.random((users, steps)) < 0.4
    u = rng.random((users, steps))
    satisfied = u < 0.25 + np.where(impacted & treated[:, None], better, 0.0)
    gave_up = u > 0.9
    ended = np.cumsum(satisfied | gave_up, 1) - (satisfied | gave_up)  # ends before this search
    user, step = np.nonzero(ended == 0)
    at = user, step
    known = (rng.random(users) < seen)[user] if by_user else rng.random(len(user)) < seen
    outcome = np.where(satisfied[at], "satisfied", np.where(gave_up[at], "gave_up", "changed_unsatisfied"))
    table = pa.table(
        {
            "user_id": np.char.add("u", user.astype(str)),
            "arm": np.array(ARMS)[treated[user].astype(int)],
            "timestamp": step.astype(float),
            "outcome": outcome,
            "impacted": impacted[at],
            "plain_changed": np.full(len(user), math.nan),
            "watch_seconds": np.zeros(len(user)),
        }
    )
    return table, pa.array(impacted[at], mask=~known)


def logged(table, impacted):
    return table.set_column(table.column_names.index("impacted"), "impacted", impacted)


def read(table, **options):
    return read_launch("toy", table, control="none", treatment="all_stages", **options)


def test_the_first_logged_impacted_search_depends_on_the_arm_and_the_first_known_one_does_not():
    """One search in ten says whether it is impacted: read as false, the other nine make the treatment's users fewer."""
    rng = np.random.default_rng(0)
    table, impacted = toy(rng, 40_000, seen=0.1)
    false = impacted.fill_null(False)
    assert read(logged(table, false)).srm_triggered_p_value < 0.001  # what was wrong
    # Nor would users do of whom all is known: the fewer searches somebody has, the likelier.
    lost = set(table["user_id"].filter(impacted.is_null()).to_pylist())
    whole = table.filter(pa.array([user not in lost for user in table["user_id"].to_pylist()]))
    assert read(whole).srm_p_value < 0.001

    result = read(logged(table, impacted))
    assert result.srm_triggered_p_value > 0.01 and result.trigger_p_value > 0.01
    assert result.srm_p_value > 0.01 and result.impacted_users > 1_000
    truth = read(table)
    for name in ("cqr", "give_up", "satisfied", "cqr_all_impacted"):
        # What is known of one search in ten says the same as all of them, with a wider interval.
        some, all_ = getattr(result, name), getattr(truth, name)
        for arm in ("control", "treatment"):
            error = math.sqrt(getattr(all_, arm) / getattr(some, f"n_{arm}"))
            assert getattr(some, arm) == pytest.approx(getattr(all_, arm), abs=3 * error)
    assert result.cqr.ci_low < truth.cqr.relative < result.cqr.ci_high
    assert sum(result.users_without_trigger.values()) > 0.5 * result.users and truth.users_without_trigger == dict.fromkeys(
        ARMS, 0
    )
    assert result.searches_without_trigger == impacted.null_count
    assert result.share_impacted == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize("by_user", [False, True])
def test_the_split_of_known_triggers_is_fair_in_many_logs(by_user):
    rng = np.random.default_rng(1)
    p_values = []
    for _ in range(30):
        table, impacted = toy(rng, 1_500, seen=0.3, by_user=by_user)
        result = read(logged(table, impacted))
        p_values.append((result.srm_triggered_p_value, result.trigger_p_value))
    # Both tests are discrete, hence conservative; 1.5 of 30 are expected at most.
    assert (np.array(p_values) < 0.05).sum(0).max() <= 6
    assert (np.array(p_values) < 0.5).mean() > 0.2


def test_known_of_users_as_a_whole():
    table, impacted = toy(np.random.default_rng(2), 4_000, seen=0.1, by_user=True)
    result = read(logged(table, impacted))
    known = impacted.is_valid().to_pylist()
    for arm in ARMS:
        unknown = {u for u, a, k in zip(table["user_id"].to_pylist(), table["arm"].to_pylist(), known, strict=True)
                   if a == arm and not k}  # fmt: skip
        assert result.users_without_trigger[arm] == len(unknown)
    only = read(table.filter(pa.array(known)))
    for name in ("cqr", "give_up", "satisfied", "cqr_all_impacted", "give_up_all_impacted"):
        assert getattr(result, name) == getattr(only, name)
    assert result.impacted_searches == only.impacted_searches and result.users == 4_000 > only.users
    assert result.cqr_overall == read(table).cqr_overall  # needs no trigger


def test_a_trigger_known_more_often_in_one_arm_is_refused():
    """As where a late rewrite leaves no other list to compare with, in the treatment only."""
    rng = np.random.default_rng(3)
    table, impacted = toy(rng, 4_000)
    late = (np.array(table["arm"].to_pylist()) == "all_stages") & (rng.random(len(table)) < 0.1)
    worse = pa.array([None if gone else i for i, gone in zip(impacted.to_pylist(), late, strict=True)], pa.bool_())
    with pytest.raises(
        ValueError, match=r"known for 100(\.0)? % of the users in 'none' and 8\d\.\d % in 'all_stages' \(p = .*e-"
    ):
        read(logged(table, worse))
    nothing = pa.array(
        [None if a == "none" else i for a, i in zip(table["arm"].to_pylist(), impacted.to_pylist(), strict=True)]
    )
    with pytest.raises(ValueError, match=r"no user in 'none' .* is known .*logged on both sides"):
        read(logged(table, nothing))
    with pytest.raises(ValueError, match="no user in 'none' or 'all_stages'"):
        read(logged(table, pa.nulls(len(table), pa.bool_())))


ROW = st.tuples(st.sampled_from("abcd"), st.integers(0, 3), st.sampled_from([True, False, None]))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(ROW, min_size=1, max_size=14))
def test_known_against_brute_force(rows):
    table = pa.table({
        "user_id": [r[0] for r in rows], "timestamp": [float(r[1]) for r in rows],
        "impacted": pa.array([r[2] for r in rows], pa.bool_()),
    })  # fmt: skip
    wanted = {}
    for user, _, impacted in sorted(rows, key=lambda r: r[1]):
        if wanted.get(user) != "first":
            if impacted is True and wanted.get(user, "none yet") == "none yet":
                wanted[user] = "first"
            elif impacted is None:
                wanted[user] = "lost"
            else:
                wanted.setdefault(user, "none yet")
    assert trigger_known(table).tolist() == [wanted[r[0]] != "lost" for r in rows]


def test_arms_as_served():
    table, _ = toy(np.random.default_rng(4), 300)
    other = pa.table({name: table[name] for name in table.column_names})
    extra = other.slice(0, 40).set_column(1, "arm", pa.array(["finerank_only"] * 40))
    extra = extra.set_column(0, "user_id", pa.array([f"x{k // 4}" for k in range(40)]))
    unnamed = extra.set_column(1, "arm", pa.array([""] * 40))
    both = pa.concat_tables([table, extra, unnamed])
    result = read(both)
    assert result.other_arms == {"finerank_only": 10, "": 10}
    assert (result.control_arm, result.treatment_arm) == ARMS
    plain = result.as_dict() | {"other_arms": {}}
    assert plain == read(table).as_dict()
    with pytest.raises(
        ValueError, match=r"no search is in arm 'holdback': .*'all_stages', 'finerank_only', 'none' and searches without an arm"
    ):
        read_launch("x", both, control="holdback", treatment="all_stages")
    with pytest.raises(ValueError, match="'none' is both control and treatment"):
        read_launch("x", both, control="none", treatment="none")
    torn = both.set_column(1, "arm", pa.array([*both["arm"].to_pylist()[:-1], "none"]))
    torn = torn.set_column(
        0, "user_id", pa.array([*torn["user_id"].to_pylist()[:-1], both["user_id"][_last(both, "all_stages")].as_py()])
    )
    with pytest.raises(ValueError, match=r"1 users are in both arms, such as 'u\d+'"):
        read(torn)
    with pytest.raises(ValueError, match="no search is in arm 'control'"):
        read_launch("x", table)


def _last(table, arm):
    return max(i for i, a in enumerate(table["arm"].to_pylist()) if a == arm)


def test_nan_is_unknown_and_a_share_is_refused():
    table, impacted = toy(np.random.default_rng(5), 400, seen=0.6, by_user=True)
    floats = pa.array([math.nan if i is None else float(i) for i in impacted.to_pylist()])
    assert read(logged(table, floats)).as_dict() == read(logged(table, impacted)).as_dict()
    with pytest.raises(ValueError, match="'impacted' must be true, false, or null"):
        check_searches(logged(table, pa.array([0.5] * len(table))))


def test_a_a_of_control_users_whose_trigger_is_known():
    table, impacted = toy(np.random.default_rng(6), 3_000, seen=0.5, by_user=True)
    check = aa_check(logged(table, impacted), control="none", splits=100, seed=0)
    result = read(logged(table, impacted))
    assert check.users == result.cqr.n_control


def test_impacted_between_the_arms_that_are_read():
    """A log may compare other arms, or others at times; arms that show the same are one."""
    table, impacted = toy(np.random.default_rng(7), 2_000)
    users = np.array([int(u[1:]) for u in table["user_id"].to_pylist()])

    def with_pairs(*pairs):
        return table.append_column("pair", pa.array([pairs[u % len(pairs)] for u in users], pa.list_(pa.string())))

    whole = read(table)
    for same in (["none", "all_stages"], ["all_stages", "none"], ["holdback", "all_stages"], None):
        assert read(with_pairs(same)) == whole
    half = read(with_pairs(["none", "all_stages"], ["none", "finerank_only"]))
    unknown = logged(table, pa.array(impacted.to_pylist(), mask=users % 2 == 1))
    assert half == read(unknown) and sum(half.users_without_trigger.values()) == 1_000
    with pytest.raises(ValueError, match=r"between '3' and '4', not between 'none' and 'all_stages'.*log.pair"):
        read(with_pairs(["3", "4"]))
    options = {"effect": 0.2, "control": "none"}
    assert plan_launch(with_pairs(["3", "4"]), **options).trigger_known == 1.0
    with pytest.raises(ValueError, match=r"several pairs \('none' and 'all_stages'; 'none' and 'finerank_only'\)"):
        plan_launch(with_pairs(["none", "all_stages"], ["none", "finerank_only"]), **options)
    plan = plan_launch(with_pairs(["none", "all_stages"], ["none", "finerank_only"]), **options, treatment="all_stages")
    assert plan.trigger_known == pytest.approx(0.5, abs=0.05)


def test_arms_that_were_not_served_as_named():
    table, _ = toy(np.random.default_rng(8), 1_000)
    treated = np.array(table["arm"].to_pylist()) == "all_stages"
    impacted = np.array(table["impacted"].to_pylist())
    late = np.random.default_rng(9).random(len(table)) < 0.25

    def with_rewrites(used, where=None):
        return table.append_column("rewritten", pa.array(used, mask=where))

    plain = read(table)
    result = read(with_rewrites(treated & ~late))
    assert plain.treated is None
    assert result.treated == pytest.approx((~late)[treated & impacted].mean())
    assert result.as_dict() == plain.as_dict() | {"treated": result.treated}
    with pytest.raises(
        ValueError, match=r"none of the \d+ impacted searches of arm 'all_stages' was served with a rewrite \(shadow"
    ):
        read(with_rewrites(np.zeros(len(table), np.bool_)))
    with pytest.raises(ValueError, match=r"1 searches of arm 'none', which has no rewriter, were served with a rewrite"):
        read(with_rewrites(treated | (np.arange(len(table)) == np.flatnonzero(~treated)[0])))
    assert read(with_rewrites(treated, np.ones(len(table), np.bool_))).treated is None  # not logged is not "never"
    assert read(with_rewrites(treated & ~late, ~treated)).treated == result.treated
    # Of a team's own arms nobody knows which use rewrites.
    own = {"none": "A", "all_stages": "B"}
    renamed = with_rewrites(np.zeros(len(table), np.bool_)).set_column(
        1, "arm", pa.array([own[a] for a in table["arm"].to_pylist()])
    )
    assert read_launch("x", renamed, control="A", treatment="B").treated is None
