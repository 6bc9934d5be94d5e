"""The result of a launch, and the plan of one, as short tables on a terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from corewrite.domain.shown import visible
from corewrite.report.format import finite, interval, number, percent, significant

if TYPE_CHECKING:
    from corewrite.experiment.ab.planning import LaunchPlan
    from corewrite.experiment.ab.reading import Reading

_METRICS = {
    "first impacted search": {"cqr": "change-query rate", "give_up": "give-up", "satisfied": "satisfied"},
    "all impacted searches": {"cqr_all_impacted": "change-query rate", "give_up_all_impacted": "give-up"},
    "all searches": {
        "cqr_overall": "change-query rate", "plain_cqr": "any other query next", "watch_seconds": "watch seconds a user"
    },
}  # fmt: skip


def print_reading(reading: "Reading", log: Mapping[str, Any], console: Console | None = None) -> None:
    """Print a launch: every metric in both arms with its intervals, what was left out, how outcomes were told, the verdict.

    Args:
        reading: The launch.
        log: How the outcomes were told: same_intent, satisfied_by, warnings.
        console: Where to; default: standard output.
    """
    console = console or Console()
    launch = reading.launch
    title = f"{visible(launch.name)}: {visible(launch.treatment_arm)} against {visible(launch.control_arm)}"
    console.print(title, style="bold", highlight=False, markup=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    table.add_column("", no_wrap=True)
    level = percent(1 - launch.alpha, 0)
    for head in ("control", "treat-\nment", "change\nin %", f"{level} for\none look", f"{level} for\nany look"):
        table.add_column(head, justify="right", no_wrap=True)
    for over, metrics in _METRICS.items():
        table.add_row(Text(over, style="dim"))
        for name, words in metrics.items():
            effect, anytime = getattr(launch, name), getattr(reading, name, None)
            table.add_row(
                f" {words}", significant(effect.control, 4), significant(effect.treatment, 4),
                number(_hundred(effect.relative), 1, signed=True), _span(effect.ci_low, effect.ci_high),
                "" if anytime is None else _span(anytime.low, anytime.high),
            )  # fmt: skip
    console.print(table)
    console.print(_reading_notes(reading, log))


def _span(low: float, high: float) -> str:
    """An interval of percentages, short."""
    return interval(_hundred(low), _hundred(high), number)


def _hundred(share: float) -> float | None:
    found = finite(share)
    return None if found is None else 100 * found


def _reading_notes(reading: "Reading", log: Mapping[str, Any]) -> Table:
    launch = reading.launch
    lost = sum(launch.users_without_trigger.values())
    rows = [
        (
            "searches",
            f"{number(launch.searches, 0)} of {number(launch.users, 0)} users; {percent(launch.share_impacted)} impacted; "
            f"{number(launch.impacted_users, 0)} users with an impacted search, whose first has ended for "
            f"{number(launch.cqr.n_control, 0)} in control and {number(launch.cqr.n_treatment, 0)} in treatment",
        ),
        (
            "split",
            f"sample-ratio p {significant(launch.srm_p_value, 2)} of all users, "
            f"{significant(launch.srm_triggered_p_value, 2)} of those with an impacted search; treatment was meant to get "
            f"{percent(launch.share)}",
        ),
    ]
    if launch.treated is not None:
        rows.append(("served", f"{percent(launch.treated)} of treatment's impacted searches had the rewrite in time"))
    if lost:
        by_arm = ", ".join(f"{number(n, 0)} in {visible(arm)}" for arm, n in launch.users_without_trigger.items())
        rows.append(
            (
                "left out",
                f"{number(lost, 0)} users of whom the log does not say which search was the first impacted one: {by_arm} "
                f"(p of the same share in both {significant(launch.trigger_p_value, 2)})",
            )
        )
    if launch.other_arms:
        others = ", ".join(f"{visible(arm) or 'no arm'} {number(n, 0)}" for arm, n in launch.other_arms.items())
        rows.append(("other arms", f"users of arms that were left out: {others}"))
    harm = " Harm is shown." if reading.harms else ""
    anytime = "Counts" if reading.counts_anytime else "Does not count"
    rows += _of_log(log)
    rows += [
        ("one look", f"{launch.reason}{harm}"),
        ("any look", f"{anytime}, by the intervals that hold however often one looks."),
    ]
    return _grid(rows)


def print_plan_of_launch(plan: "LaunchPlan", log: Mapping[str, Any], console: Console | None = None) -> None:
    """Print what a launch needs: the rates it rests on, users, days, and what the days were derived from.

    Args:
        plan: The plan.
        log: How the outcomes were told: same_intent, satisfied_by, warnings.
        console: Where to; default: standard output.
    """
    console = console or Console()
    fall, rise = percent(plan.effect), percent(plan.give_up_margin)
    title = f"To show that the change-query rate falls where it falls by {fall}, and that give-up rises by less than {rise}"
    console.print(title, style="bold", highlight=False)
    whose = f"arm {visible(plan.arm)}" if plan.arm else "all searches"
    rows = [
        (
            "rates",
            f"{whose}: change-query rate {percent(plan.cqr, 2)}, give-up {percent(plan.give_up, 2)} over "
            f"{number(plan.first_impacted, 0)} first impacted searches; {percent(plan.triggered)} of users have one in the log",
        ),
        (
            "users",
            f"{number(plan.users_needed, 0)} with an impacted search, both arms together, {percent(plan.share, 0)} of them in "
            f"treatment: {number(plan.users_for_cqr, 0)} for the change-query rate, {number(plan.users_for_give_up, 0)} for "
            f"give-up, each shown with {percent(plan.power, 0)}, both with {percent(plan.power_to_count, 0)}",
        ),
        ("days", _days(plan)),
        ("new users a day", _arrivals(plan.new_users)),
    ]
    if plan.trigger_known < 1:
        faster = f"; were it logged for all, {_number_of_days(plan.days_if_all_logged)}"
        rows.append(("trigger", f"known for {percent(plan.trigger_known)} of users{faster if plan.days_if_all_logged else ''}"))
    if (tried := plan.backtest) is not None:
        off = percent(tried.predicted / tried.observed - 1, signed=True)
        rows.append(
            (
                "tried out",
                f"the log's first {tried.days} days said {number(tried.predicted, 0)} users by its end, "
                f"{number(tried.observed, 0)} there were ({off})",
            )
        )
    console.print(_grid([*rows, *_of_log(log)]))


def _days(plan: "LaunchPlan") -> str:
    if plan.days is None:
        return f"cannot be told: {plan.why_no_days}"
    inside = plan.days <= len(plan.new_users)
    how = "as counted in the log" if inside else "extrapolated from how often users return"
    to = _number_of_days(plan.days_high) if plan.days_high is not None else "beyond telling"
    span = "" if inside else f" (95 % {plan.days_low if plan.days_low is not None else 'beyond telling'} to {to})"
    return f"{plan.days}{span}, {how}; take whole weeks"


def _number_of_days(days: int | None) -> str:
    return "–" if days is None else f"{days} days"


def _arrivals(new_users: Sequence[float]) -> str:
    if not new_users:
        return "the log has no whole day"
    shown = [number(n, 0) for n in new_users]
    return ", ".join(shown if len(shown) <= 10 else [*shown[:6], "...", *shown[-2:]])


def _of_log(log: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [("same intent by", visible(log["same_intent"])), ("satisfied by", visible(log["satisfied_by"]))]
    return [*rows, *(("note", visible(warning)) for warning in log["warnings"])]


def _grid(rows: Sequence[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, words in rows:
        grid.add_row(name, Text(words))
    return grid
