import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from corewrite.gate import CHECKS, GateConfig, Resampling, bounds, holm
from corewrite.gate.bounds import effective_users
from corewrite.gate.check import ItemCounts
from corewrite.gate.resampling import _fill_poisson


def test_sums_by_hand():
    # User 0 has queries (1, 3), user 1 has (5); the resamples are {0}, {1}, {0, 0, 1}.
    resampling = Resampling(np.array([0, 0, 1]), np.array([[1, 0], [0, 1], [2, 1]], np.uint8), np.zeros((0, 2), bool))
    columns = np.array([[1.0, 1.0], [3.0, 1.0], [5.0, 1.0]])
    assert resampling.per_user(columns).tolist() == [[4.0, 2.0], [5.0, 1.0]]
    whole, totals = resampling.totals(columns)
    assert whole.tolist() == [9.0, 3.0] and totals.tolist() == [[4.0, 2.0], [5.0, 1.0], [13.0, 5.0]]
    assert resampling.effective_users == pytest.approx(3**2 / (2**2 + 1**2))
    assert effective_users(np.array([[1.0, 100.0], [1.0, 50.0], [1.0, 50.0]])) == pytest.approx([3.0, 200**2 / 15_000])


def test_poisson_weights_and_halves():
    rng = np.random.default_rng(1)
    ids = [f"u{u}" for u in rng.permutation(np.repeat(np.arange(501), 2))]
    resampling = Resampling.draw(ids, resamples=400, subsamples=100, seed=3)
    assert (resampling.halves.sum(1) == 250).all()
    observed = np.bincount(resampling.weights.ravel(), minlength=6)[:6] / resampling.weights.size
    assert observed == pytest.approx(stats.poisson(1).pmf(np.arange(6)), abs=0.003)
    fewer = Resampling.draw(ids, resamples=50, subsamples=100, seed=3)
    assert (fewer.halves == resampling.halves).all() and (fewer.weights == resampling.weights[:50]).all()
    assert (Resampling.draw(ids, resamples=50, subsamples=100, seed=4).weights != fewer.weights).any()


def test_weights_are_poisson_to_the_far_tail():
    """Ten million draws, by chi-square; inversion of 16 bits alone would never give 8 and give 6 too rarely."""
    weights = np.concatenate(
        [Resampling.draw([str(u) for u in range(5000)], resamples=1000, subsamples=50, seed=s).weights for s in (5, 6)]
    )
    observed = np.bincount(weights.ravel(), minlength=9)
    law = stats.poisson(1)
    expected = weights.size * np.append(law.pmf(np.arange(8)), law.sf(7))
    assert stats.chisquare(np.append(observed[:8], observed[8:].sum()), expected).pvalue > 0.001
    assert weights.max() >= 8
    # And draws of one user are independent of each other, as are those of neighbours.
    x = weights.astype(float) - 1
    for neighbours in (x[1:] * x[:-1], x[:, 1:] * x[:, :-1]):
        assert abs(neighbours.mean()) < 4 / np.sqrt(neighbours.size)


def test_inversion_is_that_of_the_distribution_function():
    """Every pair of 16 bits and what follows them gives the quantile of the number they are the beginning of."""

    class Fixed:
        """Gives out what it holds."""

        def __init__(self, values):
            self.values = values

        def integers(self, low, high, size, dtype):
            return self.values

        def random(self, size):
            return self.values[:size]

    first = np.arange(1 << 16).astype(np.uint16)
    for follows in (0.001, 0.5, 0.999):
        rows = np.empty((1, first.size), np.uint8)
        _fill_poisson(rows, Fixed(first), Fixed(np.full(64, follows)))
        assert (rows[0] == stats.poisson(1).ppf((first + follows) / (1 << 16))).all()


def test_bootstrap_error_is_the_delta_methods():
    rng = np.random.default_rng(2)
    users = 800
    count = 1 + rng.poisson(rng.gamma(1.0, 3.0, users))
    user = np.repeat(np.arange(users), count)
    values = rng.exponential(1.0, len(user)) + rng.normal(0, 0.5, users)[user] + 0.05 * count[user]
    ids = np.char.add("u", user.astype(str)).tolist()
    resampling = Resampling.draw(ids, resamples=4000, subsamples=50, seed=0)
    _, totals = resampling.totals(np.stack([values, np.ones(len(user))], axis=1))
    error = (totals[:, 0] / totals[:, 1]).std(ddof=1)
    # Delta method: the residual sums of the users are independent, Var = sum of their squares / n^2.
    residuals = np.bincount(user, values - values.mean())
    assert error == pytest.approx(np.sqrt((residuals**2).sum()) / len(user), rel=0.04)
    assert error > 1.3 * values.std() / np.sqrt(len(user))  # What taking queries as independent would give.


@pytest.mark.parametrize("users", [60, 61, 301])
def test_half_sample_error_of_a_mean_is_its_standard_error(users):
    rng = np.random.default_rng(users)
    values = rng.gamma(1.0, size=users)
    resampling = Resampling.draw([f"{u:03d}" for u in range(users)], resamples=50, subsamples=4000, seed=0)
    error = resampling.half_sample_error(lambda mask: float(values[mask].mean()))
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(users), rel=0.04)


@pytest.mark.parametrize("name", ["distinct_2", "top_rewrite_share"])
def test_half_sample_error_of_a_set_metric_is_its_spread_over_samples(name):
    rng = np.random.default_rng(5)
    check = CHECKS[name](GateConfig())
    users, words = 300, 5000
    zipf = 1 / np.arange(1, words + 1) ** 1.1
    zipf /= zipf.sum()
    found, errors = [], []
    for _ in range(1000):
        items = ItemCounts.of(rng.choice(words, (users, 3), p=zipf).astype(str).tolist())
        found.append(check.share(items.within(np.ones(users, bool))))
        if len(errors) < 20:
            draws = Resampling.draw([str(u) for u in range(users)], resamples=50, subsamples=200, seed=len(errors))
            errors.append(draws.half_sample_error(lambda mask, i=items: check.share(i.within(mask))))
    assert np.mean(errors) == pytest.approx(np.std(found, ddof=1), rel=0.15)


def test_bounds_are_those_of_a_t_test():
    x = np.random.default_rng(6).normal(-0.03, 1.0, 50)
    error = x.std(ddof=1) / np.sqrt(50)
    found = bounds(float(x.mean()), float(error), 50, margin=0.01)
    test = stats.ttest_1samp(x, -0.01, alternative="less")
    low, high = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert (found.low, found.high, found.p_value) == pytest.approx((low, high, test.pvalue))
    assert found.users_needed == pytest.approx(50 * ((high - low) / 2 / 0.01) ** 2)


@settings(deadline=None)
@given(st.floats(-1, 1), st.floats(0, 1), st.floats(40, 1000), st.floats(0, 1))
def test_upper_bound_and_p_value_agree(difference, error, users, margin):
    found = bounds(difference, error, users, margin)
    assert found.low < difference < found.high
    if abs(found.p_value - 0.025) > 1e-9:
        assert (found.high < -margin) == (found.p_value < 0.025)


def test_what_no_user_had_may_still_be_one_in_a_few():
    """ln 40 / n, the rule of three at 2.5 %, whatever the standard error says."""
    found = bounds(0.0, 0.0, 50, margin=0.1)
    assert (found.low, found.high) == pytest.approx((-np.log(40) / 50, np.log(40) / 50))
    assert found.users_needed == pytest.approx(np.log(40) / 0.1) and found.p_value > 0.5
    assert bounds(-0.2, 0.0, 50, margin=0.1).p_value < 0.01
    assert bounds(0.0, 0.0, 36, margin=0.1).low < -0.1 < bounds(0.0, 0.0, 38, margin=0.1).low


@settings(max_examples=25, deadline=None)  # statsmodels takes 50 ms a call.
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_that_of_statsmodels(p_values):
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_refused():
    with pytest.raises(ValueError, match="at least 2"):
        Resampling.draw(["a", "a"], resamples=50, subsamples=50, seed=0)
