"""Anytime-valid bounds: confidence sequences for the means of two arms."""

import numpy as np
import numpy.typing as npt
import scipy.optimize
import scipy.special

FloatArray = npt.NDArray[np.float64]

_PRIOR = 0.5
_LOG_SLOPES = (-60.0, 60.0)
_HALVINGS = 64
_LOG_RATIOS = (-16.0, 16.0)


def contrast_bounds(
    control_users: npt.ArrayLike,
    control_sum: npt.ArrayLike,
    treatment_users: npt.ArrayLike,
    treatment_sum: npt.ArrayLike,
    *,
    times_control: float = 1.0,
    alpha: float = 0.05,
) -> tuple[FloatArray, FloatArray]:
    """Confidence sequence of (mean in treatment) - `times_control` * (mean in control).

    With probability at least 1 - `alpha` the contrast lies within the bounds at all times at once, so that one
    may look after every user and stop by any rule. Users must be independent, each counted once with an outcome
    in [0, 1] that is not revised later, and the mean of an arm must not drift while it is watched.

    For one arm with n users and sum S, m(S, n) / (p^S (1 - p)^(n - S)) is a non-negative supermartingale where p
    is the mean: m averages the numerator over a Beta(1/2, 1/2) prior of p (Robbins 1970); that outcomes need not
    be binary is the sub-Bernoulli case of Howard, Ramdas, McAuliffe & Sekhon (2021). The product over both arms
    is one too, in whatever order and proportion users come; by Ville's inequality it stays below 1 / `alpha` at
    the true pair of means, and the bounds are the extremes of the contrast over all pairs where it does.

    It is exact, which is why it is used. The normal-mixture asymptotic sequence (Waudby-Smith, Arbour, Sinha,
    Kennedy & Ramdas, arXiv 2103.06476) is 1.6 to 1.8 times narrower, but its variance is estimated: peeking at a
    rate of 0.1 % with 1 % of users in treatment it missed the truth in 85 % of 2,000 runs at a nominal 5 %, and
    in 37 % with a burn-in of 1,000 treated users; this one missed it in at most 0.2 % for rates of 0.1, 2 and 30 %.

    Args:
        control_users: Users in control; like the other three a number or an array, broadcast together.
        control_sum: Sum of their outcomes.
        treatment_users: Users in treatment.
        treatment_sum: Sum of their outcomes.
        times_control: At least 0. 1 compares the means, 1.05 allows treatment 5 % more; 0 looks at treatment
            alone, and control is then left out.
        alpha: Probability that the contrast is ever outside.

    Returns:
        Lower and upper bound, within [-times_control, 1]; an arm without users bounds nothing.

    Raises:
        ValueError: an option is out of range, or a sum is not between 0 and the number of users.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha {alpha} must lie strictly between 0 and 1")
    if not 0 <= times_control < np.inf:
        raise ValueError(f"times_control {times_control} must be finite and at least 0")
    numbers = (control_users, control_sum, treatment_users, treatment_sum)
    n_c, s_c, n_t, s_t = np.broadcast_arrays(*(np.asarray(number, np.float64) for number in numbers))
    for arm, n, s in (("control", n_c, s_c), ("treatment", n_t, s_t)):
        if not ((s >= 0) & (s <= n) & np.isfinite(n)).all():
            raise ValueError(f"a sum over {arm}'s users is not between 0 and their number: outcomes must be in [0, 1]")
    if times_control == 0:
        n_c, s_c = np.zeros_like(n_c), np.zeros_like(s_c)
    pair = (n_c, s_c, n_t, s_t)
    threshold = float(np.log(1 / alpha))
    return _extreme(*pair, times_control, threshold, sign=-1), _extreme(*pair, times_control, threshold, sign=1)


def ratio_bounds(
    control_users: float, control_sum: float, treatment_users: float, treatment_sum: float, *, alpha: float = 0.05
) -> tuple[float, float]:
    """Confidence sequence of (mean in treatment) / (mean in control): the ratios of the pairs that `contrast_bounds` allows.

    All ratios are looked at in the same set of pairs, so that the bounds hold at all times at once as the contrast's do.

    Args:
        control_users, control_sum, treatment_users, treatment_sum: As for `contrast_bounds`, numbers.
        alpha: Probability that the ratio is ever outside.

    Returns:
        Lower and upper bound; 0 or infinity where nothing is known on that side.

    Raises:
        ValueError: see `contrast_bounds`.
    """

    def bound(side: int, log_ratio: float) -> float:
        pair = (control_users, control_sum, treatment_users, treatment_sum)
        return float(contrast_bounds(*pair, times_control=float(np.exp(log_ratio)), alpha=alpha)[side])

    ends: list[float] = []
    for side, beyond in ((0, 0.0), (1, np.inf)):
        # A contrast with more of control is smaller: the ratio is where the bound of the contrast passes 0.
        low, high = (bound(side, end) for end in _LOG_RATIOS)
        within = low > 0 > high
        root = scipy.optimize.brentq(lambda x, side=side: bound(side, x), *_LOG_RATIOS, xtol=1e-9) if within else None
        ends.append(beyond if root is None else float(np.exp(root)))
    return ends[0], ends[1]


def _extreme(
    n_c: FloatArray, s_c: FloatArray, n_t: FloatArray, s_t: FloatArray, times: float, threshold: float, sign: int
) -> FloatArray:
    """Smallest (sign -1) or largest (+1) contrast over the pairs of means with log evidence below `threshold`.

    The evidence is convex in both means, so at the extreme its slopes stand to each other as the contrast's do,
    1 to -times: one unknown slope is left, and the evidence grows with it.
    """
    low, high = (np.full(n_t.shape, end) for end in _LOG_SLOPES)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        slope = sign * np.exp(middle)
        evidence = _log_evidence(n_t, s_t, _mean_at_slope(n_t, s_t, slope))
        evidence = evidence + _log_evidence(n_c, s_c, _mean_at_slope(n_c, s_c, -times * slope))
        low, high = np.where(evidence < threshold, middle, low), np.where(evidence < threshold, high, middle)
    # The far end of the last bracket: rounding must widen, not narrow.
    slope = sign * np.exp(high)
    return np.asarray(_mean_at_slope(n_t, s_t, slope) - times * _mean_at_slope(n_c, s_c, -times * slope))


def _log_evidence(n: FloatArray, s: FloatArray, mean: FloatArray) -> FloatArray:
    """Logarithm of the mixture's likelihood over that of `mean`."""
    mixture = scipy.special.betaln(_PRIOR + s, _PRIOR + n - s) - scipy.special.betaln(_PRIOR, _PRIOR)
    return np.asarray(mixture - scipy.special.xlogy(s, mean) - scipy.special.xlog1py(n - s, -mean))


def _mean_at_slope(n: FloatArray, s: FloatArray, slope: FloatArray) -> FloatArray:
    """The mean p in [0, 1] where the evidence has this slope: slope * p^2 + (n - slope) * p - s = 0."""
    root = np.sqrt(np.maximum((n - slope) ** 2 + 4 * slope * s, 0))
    # Two forms of the same root, each without cancellation on its side; 0 / 0 (no users, no slope) is a mean of 0.
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(n >= slope, 2 * s / (n - slope + root), (slope - n + root) / (2 * slope))
    return np.asarray(np.clip(np.nan_to_num(mean, nan=0.0), 0, 1))
