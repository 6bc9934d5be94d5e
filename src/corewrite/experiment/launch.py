"""Reading an A/B launch by the change-query rate on rewrite-impacted searches (design section 2)."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tea_tasting as tt

from corewrite.experiment.assignment import ARMS, CONTROL, TREATMENT, check_share
from corewrite.experiment.result import Effect, LaunchResult
from corewrite.experiment.searches import check_searches, drop_censored, first_impacted, per_user

_SHARES_OF_FIRST = {"cqr": "changed", "give_up": "gave_up", "satisfied": "satisfied"}
_RATIOS_BY_USER = {
    "cqr_all_impacted": ("changed_impacted", "ended_impacted"),
    "give_up_all_impacted": ("gave_up_impacted", "ended_impacted"),
    "cqr_overall": ("changed", "ended"),
    "plain_cqr": ("plain_changed", "plain_known"),
}


def read_launch(
    name: str, searches: pa.Table, *, give_up_margin: float = 0.05, alpha: float = 0.05, share: float = 0.5
) -> LaunchResult:
    """Read a launch.

    The primary metric is the share of *changed unsatisfied* over the first impacted search of each user: one
    row per user, hence independent rows, compared by Welch's test. A user whose first impacted search is
    censored is dropped from it (see `drop_censored`). Metrics over several searches of a user are ratios of
    sums, with users as units of analysis (delta method: Deng, Knoblich & Lu, KDD 2018), over users with at
    least one such search. All statistics are tea-tasting's.

    Args:
        name: Name of the launch.
        searches: One row per search of both arms, see `check_searches`. For several worlds, see
            `pool_tables`.
        give_up_margin: Non-inferiority margin of give-up, relative: 0.05 lets it rise by 5 %.
        alpha: Intervals are two-sided at 1 - alpha; non-inferiority is tested one-sided at alpha / 2.
        share: Share of users in treatment, as given to `assign`.

    Raises:
        ValueError: the table is refused by `check_searches`, an arm has no user, no search is impacted, an
            arm has fewer than two users whose first impacted search is not censored, or an option is out of
            range.
    """
    check_share(share)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha {alpha} must lie strictly between 0 and 1")
    if not 0 <= give_up_margin < math.inf:
        raise ValueError(f"give_up_margin {give_up_margin} must be finite and at least 0: 0.05 stands for 5 %")
    table = check_searches(searches)
    users = per_user(table)
    _need(users, 1, "users", "log both arms, each user in the one that assign gives")
    triggered = first_impacted(table)
    if not len(triggered):
        raise ValueError(
            f"none of the {len(table)} searches is impacted: either the arms' specs show the same top 10 "
            "everywhere, or `impacted` was not logged"
        )
    first = drop_censored(triggered)
    _need(first, 2, "users with a first impacted search that is not censored", "run the launch longer")
    shares = {name: _effect(name, first, column, None, alpha) for name, column in _SHARES_OF_FIRST.items()}
    ratios = {
        name: _effect(name, users.filter(pc.greater(users[below], 0)), above, below, alpha)
        for name, (above, below) in _RATIOS_BY_USER.items()
    }
    return LaunchResult(
        name=name,
        **shares,
        **ratios,
        watch_seconds=_effect("watch_seconds", users, "watch_seconds", None, alpha),
        srm_p_value=_sample_ratio_p(users, share),
        srm_triggered_p_value=_sample_ratio_p(triggered, share),
        users=len(users),
        searches=len(table),
        impacted_users=len(triggered),
        impacted_searches=int(pc.sum(users["impacted"]).as_py()),
        give_up_margin=give_up_margin,
        alpha=alpha,
        share=share,
    )


def _effect(name: str, rows: pa.Table, numerator: str, denominator: str | None, alpha: float) -> Effect:
    """Compare the arms on `rows`, one per user, by mean numerator over mean denominator (None: 1)."""
    n = _count(rows)
    if min(n.values()) < 2:
        return Effect(name, *(math.nan,) * 6, n_control=n[CONTROL], n_treatment=n[TREATMENT])
    # Spelled out, because tea-tasting's defaults are global and an application may have changed them.
    options = {"alternative": "two-sided", "confidence_level": 1 - alpha, "equal_var": False, "use_t": True}
    metric = tt.RatioOfMeans(numerator, denominator, **options)
    # A metric that is constant in both arms has standard error 0; its NaN is promised by Effect: no warning.
    with np.errstate(invalid="ignore", divide="ignore"):
        result = metric.analyze(rows, CONTROL, TREATMENT, "arm")
    return Effect(
        name=name,
        control=float(result.control),
        treatment=float(result.treatment),
        relative=_finite(result.rel_effect_size),
        ci_low=_finite(result.rel_effect_size_ci_lower),
        ci_high=_finite(result.rel_effect_size_ci_upper),
        p_value=_finite(result.pvalue),
        n_control=n[CONTROL],
        n_treatment=n[TREATMENT],
    )


def _finite(value: float) -> float:
    """`value`, or NaN where it is infinite: relative to a control of 0 nothing is defined."""
    return float(value) if math.isfinite(value) else math.nan


def _sample_ratio_p(users: pa.Table, share: float) -> float:
    """P-value of the split: exact binomial below 1000 users, else normal with continuity correction."""
    metric = tt.SampleRatio(share / (1 - share), method="auto", correction=True)
    return float(metric.analyze(users.select(["arm"]), CONTROL, TREATMENT, "arm").pvalue)


def _count(rows: pa.Table) -> dict[str, int]:
    arms = rows["arm"].to_pylist()
    return {arm: arms.count(arm) for arm in ARMS}


def _need(rows: pa.Table, least: int, what: str, fix: str) -> None:
    for arm, n in _count(rows).items():
        if n < least:
            raise ValueError(f"arm {arm!r} has {n} {what}, needs at least {least}: {fix}")
