import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.emplike.descriptive import DescStat

from corewrite.gate import ratio_of_sums
from corewrite.gate.ratio_of_sums import EVENT, EVENT_WITH_LIMIT, SHARE, UNLIMITED, GainRange, RatioOfSums


def one(gains, queries=None, gain_range=UNLIMITED):
    """One sample."""
    gains = np.asarray(gains, np.float64)
    queries = np.ones(len(gains)) if queries is None else np.asarray(queries, np.float64)
    return RatioOfSums(gains[:, None], queries[:, None], gain_range)


def events(lost, users, won=0):
    return one(np.repeat([-1.0, 1.0, 0.0], [lost, won, users - lost - won]), gain_range=EVENT_WITH_LIMIT if not won else EVENT)


@pytest.mark.parametrize("users", [40, 338, 5000])
@pytest.mark.parametrize("lost", [0, 1, 2, 5, 20])
def test_of_a_share_the_lower_bound_is_between_mid_p_and_clopper_and_pearson(users, lost):
    def mid_p(share):
        return stats.binom.cdf(lost - 1, users, share) + stats.binom.pmf(lost, users, share) / 2 - 0.025

    found = -float(events(lost, users).low()[0])
    exact = stats.binomtest(lost, users).proportion_ci(0.95, "exact").high
    assert optimize.brentq(mid_p, lost / users + 1e-9, 1 - 1e-9) < found < 1.005 * exact
    # With a share of just that, so few events are seen in so many samples: the chance of a false pass.
    assert 0.0225 < stats.binom.cdf(lost, users, found) < 0.0345


def test_an_event_that_was_not_seen_may_be_one_in_as_many_users_as_the_rule_of_three_says():
    # 1 - 0.034 ** (1 / n), about 3.4 / n: the share that leaves 3.4 % of samples without the event.
    for users in (40, 372, 1000):
        unseen = events(0, users)
        assert -float(unseen.low()[0]) == pytest.approx(1 - 0.034 ** (1 / users), rel=0.04)
        assert float(unseen.high()[0]) == pytest.approx(0.0, abs=1e-12), "no share is below 0"
    assert float(events(0, 336).low()[0]) < -0.01 < float(events(0, 338).low()[0])
    assert float(events(0, 40).users_needed(0.01)[0]) == pytest.approx(337, abs=1)
    # The same users with three queries each are no more users.
    assert float(one(np.zeros(336), np.full(336, 3.0), EVENT).low()[0]) < -0.01
    # And one with half of the traffic leaves four.
    whale = one(np.zeros(1001), np.append(np.ones(1000), 1000.0), EVENT)
    assert float(whale.effective_users[0]) == pytest.approx(4, abs=0.01) and float(whale.low()[0]) < -0.4


def test_without_the_unseen_user_the_likelihood_is_that_of_statsmodels(monkeypatch):
    monkeypatch.setattr(ratio_of_sums, "UNSEEN", 0.0)
    x = np.random.default_rng(0).gamma(1.0, size=400)
    oracle = DescStat(x)
    quantile = stats.norm.ppf(0.975)
    monkeypatch.setattr(ratio_of_sums, "_quantile", lambda users, level: np.full(len(users), quantile))
    found = one(x)
    low, high = oracle.ci_mean(0.05, epsilon=1e-10)
    assert (float(found.low()[0]), float(found.high()[0])) == pytest.approx((low, high), rel=1e-6)
    for at in (x.mean() - 0.05, x.mean() + 0.05):
        ratio = oracle.test_mean(at, result_object=True)[0]
        root = found._with_unseen.profile(np.array([at])).root[0]
        assert root**2 == pytest.approx(ratio, rel=1e-6) and (root > 0) == (x.mean() > at)


def test_the_bound_of_unequal_users_is_that_of_a_general_optimiser():
    """The likelihood is maximised over the weights of eight users and the unseen one by SLSQP, which knows no multiplier."""
    rng = np.random.default_rng(4)
    queries = rng.integers(1, 9, 8).astype(np.float64)
    gains = queries * rng.normal(0, 0.2, 8)
    found = one(gains, queries)
    mean = gains.sum() / queries.sum()
    n = (queries**2).sum() / queries.sum()
    reach = (np.abs(gains - mean * queries) / np.sqrt(queries)).max()
    s, q = np.append(gains, mean * n - reach * np.sqrt(n)), np.append(queries, n)
    multiplicity = np.append(np.ones(8), 1 / 2)
    even = multiplicity / multiplicity.sum()
    low = float(found.low()[0])
    constraints = [
        {"type": "eq", "fun": lambda w: w.sum() - 1},
        {"type": "eq", "fun": lambda w: w @ (s - low * q)},
    ]
    best = optimize.minimize(
        lambda w: -multiplicity @ np.log(w / even), even, bounds=[(1e-9, 1)] * 9, constraints=constraints,
        options={"maxiter": 1000, "ftol": 1e-14},
    )  # fmt: skip
    effective = queries.sum() ** 2 / (queries**2).sum()
    assert best.success
    assert 2 * best.fun == pytest.approx(stats.t(effective - 1).ppf(0.975) ** 2, rel=1e-4)


def test_of_many_users_alike_the_bounds_are_those_of_a_t_test():
    x = np.random.default_rng(1).normal(0.3, 1.0, 20_000)
    low, high = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    found = one(x, gain_range=UNLIMITED)
    assert (float(found.low()[0]), float(found.high()[0])) == pytest.approx((low, high), abs=0.0005)
    p = stats.ttest_1samp(x, 0.315, alternative="less").pvalue
    assert float(found.p_value(-0.315)[0]) == pytest.approx(p, abs=0.01)
    # How many of them are needed to tell the mean from -m: (z sd / m)²; somewhat more where they are few, with the unseen user.
    for margin, distance in ((0.02, 0.02), (0.1, 0.1), (0.0, x.mean())):
        needed = (1.96 * x.std() / distance) ** 2
        assert 1.02 * needed < float(found.users_needed(margin)[0]) < (1 + 5 / np.sqrt(needed)) * needed


@st.composite
def samples(draw):
    users = draw(st.integers(20, 60))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    queries = rng.geometric(1 / 3, users).astype(np.float64)
    if draw(st.booleans()):
        rate = draw(st.floats(0, 0.5))
        return one(-rng.binomial(queries.astype(int), rate), queries, draw(st.sampled_from([EVENT, EVENT_WITH_LIMIT])))
    spread = draw(st.floats(1e-6, 100))
    return one(queries * rng.normal(0, spread, users) + rng.choice([0.0, spread]) * queries, queries)


@settings(deadline=None, max_examples=200)
@given(samples(), st.floats(0.01, 1), st.integers(1, 6))
def test_upper_bound_and_p_value_agree(sample, margin, comparisons):
    (found,) = sample.bounds(margin, comparisons)
    assert found.low <= float(sample.mean[0]) + 1e-12 and float(sample.mean[0]) <= found.high + 1e-12
    if abs(found.p_value - 0.025) > 1e-6:
        assert (found.high < -margin) == (found.p_value < 0.025)


@settings(deadline=None, max_examples=50)
@given(samples(), st.integers(-8, 8))
def test_units_do_not_matter(sample, power):
    if sample.gain_range is not UNLIMITED:
        return
    scaled = RatioOfSums(sample.gains * 2.0**power, sample.queries)
    assert scaled.low() == pytest.approx(sample.low() * 2.0**power, rel=1e-6, abs=1e-300)
    assert scaled.p_value(0.1 * 2.0**power) == pytest.approx(sample.p_value(0.1), rel=1e-6, abs=1e-12)


def test_samples_side_by_side_are_those_one_by_one():
    rng = np.random.default_rng(7)
    queries = rng.geometric(0.4, (80, 5)).astype(np.float64) * (rng.random((80, 5)) < [1.0, 0.9, 0.5, 1.0, 0.7])
    gains = queries * rng.normal(-0.01, 0.05, (80, 5))
    together = RatioOfSums(gains, queries, SHARE).bounds(0.02, comparisons=5)
    for k in range(5):
        there = queries[:, k] > 0
        (alone,) = one(gains[there, k], queries[there, k], SHARE).bounds(0.02, comparisons=5)
        for name in ("low", "high", "p_value", "effective_users"):
            assert getattr(together[k], name) == pytest.approx(getattr(alone, name), rel=1e-6, abs=1e-12), name
        assert together[k].users_needed == pytest.approx(alone.users_needed, rel=0.01)


@pytest.mark.parametrize("kind", ["events", "mean"])
def test_with_as_many_users_as_are_needed_it_passes_and_with_fewer_not(kind):
    """The users seen, around a difference of 0, again and again."""
    rng = np.random.default_rng(3)
    queries = rng.geometric(1 / 3, 100).astype(np.float64)
    changed = rng.binomial(queries.astype(int), 0.04)
    gains = (changed * np.where(np.arange(100) % 2, 1, -1)).astype(np.float64)
    if kind == "mean":
        gains = queries * rng.normal(0, 0.05, 100)
    gains -= gains.sum() / queries.sum() * queries
    sample, margin = one(gains, queries, EVENT if kind == "events" else SHARE), 0.004
    needed = float(sample.users_needed(margin)[0])
    times = needed / float(sample.effective_users[0])
    assert times > 3
    for factor, passes in ((0.9, False), (1.1, True)):
        n = round(factor * times)
        low = one(np.tile(gains, n), np.tile(queries, n), sample.gain_range).low()[0]
        assert (low > -margin) == passes


def test_a_few_gains_show_no_rise():
    """Where nothing is lost and one or four users gain, losses of that size were as likely: a half, or 6 %, by a sign test."""
    for users, gaining, shown in ((500, 1, False), (500, 4, False), (500, 6, True), (40, 3, False)):
        gains = np.where(np.arange(users) < gaining, 0.1, 0.0)
        assert (float(one(gains, gain_range=SHARE).low()[0]) > 0) is shown


def test_no_number_of_users_makes_up_for_a_loss():
    rising, falling = (one(np.random.default_rng(1).normal(mean, 1, 200)) for mean in (0.2, -0.2))
    assert np.isfinite(rising.users_needed(0.0)[0]) and np.isinf(falling.users_needed(0.0)[0])
    assert np.isfinite(falling.users_needed(0.1)[0]), "the difference may be 0 all the same"


def test_where_all_users_are_alike_the_range_says_what_there_can_be():
    same = np.full(50, 0.25)
    assert [float(f(one(same))[0]) for f in (RatioOfSums.low, RatioOfSums.high)] == [0.25, 0.25]
    limited = one(same, gain_range=SHARE)
    assert float(limited.low()[0]) < 0.25 - 3.2 * 1.25 / 53 and float(limited.high()[0]) > 0.25 + 3.2 * 0.75 / 53
    assert GainRange(-1.0, 0.0).mirrored == GainRange(-0.0, 1.0)
    assert float(one(same).p_value(0.25)[0]) == 1.0 and float(one(-same).p_value(0.2)[0]) == 0.0


def test_refused():
    with pytest.raises(ValueError, match="at least 2 users"):
        one([1.0])
    with pytest.raises(ValueError, match="at least 2 users"):
        one([1.0, 0.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="not a finite number"):
        one([1.0, np.nan])
