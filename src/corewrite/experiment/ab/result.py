"""The result of a launch, and whether it counts as a gain."""

import math
from dataclasses import asdict, dataclass

LOWEST_SAMPLE_RATIO_P = 0.001


@dataclass(frozen=True)
class Effect:
    """One metric in both arms.

    Attributes:
        name: The metric.
        control, treatment: Its value in each arm; NaN where an arm has fewer than two users.
        relative: treatment / control - 1; NaN where control is 0.
        ci_low, ci_high: Two-sided interval of `relative`, made on the log scale (delta method); NaN where the
            metric is 0 in an arm, or constant in both.
        p_value: Two-sided Welch test of the absolute difference; NaN where the metric is constant in both
            arms or an arm has fewer than two users.
        n_control, n_treatment: Users in each arm.
    """

    name: str
    control: float
    treatment: float
    relative: float
    ci_low: float
    ci_high: float
    p_value: float
    n_control: int
    n_treatment: int

    def as_dict(self) -> dict[str, object]:
        """The fields for JSON: NaN as None."""
        return {k: _json(v) for k, v in asdict(self).items()}


@dataclass(frozen=True)
class LaunchResult:
    """An A/B launch as read by `read_launch`, which defines the metrics.

    Attributes:
        name: The launch.
        control_arm, treatment_arm: The arms compared, as they were served.
        cqr: Primary: change-query rate over each user's first impacted search.
        give_up, satisfied: Shares of the other two outcomes of the same searches; in each arm they sum to 1.
        cqr_all_impacted, give_up_all_impacted: The same over all impacted searches.
        cqr_overall: Change-query rate over all searches: diluted by those the launch leaves as they were.
        plain_cqr: Share of all searches followed by any different query in the session within 30 minutes.
        watch_seconds: Watch time of a user's searches together, mean over users, seconds.
        srm_p_value: Sample-ratio test on all users.
        srm_triggered_p_value: The same on users with an impacted search.
        trigger_p_value: Test of the trigger being known for the same share of users in both arms.
        users, searches: How many, both arms together.
        users_without_trigger: Users by arm of whom the log does not say which search was the first impacted one: they
            count in what is read over all searches only.
        searches_without_trigger: Searches of which it is not known whether they are impacted.
        impacted_users: Users whose first impacted search is known, censored or not.
        impacted_searches: Searches known to be impacted, censored or not.
        treated: Share of treatment's impacted searches that were served with a rewrite, in time; None where the log does not
            say.
        other_arms: Users by arm that was left out; "" stands for searches without an arm.
        give_up_margin: Relative rise of give-up that would still do.
        alpha: Two-sided level of the intervals is 1 - alpha; give-up's bound is one-sided at 1 - alpha / 2.
        share: Share of users that treatment was meant to get.
    """

    name: str
    control_arm: str
    treatment_arm: str
    cqr: Effect
    give_up: Effect
    satisfied: Effect
    cqr_all_impacted: Effect
    give_up_all_impacted: Effect
    cqr_overall: Effect
    plain_cqr: Effect
    watch_seconds: Effect
    srm_p_value: float
    srm_triggered_p_value: float
    trigger_p_value: float
    users: int
    users_without_trigger: dict[str, int]
    searches: int
    searches_without_trigger: int
    impacted_users: int
    impacted_searches: int
    treated: float | None
    other_arms: dict[str, int]
    give_up_margin: float
    alpha: float
    share: float

    @property
    def share_impacted(self) -> float:
        """Share of searches that are impacted, among those of which it is known."""
        return self.impacted_searches / (self.searches - self.searches_without_trigger)

    @property
    def give_up_upper(self) -> float:
        """Upper one-sided bound of give-up's relative effect at 1 - alpha / 2.

        It is the upper end of the two-sided interval at 1 - alpha.
        """
        return self.give_up.ci_high

    @property
    def give_up_non_inferior(self) -> bool:
        """Whether give-up is shown to rise by less than the margin; an undefined bound shows nothing."""
        return self.give_up_upper < self.give_up_margin

    @property
    def counts(self) -> bool:
        """Whether this is a gain: fewer changed queries, no more give-up instead, and a fair split."""
        return (
            self.cqr.ci_high < 0
            and self.give_up_non_inferior
            and min(self.srm_p_value, self.srm_triggered_p_value) >= LOWEST_SAMPLE_RATIO_P
        )

    @property
    def reason(self) -> str:
        """Why it counts as a gain, or every reason why it does not, in one sentence."""
        low, high = _percent(self.cqr.ci_low), _percent(self.cqr.ci_high)
        cqr = f"{_percent(self.cqr.relative)}, {100 * (1 - self.alpha):g} % interval {low} to {high}"
        give_up = f"upper bound {_percent(self.give_up_upper)}, margin {_percent(self.give_up_margin)}"
        if self.counts:
            return f"Counts: the change-query rate fell ({cqr}) and give-up is non-inferior ({give_up})."
        against = [
            f"sample ratio mismatch among {whom} (p = {p:.2g}, below {LOWEST_SAMPLE_RATIO_P:g})"
            for whom, p in (("all users", self.srm_p_value), ("impacted users", self.srm_triggered_p_value))
            if p < LOWEST_SAMPLE_RATIO_P
        ]
        if not self.cqr.ci_high < 0:
            against.append(f"the change-query rate is not shown to fall ({cqr})")
        if not self.give_up_non_inferior:
            against.append(f"give-up is not shown to be non-inferior ({give_up})")
        return f"Does not count: {'; '.join(against)}."

    def as_dict(self) -> dict[str, object]:
        """Fields and what follows from them, for JSON: NaN as None."""
        derived = ("share_impacted", "give_up_upper", "give_up_non_inferior", "counts", "reason")
        plain = {k: getattr(self, k) for k in (*self.__dataclass_fields__, *derived)}
        return {k: v.as_dict() if isinstance(v, Effect) else _json(v) for k, v in plain.items()}


def _json(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _percent(share: float) -> str:
    return f"{100 * share:+.1f} %" if math.isfinite(share) else "undefined"
