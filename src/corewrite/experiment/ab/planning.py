"""Planning of a launch: users and days that it needs, by the rates of a log."""

from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.compute as pc

from corewrite.experiment.ab.power import power_to_count, users_needed
from corewrite.experiment.ab.reach import (
    FARTHEST,
    FEWEST_DAYS,
    Backtest,
    backtest,
    days_interval,
    days_until,
    measure_reach,
    users_after,
)
from corewrite.experiment.ab.searches import check_searches, drop_censored, first_impacted, impacted_between, trigger_known
from corewrite.experiment.assignment import check_share

_FEWEST_USERS = 100
"""Of fewer, rates say too little to plan by."""


@dataclass(frozen=True)
class LaunchPlan:
    """What a launch needs.

    Attributes:
        arm: Whose users gave the rates.
        users: Users of the log, all arms.
        users_of_arm: Those of the arm.
        trigger_known: Share of the arm's users of whom it is known which search was their first impacted one.
        triggered: Share of those who had an impacted search, within the log.
        first_impacted: First impacted searches that ended, of which the rates are.
        cqr, give_up: Rates over them.
        effect: Relative fall of the change-query rate to be shown.
        give_up_margin: Non-inferiority margin of give-up, relative.
        alpha, power, share: Two-sided level, probability of showing each, share of the users in treatment.
        traffic: Share of all users who take part, both arms together.
        users_for_cqr: Users with an impacted search, both arms together, to show that the change-query rate falls.
        users_for_give_up: The same, to show that give-up rises by less than the margin where it does not rise.
        users_needed: The larger of the two.
        power_to_count: Probability that both are shown of so many.
        new_users: Users who take part and had their first impacted search on each day of the log, as it was logged.
        days: Days until `users_needed` are reached by the log's logging of the trigger; None where it cannot be told.
        days_low, days_high: 95 % interval of `days` from which users happened to be in the log; None where beyond telling.
        days_if_all_logged: Days if whether the lists differ were logged for all users; None where it cannot be told.
        why_no_days: Why `days` is None, and what helps; "" where it is not.
        backtest: What the extrapolation was worth on this log; None where the log is too short.
    """

    arm: str
    users: int
    users_of_arm: int
    trigger_known: float
    triggered: float
    first_impacted: int
    cqr: float
    give_up: float
    effect: float
    give_up_margin: float
    alpha: float
    power: float
    share: float
    traffic: float
    users_for_cqr: int
    users_for_give_up: int
    users_needed: int
    power_to_count: float
    new_users: tuple[float, ...]
    days: int | None
    days_low: int | None
    days_high: int | None
    days_if_all_logged: int | None
    why_no_days: str
    backtest: Backtest | None

    def as_dict(self) -> dict[str, object]:
        """The fields, for JSON."""
        return asdict(self)


def plan_launch(
    searches: pa.Table,
    *,
    effect: float,
    control: str | None = None,
    treatment: str | None = None,
    share: float = 0.5,
    traffic: float = 1.0,
    give_up_margin: float = 0.05,
    alpha: float = 0.05,
    power: float = 0.8,
) -> LaunchPlan:
    """Work out what a launch needs, from searches before it.

    Args:
        searches: One row per search, see `check_searches`.
        effect: Relative fall of the change-query rate that is to be shown: 0.02 for 2 %.
        control: The arm whose users tell the rates; None: all users, who must be in one arm or none.
        treatment: The arm that the launch will compare it with: `impacted` must be between the two, see `impacted_between`.
            None: it is between whatever two the log compares, always the same.
        share: Share of the users of both arms in treatment.
        traffic: Share of all users who take part, both arms together.
        give_up_margin: Non-inferiority margin of give-up, relative; give-up itself is supposed not to change.
        alpha: Two-sided level of the reading.
        power: Probability of showing the fall, and of showing that give-up is non-inferior.

    Raises:
        ValueError: the table is refused, it has several arms and none was named, too few users have a first impacted search
            that is known and ended, a rate leaves nothing to show, or an option is out of range.
    """
    check_share(share)
    for name, value in (("effect", effect), ("power", power), ("alpha", alpha)):
        if not 0 < value < 1:
            raise ValueError(f"{name} {value} must lie strictly between 0 and 1: 0.02 stands for 2 %")
    if not 0 < traffic <= 1:
        raise ValueError(f"traffic {traffic} is the share of all users who take part: above 0, at most 1")
    if not give_up_margin > 0:
        raise ValueError(f"give_up_margin {give_up_margin} must be above 0: that a rate does not rise at all cannot be shown")
    everybody = check_searches(searches)
    arm, table = _of_arm(everybody, control)
    if control is not None and treatment is not None:
        table = impacted_between(table, control, treatment)
    else:
        _one_pair(table["pair"].to_pylist())
    known = trigger_known(table)
    num_users, num_known = _num_users(table), _num_users(table.filter(pa.array(known)))
    triggered = first_impacted(table.filter(pa.array(known)))
    first = drop_censored(triggered)
    if len(first) < _FEWEST_USERS:
        raise ValueError(
            f"{len(first)} of the {num_users} users have a first impacted search that is known and ended, a plan needs at "
            f"least {_FEWEST_USERS}: give a longer log, of searches that say whether the lists of the two arms differ"
        )
    cqr, give_up = (float(pc.mean(first[name]).as_py()) for name in ("changed", "gave_up"))
    options = {"share": share, "alpha": alpha, "power": power}
    for_cqr = users_needed(cqr, cqr * (1 - effect), **options)
    for_give_up = users_needed(give_up, give_up, limit=give_up_margin, **options)
    needed = max(for_cqr, for_give_up)
    both = power_to_count(
        needed, (cqr, give_up), (cqr * (1 - effect), give_up), margin=give_up_margin, share=share, alpha=alpha
    )
    # First impacted searches come alike in all arms, so that the arm's users stand for all who will take part.
    reach = measure_reach(table)
    taking_part = traffic * _num_users(everybody) / num_users
    # Of some whose first impacted search has come it never ends: the log, or the launch, does first.
    wanted = needed / taking_part * len(triggered) / len(first)
    if reach.days < FEWEST_DAYS:
        days = low = high = if_all = None
        why = f"the log has {reach.days} whole days: at least {FEWEST_DAYS} are needed to tell who returns"
    else:
        days, (low, high) = days_until(reach, wanted), days_interval(reach, wanted)
        if_all = days_until(reach, wanted * num_known / num_users)
        why = ""
        if days is None:
            reached = taking_part * float(users_after(reach, FARTHEST * reach.days)) * len(first) / len(triggered)
            why = (
                f"more than {FARTHEST * reach.days} days, by when about {reached:,.0f} users are reached; beyond {FARTHEST} "
                f"times the log's {reach.days} days nothing can be told: log the trigger of more users, look for a larger "
                "effect, or give a longer log"
            )
    return LaunchPlan(
        arm=arm,
        users=_num_users(everybody),
        users_of_arm=num_users,
        trigger_known=num_known / num_users,
        triggered=len(triggered) / num_known,
        first_impacted=len(first),
        cqr=cqr,
        give_up=give_up,
        effect=effect,
        give_up_margin=give_up_margin,
        traffic=traffic,
        **options,
        users_for_cqr=for_cqr,
        users_for_give_up=for_give_up,
        users_needed=needed,
        power_to_count=both,
        new_users=tuple(float(n * taking_part) for n in reach.new_users),
        days=days,
        days_low=low,
        days_high=high,
        days_if_all_logged=if_all,
        why_no_days=why,
        backtest=backtest(table),
    )


def _of_arm(searches: pa.Table, control: str | None) -> tuple[str, pa.Table]:
    arms = sorted(searches["arm"].unique().to_pylist())
    named = ", ".join(repr(arm) for arm in arms if arm) or "none"
    if control is None:
        if len(arms) > 1:
            raise ValueError(f"the log has several arms ({named}): name the one whose rates are those of control")
        return (arms[0] if arms else ""), searches
    if control not in arms:
        raise ValueError(f"no search is in arm {control!r}: there are {named}")
    return control, searches.filter(pc.equal(searches["arm"], control))


def _one_pair(pairs: list[list[str] | None]) -> None:
    different = sorted({tuple(pair) for pair in pairs if pair is not None})
    if len(different) > 1:
        named = "; ".join(" and ".join(map(repr, pair)) for pair in different)
        raise ValueError(f"the log says whether lists differ between several pairs ({named}): name control and treatment")


def _num_users(searches: pa.Table) -> int:
    return int(pc.count_distinct(searches["user_id"]).as_py())
