"""Sample size and power of a launch."""

import math

import numpy as np
import scipy.stats

from corewrite.domain.extras import from_extra


def users_needed(control: float, treatment: float, *, limit: float = 0.0, share: float, alpha: float, power: float) -> int:
    """Users whose first impacted search has ended, both arms together, to show that a rate is below (1 + limit) * control's.

    Of the upper end of the interval that `read_launch` gives for a rate over the first impacted search of each user: two-sided
    at 1 - `alpha`, on the log scale with each arm's own variance (delta method). By tea-tasting's power of a test of means.

    Args:
        control, treatment: The rates as they are supposed to be, in (0, 1).
        limit: Relative; 0 shows that the rate falls, 0.05 that it rises by less than 5 %.
        share: Share of the users in treatment.
        alpha: Two-sided level.
        power: Probability of showing it.

    Raises:
        ValueError: a rate or an option is out of range, or treatment's rate is not below the limit, which then nothing shows.
    """
    with from_extra("report", "launches are planned by tea-tasting"):
        import tea_tasting as tt
        from tea_tasting.aggr import Aggregates

    effect, control_variance, treatment_variance = _log_effect(control, treatment, limit)
    if not 0 < power < 1 or not 0 < alpha < 1 or not 0 < share < 1:
        raise ValueError(f"power {power}, alpha {alpha} and share {share} must lie strictly between 0 and 1")
    if effect >= 0:
        raise ValueError(
            f"a rate of {treatment:g} is not below {1 + limit:g} times control's {control:g}: no number of users shows it"
        )
    # One variance for both arms, as tea-tasting's power has it, that gives the same standard error as two.
    variance = control_variance * share + treatment_variance * (1 - share)
    metric = tt.Mean(
        "log_rate",
        alternative="less",
        alpha=alpha / 2,
        power=power,
        ratio=share / (1 - share),
        effect_size=effect,
        equal_var=False,
        use_t=False,
    )
    sample = Aggregates(count_=2, mean_={"log_rate": 1.0}, var_={"log_rate": variance}, cov_={})
    return int(metric.solve_power(sample, "n_obs")[0].n_obs)


def power_to_count(
    users: int, control: tuple[float, float], treatment: tuple[float, float], *, margin: float, share: float, alpha: float
) -> float:
    """Probability that a launch counts: the first rate is shown to fall and the second to rise by less than the margin.

    Both at once, of the same users, whose outcomes exclude each other: who gave up has not changed the query.

    Args:
        users: Users whose first impacted search has ended, both arms together.
        control: Change-query and give-up rate in control, as they are supposed to be.
        treatment: The same in treatment.
        margin: Non-inferiority margin of give-up, relative.
        share: Share of the users in treatment.
        alpha: Two-sided level.
    """
    n = np.array([users * (1 - share), users * share])
    cqr, give_up = (_log_effect(c, t, limit) for c, t, limit in zip(control, treatment, (0.0, margin), strict=True))
    errors = [math.sqrt(sum(np.array(effect[1:]) / n)) for effect in (cqr, give_up)]
    # Shares of exclusive outcomes: the covariance of their logarithms is -1 / n, whatever they are.
    correlation = -float((1 / n).sum()) / (errors[0] * errors[1])
    critical = scipy.stats.norm.isf(alpha / 2)
    limits = [-effect[0] / error - critical for effect, error in zip((cqr, give_up), errors, strict=True)]
    return float(scipy.stats.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]]).cdf(limits))


def _log_effect(control: float, treatment: float, limit: float) -> tuple[float, float, float]:
    """Logarithm of treatment / ((1 + limit) * control), and the variance of a user's share of it in each arm."""
    for rate in (control, treatment):
        if not 0 < rate < 1:
            raise ValueError(f"a rate of {rate:g} leaves nothing to compare: it must lie strictly between 0 and 1")
    return math.log(treatment / control / (1 + limit)), (1 - control) / control, (1 - treatment) / treatment
