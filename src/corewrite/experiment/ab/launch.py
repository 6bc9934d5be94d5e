"""Reading an A/B launch by the change-query rate on rewrite-impacted searches."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.stats

from corewrite.domain.extras import from_extra
from corewrite.experiment.ab.result import LOWEST_SAMPLE_RATIO_P, Effect, LaunchResult
from corewrite.experiment.ab.searches import (
    check_searches,
    drop_censored,
    first_impacted,
    impacted_between,
    per_user,
    select_arms,
    treated_share,
    trigger_known,
)
from corewrite.experiment.assignment import CONTROL, TREATMENT, check_share

_BY_TEA_TASTING = "launches are read by tea-tasting"
_Pair = tuple[str, str]
_SHARES_OF_FIRST = {"cqr": "changed", "give_up": "gave_up", "satisfied": "satisfied"}
_RATIOS_OF_IMPACTED = {
    "cqr_all_impacted": ("changed_impacted", "ended_impacted"),
    "give_up_all_impacted": ("gave_up_impacted", "ended_impacted"),
}
_RATIOS_OF_ALL = {"cqr_overall": ("changed", "ended"), "plain_cqr": ("plain_changed", "plain_known")}


def read_launch(
    name: str,
    searches: pa.Table,
    *,
    control: str = CONTROL,
    treatment: str = TREATMENT,
    give_up_margin: float = 0.05,
    alpha: float = 0.05,
    share: float = 0.5,
) -> LaunchResult:
    """Read a launch.

    The primary metric is the share of *changed unsatisfied* over the first impacted search of each user: one
    row per user, hence independent rows, compared by Welch's test. A user whose first impacted search is
    censored is dropped from it (see `drop_censored`), and so is one of whom the log does not say which search that
    was (see `trigger_known`): what is not known is not taken for false. Metrics over several searches of a user are
    ratios of sums, with users as units of analysis (delta method: Deng, Knoblich & Lu, KDD 2018), over users with at
    least one such search. All statistics are tea-tasting's.

    Args:
        name: Name of the launch.
        searches: One row per search, see `check_searches`; those of other arms are left out and counted. For several
            worlds, see `pool_tables`.
        control, treatment: The arms to compare, as they are called in the table; `impacted` must be between them, see
            `impacted_between`.
        give_up_margin: Non-inferiority margin of give-up, relative: 0.05 lets it rise by 5 %.
        alpha: Intervals are two-sided at 1 - alpha; non-inferiority is tested one-sided at alpha / 2.
        share: Share of the users of both arms that treatment was meant to get.

    Raises:
        ValueError: the table is refused by `check_searches` or the arms by `select_arms`, `impacted_between` or
            `treated_share`, no search is impacted, the trigger is known of no user of an arm or more often in one arm than in
            the other, an arm has fewer than two users whose first impacted search is not censored, or an option is out of
            range.
    """
    check_share(share)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha {alpha} must lie strictly between 0 and 1")
    if not 0 <= give_up_margin < math.inf:
        raise ValueError(f"give_up_margin {give_up_margin} must be finite and at least 0: 0.05 stands for 5 %")
    pair = (control, treatment)
    table, other_arms = select_arms(check_searches(searches), *pair)
    table = impacted_between(table, *pair)
    treated = treated_share(table, *pair)
    known = table.filter(pa.array(trigger_known(table)))
    users, known_users = per_user(table), per_user(known)
    trigger_p_value = _check_trigger(users, known_users, pair)
    triggered = first_impacted(known)
    if not len(triggered):
        raise ValueError(
            f"none of the {len(table)} searches is impacted: either the arms' specs show the same top 10 "
            "everywhere, or `impacted` was not logged"
        )
    first = drop_censored(triggered)
    _need_two(first, pair)

    def ratios(users: pa.Table, of: dict[str, tuple[str, str]]) -> dict[str, Effect]:
        return {
            name: _effect(name, users.filter(pc.greater(users[below], 0)), above, below, alpha, pair)
            for name, (above, below) in of.items()
        }

    users_of, known_of = _count(users, pair), _count(known_users, pair)
    return LaunchResult(
        name=name,
        control_arm=control,
        treatment_arm=treatment,
        **{name: _effect(name, first, column, None, alpha, pair) for name, column in _SHARES_OF_FIRST.items()},
        **ratios(known_users, _RATIOS_OF_IMPACTED),
        **ratios(users, _RATIOS_OF_ALL),
        watch_seconds=_effect("watch_seconds", users, "watch_seconds", None, alpha, pair),
        srm_p_value=_sample_ratio_p(users, share, pair),
        srm_triggered_p_value=_sample_ratio_p(triggered, share, pair),
        trigger_p_value=trigger_p_value,
        users=len(users),
        users_without_trigger={arm: users_of[arm] - known_of[arm] for arm in pair},
        searches=len(table),
        searches_without_trigger=table["impacted"].null_count,
        impacted_users=len(triggered),
        impacted_searches=int(pc.sum(users["impacted"]).as_py()),
        treated=treated,
        other_arms=other_arms,
        give_up_margin=give_up_margin,
        alpha=alpha,
        share=share,
    )


def _check_trigger(users: pa.Table, known: pa.Table, pair: _Pair) -> float:
    """P-value of the trigger being known as often in both arms (Fisher's exact test); refuses what is not."""
    users_of, known_of = _count(users, pair), _count(known, pair)
    if nobody := [arm for arm in pair if not known_of[arm]]:
        raise ValueError(
            f"of no user in {' or '.join(map(repr, nobody))} it is known which search was the first impacted one: whether "
            "the lists of these two arms differ must be logged on both sides, of whole users"
        )
    table = [[known_of[arm], users_of[arm] - known_of[arm]] for arm in pair]
    p_value = float(scipy.stats.fisher_exact(table).pvalue)
    if p_value < LOWEST_SAMPLE_RATIO_P:
        in_control, in_treatment = (100 * known_of[arm] / users_of[arm] for arm in pair)
        raise ValueError(
            f"the first impacted search is known for {in_control:.1f} % of the users in {pair[0]!r} and {in_treatment:.1f} % "
            f"in {pair[1]!r} (p = {p_value:.2g}): what is known of one arm rather than of the other is no fair comparison; log "
            "whether the lists differ on both sides alike, late rewrites included"
        )
    return p_value


def _effect(name: str, rows: pa.Table, numerator: str, denominator: str | None, alpha: float, pair: _Pair) -> Effect:
    """Compare the arms on `rows`, one per user, by mean numerator over mean denominator (None: 1)."""
    with from_extra("report", _BY_TEA_TASTING):
        import tea_tasting as tt
    n_control, n_treatment = _count(rows, pair).values()
    if min(n_control, n_treatment) < 2:
        return Effect(name, *(math.nan,) * 6, n_control=n_control, n_treatment=n_treatment)
    # Spelled out, because tea-tasting's defaults are global and an application may have changed them.
    options = {"alternative": "two-sided", "confidence_level": 1 - alpha, "equal_var": False, "use_t": True}
    metric = tt.RatioOfMeans(numerator, denominator, **options)
    # A metric that is constant in both arms has standard error 0; its NaN is promised by Effect: no warning.
    with np.errstate(invalid="ignore", divide="ignore"):
        result = metric.analyze(rows, *pair, "arm")
    return Effect(
        name=name,
        control=float(result.control),
        treatment=float(result.treatment),
        relative=_finite(result.rel_effect_size),
        ci_low=_finite(result.rel_effect_size_ci_lower),
        ci_high=_finite(result.rel_effect_size_ci_upper),
        p_value=_finite(result.pvalue),
        n_control=n_control,
        n_treatment=n_treatment,
    )


def _finite(value: float) -> float:
    """`value`, or NaN where it is infinite: relative to a control of 0 nothing is defined."""
    return float(value) if math.isfinite(value) else math.nan


def _sample_ratio_p(users: pa.Table, share: float, pair: _Pair) -> float:
    """P-value of the split: exact binomial below 1000 users, else normal with continuity correction."""
    with from_extra("report", _BY_TEA_TASTING):
        import tea_tasting as tt
    metric = tt.SampleRatio(share / (1 - share), method="auto", correction=True)
    return float(metric.analyze(users.select(["arm"]), *pair, "arm").pvalue)


def _count(rows: pa.Table, pair: _Pair) -> dict[str, int]:
    arms = rows["arm"].to_pylist()
    return {arm: arms.count(arm) for arm in pair}


def _need_two(first: pa.Table, pair: _Pair) -> None:
    for arm, n in _count(first, pair).items():
        if n < 2:
            raise ValueError(
                f"arm {arm!r} has {n} users with a first impacted search that is not censored, needs at least 2: "
                "run the launch longer"
            )
