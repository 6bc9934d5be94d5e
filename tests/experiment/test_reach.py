"""Users reached by day: counted, extrapolated, and whether the extrapolation is right."""

import math

import numpy as np
import pyarrow as pa
import pytest

from corewrite.experiment.ab.reach import DAY, backtest, days_interval, days_until, measure_reach, users_after


def searches(rng, daily, days, impacted=0.6):
    """Users of given daily probabilities of searching, a few searches on a day they come."""
    on = rng.random((len(daily), days)) < np.asarray(daily)[:, None]
    user, day = np.nonzero(on)
    again = rng.integers(1, 4, len(user))
    user, day = np.repeat(user, again), np.repeat(day, again)
    n = len(user)
    at = (day + rng.random(n)) * DAY
    at[0], at[-1] = 0.0, days * DAY + 1
    order = np.argsort(at)
    return pa.table(
        {
            "user_id": np.char.add("u", user[order].astype(str)),
            "arm": ["none"] * n,
            "timestamp": at[order],
            "outcome": ["satisfied"] * n,
            "impacted": pa.array(rng.random(n) < impacted),
            "plain_changed": np.zeros(n),
            "watch_seconds": np.zeros(n),
        }
    )


def test_counts_against_plain_loops():
    rng = np.random.default_rng(0)
    table = searches(rng, rng.beta(0.5, 3, 300), 9)
    null = table.set_column(4, "impacted", pa.array(table["impacted"].to_pylist(), mask=rng.random(len(table)) < 0.05))
    for rows in (table, null):
        reach = measure_reach(rows)
        days, lost = {}, set()
        start = min(rows["timestamp"].to_pylist())
        for row in rows.to_pylist():
            user = row["user_id"]
            if row["impacted"] is None and user not in days:
                lost.add(user)
            elif row["impacted"] and user not in lost:
                days.setdefault(user, set()).add(int((row["timestamp"] - start) / DAY))
        days = {user: {d for d in on if d < 9} for user, on in days.items()}
        firsts = [min(on) for on in days.values() if on]
        assert reach.days == 9 and reach.new_users.tolist() == [firsts.count(d) for d in range(9)]
        assert reach.active.tolist() == [sum(len(on) == k for on in days.values()) for k in range(1, 10)]
        assert reach.users == len(firsts)
    assert measure_reach(table.filter(pa.array(np.arange(len(table)) < 0))).days == 0
    assert measure_reach(table.slice(0, 40)).days == 0


# Mean daily probability a few per cent.
PLATFORMS = {
    "unequal": lambda rng, n: rng.beta(0.4, 6, n),
    "equal": lambda rng, n: np.full(n, 0.06),
    "log-normal": lambda rng, n: np.minimum(0.9, np.exp(rng.normal(-3.6, 1.1, n))),
    "exponential": lambda rng, n: np.minimum(0.9, rng.exponential(0.05, n)),
    "two kinds": lambda rng, n: np.where(rng.random(n) < 0.3, 0.3, 0.02),
}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_extrapolation_against_what_then_happened(platform):
    """Two weeks of log say how many are reached in eight, within 10 %; linear growth would be far off."""
    rng = np.random.default_rng(1)
    daily = PLATFORMS[platform](rng, 20_000)
    table = searches(rng, daily, 56, impacted=1.0)
    reach, later = measure_reach(table, 14), measure_reach(table)
    assert (reach.days, later.days) == (14, 56)
    truth = np.cumsum(later.new_users)
    known = users_after(reach, np.arange(1, 15))
    np.testing.assert_array_equal(known, truth[:14])
    predicted = users_after(reach, [28, 42, 56])
    np.testing.assert_allclose(predicted, truth[[27, 41, 55]], rtol=0.1)
    np.testing.assert_allclose(predicted[0], truth[27], rtol=0.025)
    assert reach.users * 56 / 14 > 1.3 * truth[55]
    found = backtest(table)
    assert (found.days, found.observed) == (28, truth[55]) and found.predicted == pytest.approx(truth[55], rel=0.025)


def test_days_until():
    rng = np.random.default_rng(2)
    table = searches(rng, rng.beta(0.4, 6, 5_000), 10, impacted=1.0)
    reach = measure_reach(table)
    reached = np.cumsum(reach.new_users)
    assert days_until(reach, reached[4]) == 5 and days_until(reach, reached[4] + 1) == 6
    assert days_until(reach, 1e9) is None
    wanted = 1.25 * reach.users
    days = days_until(reach, wanted)
    assert 10 < days <= 40
    assert users_after(reach, days) >= wanted > users_after(reach, days - 1)
    low, high = days_interval(reach, wanted)
    assert low <= days <= high and low > 10
    assert days_interval(reach, reached[4]) == (5, 5)
    assert days_interval(reach, 1e9) == (None, None)


def test_the_interval_holds_as_often_as_it_says():
    rng, inside, runs = np.random.default_rng(3), 0, 20
    for _ in range(runs):
        daily = rng.beta(0.4, 6, 1_500)
        reach = measure_reach(searches(rng, daily, 10, impacted=1.0))
        wanted = 0.55 * len(daily)  # of all users there are; expected after a fixed number of days
        expected = next(d for d in range(1, 400) if (1 - (1 - daily) ** d).sum() >= wanted)
        low, high = days_interval(reach, wanted)
        inside += (low or math.inf) - 1 <= expected <= (high or math.inf) + 1
    assert inside >= 0.8 * runs
