"""A plan from a log: rates, users, days, and what it does not pretend to know."""

import json

import numpy as np
import pyarrow as pa
import pytest

from corewrite.experiment.ab.planning import plan_launch
from corewrite.experiment.ab.power import users_needed
from corewrite.experiment.ab.reach import DAY


def platform(rng, users, days, arms=("",), known=1.0):
    """Users who come on some days and search a few times; 40 % of searches are impacted, of those 25 % are changed."""
    daily = rng.beta(0.6, 4, users)
    user, day = np.nonzero(rng.random((users, days)) < daily[:, None])
    again = rng.integers(1, 4, len(user))
    user, day = np.repeat(user, again), np.repeat(day, again)
    n = len(user)
    at = np.sort((day + rng.random(n)) * DAY)
    user = user[np.argsort((day + rng.random(n)) * DAY, kind="stable")]
    at[0], at[-1] = 0.0, days * DAY + 1
    u = rng.random(n)
    arm = rng.integers(0, len(arms), users)
    logged = rng.random(users) < known
    return pa.table(
        {
            "user_id": np.char.add("u", user.astype(str)),
            "arm": np.array(arms)[arm[user]],
            "timestamp": at,
            "outcome": np.where(u < 0.25, "changed_unsatisfied", np.where(u < 0.5, "gave_up", "satisfied")),
            "impacted": pa.array(rng.random(n) < 0.4, mask=~logged[user]),
            "plain_changed": np.zeros(n),
            "watch_seconds": np.zeros(n),
        }
    )


def first_of_each(table):
    first = {}
    for row in table.sort_by("timestamp").to_pylist():
        if row["impacted"]:
            first.setdefault(row["user_id"], row)
    return first


def test_a_plan_against_plain_loops():
    table = platform(np.random.default_rng(0), 6_000, 10)
    plan = plan_launch(table, effect=0.1)
    first = first_of_each(table)
    changed = np.mean([row["outcome"] == "changed_unsatisfied" for row in first.values()])
    gave_up = np.mean([row["outcome"] == "gave_up" for row in first.values()])
    users = set(table["user_id"].to_pylist())
    assert (plan.users, plan.first_impacted) == (len(users), len(first)) and plan.users_of_arm == len(users)
    assert plan.triggered == pytest.approx(len(first) / len(users)) and plan.trigger_known == 1.0
    assert (plan.cqr, plan.give_up) == pytest.approx((changed, gave_up))
    assert plan.users_for_cqr == users_needed(changed, 0.9 * changed, share=0.5, alpha=0.05, power=0.8)
    assert plan.users_for_give_up == users_needed(gave_up, gave_up, limit=0.05, share=0.5, alpha=0.05, power=0.8)
    assert plan.users_needed == max(plan.users_for_cqr, plan.users_for_give_up)
    assert 0.6 < plan.power_to_count <= 0.8
    assert len(plan.new_users) == 10 and sum(plan.new_users) == len(first_of_each(table.slice(0, len(table) - 1)))
    assert plan.new_users[0] > 1.5 * plan.new_users[-1]  # not constant: users return
    assert json.loads(json.dumps(plan.as_dict(), allow_nan=False))["cqr"] == plan.cqr


def test_days_of_a_log_that_holds_the_answer_and_of_one_that_does_not():
    table = platform(np.random.default_rng(1), 30_000, 40)
    within = plan_launch(table, effect=0.08, give_up_margin=0.1)
    assert within.days == within.days_low == within.days_high == within.days_if_all_logged < 40
    day = np.searchsorted(np.cumsum(within.new_users), within.users_needed) + 1
    assert within.days == day
    short = table.filter(pa.array(table["timestamp"].to_numpy() <= 6 * DAY + 2))
    beyond = plan_launch(short, effect=0.08, give_up_margin=0.1)
    assert beyond.days > 6 and beyond.days == pytest.approx(within.days, rel=0.15)
    assert beyond.days_low <= beyond.days <= beyond.days_high
    assert beyond.backtest.days == 3 and beyond.backtest.predicted == pytest.approx(beyond.backtest.observed, rel=0.1)
    never = plan_launch(short, effect=0.005)
    assert never.days is None and "more than 24 days, by when about" in never.why_no_days
    two = plan_launch(table.filter(pa.array(table["timestamp"].to_numpy() <= 2.5 * DAY)), effect=0.05)
    assert two.days is None and "2 whole days" in two.why_no_days and two.users_needed > 0


def test_arms_traffic_and_triggers_that_are_not_known():
    table = platform(np.random.default_rng(2), 40_000, 10, arms=("none", "finerank_only"))
    with pytest.raises(ValueError, match=r"several arms \('finerank_only', 'none'\)"):
        plan_launch(table, effect=0.1)
    with pytest.raises(ValueError, match=r"no search is in arm 'holdback': there are 'finerank_only', 'none'"):
        plan_launch(table, effect=0.1, control="holdback")
    options = {"effect": 0.1, "control": "none", "give_up_margin": 0.1}
    all_ = plan_launch(table, **options)
    assert all_.users_of_arm == pytest.approx(all_.users / 2, rel=0.05)
    # Both arms' users take part: as many as the log has, though one arm alone told the rates.
    assert sum(all_.new_users) == pytest.approx(len(first_of_each(table)), rel=0.03)
    half = plan_launch(table, **options, traffic=0.5)
    assert half.users_needed == all_.users_needed and sum(half.new_users) == pytest.approx(sum(all_.new_users) / 2)
    assert half.days > all_.days

    some = platform(np.random.default_rng(2), 40_000, 10, arms=("none", "finerank_only"), known=0.4)
    seen = plan_launch(some, **options)
    assert seen.trigger_known == pytest.approx(0.4, abs=0.02) and seen.triggered == pytest.approx(all_.triggered, abs=0.02)
    assert seen.days > all_.days and seen.days_if_all_logged == pytest.approx(all_.days, abs=1)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"effect": 0.0}, "effect 0.0"),
        ({"effect": 1.5}, "effect 1.5"),
        ({"power": 1.0}, "power 1.0"),
        ({"alpha": 0.0}, "alpha 0.0"),
        ({"share": 1.0}, "share 1.0"),
        ({"traffic": 0.0}, "traffic 0.0"),
        ({"give_up_margin": 0.0}, "give_up_margin 0.0"),
    ],
)
def test_refused_options(option, message):
    with pytest.raises(ValueError, match=message):
        plan_launch(platform(np.random.default_rng(3), 500, 4), **({"effect": 0.1} | option))


def test_too_little_to_plan_by():
    table = platform(np.random.default_rng(4), 500, 4)
    unknown = table.set_column(4, "impacted", pa.nulls(len(table), pa.bool_()))
    with pytest.raises(ValueError, match=r"0 of the \d+ users have a first impacted search"):
        plan_launch(unknown, effect=0.1)
