import numpy as np
import pytest
from scipy import stats

from corewrite.experiment.sequential import contrast_bounds, ratio_bounds

ALPHA = 0.05
RUNS = 1000


def peeks(rng, p_control, p_treatment, share, users=5000, looks=40, runs=RUNS):
    """Running (users, sums) of both arms, [looks] and [runs, looks], from the first few users on."""
    n_t = np.unique(np.geomspace(5, users, looks).astype(int))
    n_c = (n_t * (1 - share) / share).astype(int)

    def sums(n, p):
        return rng.binomial(np.diff(n, prepend=0), p, (runs, len(n))).cumsum(1)

    return n_c, sums(n_c, p_control), n_t, sums(n_t, p_treatment)


def inside(n_c, s_c, n_t, s_t, alpha, points=1201):
    """A grid of means and which pairs of them are allowed, the evidence written out with scipy's own beta-binomial."""

    def log_evidence(n, s, p):
        mixture = stats.betabinom(n, 0.5, 0.5).logpmf(s) - np.log(stats.binom(n, 0.5).pmf(s)) - n * np.log(2)
        return mixture - (s * np.log(p) + (n - s) * np.log1p(-p))

    p = (np.arange(points) + 0.5) / points
    return p, log_evidence(n_c, s_c, p)[:, None] + log_evidence(n_t, s_t, p)[None] < np.log(1 / alpha)


def brute_force(n_c, s_c, n_t, s_t, times, alpha):
    p, allowed = inside(n_c, s_c, n_t, s_t, alpha)
    contrast = (p[None] - times * p[:, None])[allowed]
    return contrast.min(), contrast.max()


@pytest.mark.parametrize(
    ("n_c", "s_c", "n_t", "s_t"),
    [(200, 60, 30, 12), (500, 3, 20, 0), (40, 40, 40, 0), (7, 0, 3, 3), (0, 0, 50, 5), (900, 450, 100, 50)],
)
@pytest.mark.parametrize("times", [1.0, 1.5])
def test_against_a_grid_of_pairs(n_c, s_c, n_t, s_t, times):
    low, high = contrast_bounds(n_c, s_c, n_t, s_t, times_control=times, alpha=ALPHA)
    grid_low, grid_high = brute_force(n_c, s_c, n_t, s_t, times, ALPHA)
    # The grid lies inside the region and misses at most a step on each axis.
    assert grid_low - 0.003 < low <= grid_low
    assert grid_high <= high < grid_high + 0.003


@pytest.mark.parametrize(("n_c", "s_c", "n_t", "s_t"), [(200, 60, 90, 36), (900, 450, 400, 300), (400, 390, 300, 60)])
def test_ratios_against_a_grid_of_pairs(n_c, s_c, n_t, s_t):
    p, allowed = inside(n_c, s_c, n_t, s_t, ALPHA)
    grid = (p[None] / p[:, None])[allowed]
    low, high = ratio_bounds(n_c, s_c, n_t, s_t, alpha=ALPHA)
    assert grid.min() * 0.98 < low <= grid.min() and grid.max() <= high < grid.max() * 1.02


def test_ratios_that_nothing_bounds():
    assert ratio_bounds(0, 0, 0, 0) == (0.0, np.inf)
    low, high = ratio_bounds(50, 0, 50, 25)
    assert low > 1 and high == np.inf
    low, high = ratio_bounds(50, 25, 50, 0)
    assert low == 0 and high < 1


def test_one_arm_by_hand():
    """0 of n: log evidence is log of B(1/2, n + 1/2) / B(1/2, 1/2) - n log(1 - p), equal to log 20 at the bound."""
    low, high = contrast_bounds(10_000, 5_000, 2, 0, times_control=0.0, alpha=ALPHA)
    # B(1/2, 5/2) / B(1/2, 1/2) = 3/8, so (1 - p)^2 = 3/8 / 20.
    assert high == pytest.approx(1 - (3 / 160) ** 0.5)
    assert low == 0


def test_mirrored_outcomes_and_swapped_arms_mirror_the_bounds():
    bounds = np.array(contrast_bounds(300, 70, 90, 35))
    mirrored = np.array(contrast_bounds(300, 230, 90, 55))
    swapped = np.array(contrast_bounds(90, 35, 300, 70))
    assert -mirrored[::-1] == pytest.approx(bounds)
    assert -swapped[::-1] == pytest.approx(bounds)


def test_fractional_outcomes_lie_between_whole_ones():
    highs = [contrast_bounds(100, 20, 50, s)[1] for s in (9, 9.5, 10)]
    assert highs[0] < highs[1] < highs[2]


def test_no_users_bound_nothing():
    assert np.array(contrast_bounds(0, 0, 0, 0, times_control=1.2)) == pytest.approx([-1.2, 1])


@pytest.mark.parametrize("rate", [0.3, 0.02, 0.001])
@pytest.mark.parametrize("share", [0.01, 0.5])
def test_covers_at_all_times_at_once(rate, share):
    rng = np.random.default_rng(1)
    low, high = contrast_bounds(*peeks(rng, rate, rate, share), alpha=ALPHA)
    missed = ((low > 0) | (high < 0)).any(1).sum()
    assert stats.binomtest(missed, RUNS, ALPHA, alternative="greater").pvalue > 0.01


@pytest.mark.parametrize(("rate", "share", "alpha"), [(0.3, 0.01, 0.05), (0.3, 0.1, 0.05 / 11), (0.002, 0.5, 0.05)])
def test_exactly_at_a_relative_limit_it_seldom_stops(rate, share, alpha):
    """Type-I error of the stop: treatment at 1.3 times control, which is allowed, under peeking."""
    low, high = contrast_bounds(*peeks(np.random.default_rng(6), rate, 1.3 * rate, share), times_control=1.3, alpha=alpha)
    for wrong in ((low > 0).any(1).sum(), (high < 0).any(1).sum()):
        assert stats.binomtest(int(wrong), RUNS, alpha, alternative="greater").pvalue > 0.01


def test_covers_a_single_arm_at_all_times_at_once():
    """Nothing is projected here, so coverage is not far above nominal: a threshold twice too low would show."""
    rng = np.random.default_rng(2)
    n = np.unique(np.geomspace(1, 3000, 150).astype(int))
    sums = (rng.random((RUNS, 3000)) < 0.2).cumsum(1)[:, n - 1]
    low, high = contrast_bounds(0, 0, n, sums, times_control=0.0, alpha=0.2)
    missed = ((low > 0.2) | (high < 0.2)).any(1).mean()
    assert 0.05 < missed < 0.2


def test_a_share_per_user_is_covered_too():
    """Outcomes in between, from users who differ and search one to five times."""
    rng = np.random.default_rng(3)
    shape = (RUNS, 1500)
    searches = rng.integers(1, 6, shape)
    values = rng.binomial(searches, rng.beta(0.3, 0.7, shape)) / searches
    control, treatment = values[:, :750].cumsum(1), values[:, 750:].cumsum(1)
    n = np.arange(1, 751)
    low, high = contrast_bounds(n[::15], control[:, ::15], n[::15], treatment[:, ::15], alpha=ALPHA)
    assert ((low > 0) | (high < 0)).any(1).mean() < ALPHA


def test_peeking_at_a_t_test_would_stop_far_too_often():
    """The test of the tests: the same peeks, read with a fixed-time interval, break the promise."""
    n_c, s_c, n_t, s_t = peeks(np.random.default_rng(1), 0.3, 0.3, 0.5)
    p_c, p_t = s_c / n_c, s_t / n_t
    error = np.sqrt(p_c * (1 - p_c) / n_c + p_t * (1 - p_t) / n_t)
    assert (np.abs(p_t - p_c) > 1.96 * error).any(1).mean() > 0.2


@pytest.mark.parametrize(
    ("control", "treatment", "share"), [(0.3, 0.4, 0.01), (0.3, 0.37, 0.5), (0.001, 0.01, 0.01), (0.001, 0.012, 0.5)]
)
def test_finds_a_real_harm(control, treatment, share):
    rng = np.random.default_rng(4)
    low, _ = contrast_bounds(*peeks(rng, control, treatment, share), alpha=ALPHA)
    assert (low > 0).any(1).mean() > 0.95


@pytest.mark.parametrize(
    ("numbers", "options", "message"),
    [
        ((10, 1, 10, 1), {"alpha": 1.0}, "alpha 1.0"),
        ((10, 1, 10, 1), {"times_control": -1.0}, "times_control -1.0"),
        ((10, 11, 10, 1), {}, "control"),
        ((10, 1, 10, -1), {}, "treatment"),
        ((10, 1, 10, float("nan")), {}, "treatment"),
    ],
)
def test_refused(numbers, options, message):
    with pytest.raises(ValueError, match=message):
        contrast_bounds(*numbers, **options)
