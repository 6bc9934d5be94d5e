"""The summary of a run, the plan of one, and a decision of the gate, as short tables on a terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from corewrite.domain.shown import visible
from corewrite.report.format import (
    SLICES,
    SYSTEMS,
    change,
    duration,
    interval,
    label,
    mebibytes,
    number,
    ordered,
    percent,
    significant,
    total,
)

if TYPE_CHECKING:
    from corewrite.capacity.plan import Plan

_STYLES = {"promote": "bold green", "hold": "bold yellow", "reject": "bold red"}
_CHECK_STYLES = {"pass": "green", "unclear": "yellow", "fail": "red", "error": "red", "skipped": "dim"}


def print_summary(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Print what a run came to, about 30 lines; what the run lacks is left out and null shown as "–".

    Args:
        summary: The run's figures, as parsed JSON.
        console: Where to; default: standard output.

    Raises:
        KeyError: a part of the run lacks one of its figures.
        TypeError: a number is neither a number nor null.
    """
    console = console or Console()
    console.print(Text("corewrite, on a simulated platform", style="bold"))
    if _systems(summary):
        console.print(_quality(summary))
    console.print(_rest(summary))


def print_gate(result: Mapping[str, Any], console: Console | None = None) -> None:
    """Print a decision of the gate: a line for each check, what could not be checked, and the verdict; fits 80 columns.

    Args:
        result: The decision, as `GateResult.as_dict` gives it; a check may also carry `compare`, what it compares with, and
            `mitigation`, shown where the check fails.
        console: Where to; default: standard output.

    Raises:
        KeyError: a check lacks one of its parts.
        TypeError: a number is neither a number nor null.
    """
    console = console or Console()
    checks = result["checks"]
    if checks:
        console.print(_checks(checks))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", max_width=26)
    grid.add_column(overflow="fold")
    for check in checks:
        if check["verdict"] in ("error", "skipped"):
            grid.add_row(Text(visible(label(check["name"]))), Text(visible(check["reason"])))
        elif check["verdict"] == "fail" and check.get("mitigation", "none") != "none":
            grid.add_row(Text(visible(label(check["name"]))), Text(f"mitigation: {visible(check['mitigation'])}"))
    if needed := _users_needed(result):
        grid.add_row("effective users", Text(needed))
    verdict = Text(visible(result["verdict"].upper()), style=_STYLES.get(result["verdict"], ""))
    evaluated = f"  on {number(result['queries'], 0)} queries of {number(result['users'], 0)} users"
    grid.add_row("gate", verdict + Text(f"{evaluated}: {visible(result['reason'])}", style=""))
    console.print(grid)


def _users_needed(result: Mapping[str, Any]) -> str:
    """How many effective users each check needs to pass at all, most first; those that need the least together."""
    needed = {check["name"]: check["users_needed"] for check in result["checks"] if check.get("users_needed") is not None}
    if not needed:  # decided by an earlier version, or without a comparison
        return ""
    least = min(needed.values())
    more = sorted((item for item in needed.items() if item[1] > least), key=lambda item: -item[1])
    says = [f"{visible(label(name))} {number(users, 0)}" for name, users in more]
    others = f"{'the others' if more else 'all'} {number(least, 0)}"
    return f"{number(result.get('effective_users'), 0)} there; needed to pass at all: {', '.join([*says, others])}"


def print_plan(plan: "Plan", console: Console | None = None) -> None:
    """Print what a training cycle takes: by step, in all, and what that rests on.

    Args:
        plan: The plan.
        console: Where to; default: standard output.
    """
    console = console or Console()
    w = plan.workload
    title = f"A cycle of {w.instances:,} instances in {w.phases:,} phases, {w.num_generations} samples and k = {w.k}"
    console.print(title, style="bold", highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("step")
    priced = plan.cost is not None
    for title in ("time", "share", *(["cost"] if priced else []), "work"):
        table.add_column(title, justify="right", no_wrap=True)
    for s in plan.steps:
        cost = [number(s.cost, 2)] if priced else []
        style = "bold yellow" if s.name == plan.bottleneck else ""
        table.add_row(s.name, duration(s.seconds), percent(s.share), *cost, f"{number(s.amount, 0)} {s.unit}", style=style)
    table.add_section()
    table.add_row("all", duration(plan.seconds), "", *([number(plan.cost, 2)] if priced else []), _devices(plan), style="bold")
    console.print(table)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    share = next(s.share for s in plan.steps if s.name == plan.bottleneck)
    grid.add_row("bottleneck", f"{plan.bottleneck}, {percent(share, 0)} of the time")
    every_step = f"{_size(plan.bytes_synced_every_step)} if it were after each of {plan.optimizer_steps:,} optimizer steps"
    grid.add_row("synced", f"{_size(plan.bytes_synced)} in {plan.syncs:,} syncs; {every_step}")
    grid.add_row("memory", f"optimizer {_size(plan.optimizer_bytes)} a device; checkpoint {_size(plan.checkpoint_bytes)}")
    grid.add_row("measured on", visible(plan.machine))
    for i, assumption in enumerate(plan.assumptions):
        grid.add_row("assumes" if i == 0 else "", visible(assumption))
    console.print(grid)


def _devices(plan: "Plan") -> str:
    hours = f"{number(plan.device_hours, 1)} hours"
    return f"{hours} of the machine" if plan.gpus is None else f"{hours} of a GPU, {plan.gpus} at once"


def _size(value: float) -> str:
    """Bytes as "512 B", "1.4 GiB"."""
    power = min(4, max(0, int(value).bit_length() - 1) // 10)
    return f"{number(value / 1024**power, 1 if power else 0)} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def _systems(summary: Mapping[str, Any]) -> dict[str, str]:
    rows = [*(summary.get("ndcg10") or {}).values(), summary.get("reward") or {}, summary.get("judge") or {}]
    return ordered(dict.fromkeys(system for row in rows for system in row), SYSTEMS)


def _quality(summary: Mapping[str, Any]) -> Table:
    """nDCG@10 by system and slice with the change over all searches, reward and judge."""
    ndcg, reward, judge = (summary.get(key) or {} for key in ("ndcg10", "reward", "judge"))
    slices = ordered(ndcg, SLICES)
    original = ndcg.get("all", {}).get("original")
    table = Table(
        title="nDCG@10 on held-out searches, by slice",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("system", no_wrap=True)
    for title in (*slices.values(), "vs original", "reward", "judge"):
        table.add_column("\n".join(title.split()), justify="right", no_wrap=True)  # Fits 80 columns.
    for system, title in _systems(summary).items():
        gain = None if system == "original" else change(ndcg.get("all", {}).get(system), original)
        cells = [number(ndcg[name].get(system)) for name in slices]
        cells += [percent(gain, signed=True), number(reward.get(system), 4), number(judge.get(system))]
        table.add_row(title, *cells, style="bold" if system == "champion" else "")
    return table


def _checks(checks: Sequence[Mapping[str, Any]]) -> Table:
    """Each check of the gate: both values, their difference with its bounds, the margin and the verdict."""
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False, show_edge=False)
    table.add_column("check", overflow="fold", min_width=14)
    for title in ("candi-\ndate", "compared\nwith", "differ-\nence", "bounds", "margin"):
        table.add_column(title, justify="right", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    for check in checks:
        name = Text(visible(label(check["name"])), style="dim" if check["kind"] == "report" else "")
        compare = check.get("compare", "champion")
        if compare != "champion":
            # The margin of such a check is a limit on the metric itself.
            name += Text("\na limit" if compare == "zero" else f"\nvs {visible(compare)}", style="dim")
        cells = [number(check["candidate"], 4), number(check["champion"], 4), number(check["difference"], 4, signed=True)]
        cells += [interval(check["low"], check["high"], number, 4), significant(check["margin"], 3)]
        table.add_row(name, *cells, Text(visible(check["verdict"]), style=_CHECK_STYLES.get(check["verdict"], "")))
    return table


def _rest(summary: Mapping[str, Any]) -> Table:
    """Gate, launches, time and memory, as lines of a name and a text."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", max_width=26)
    grid.add_column(overflow="fold")
    if gate := summary.get("gate"):
        verdict = Text(gate["verdict"].upper(), style=_STYLES.get(gate["verdict"], ""))
        grid.add_row("gate", verdict + Text(f"  {visible(gate['reason'])}"))
    for title, text in _comparison(summary.get("comparison") or {}).items():
        grid.add_row(title, text)
    for launch in summary.get("experiment") or ():
        grid.add_row(Text(visible(launch["launch"])), _launch(launch))
    if aa := summary.get("aa"):
        found = f"{percent(aa['share_significant'])} of {number(aa['splits'], 0)} splits significant at 5 %"
        grid.add_row("A/A", f"{found} ({interval(aa['low'], aa['high'], signed=False)})")
    grid.add_row("time", duration(total(summary.get("seconds"))))
    grid.add_row("peak memory", mebibytes(summary.get("peak_rss_mib")))
    return grid


def _comparison(comparison: Mapping[str, Any]) -> dict[str, str]:
    """The champion against the best baseline, and each policy's share of the recoverable gain, by title."""

    def limits(estimate: Mapping[str, Any], less: float = 0.0) -> str:
        low, high = (None if estimate[key] is None else estimate[key] - less for key in ("low", "high"))
        return interval(low, high, signed=bool(less))

    found = {}
    if over := comparison.get("over_best_baseline"):
        gain = percent(change(over["value"], 1.0), signed=True)
        best = SYSTEMS.get(comparison["best_baseline"], label(comparison["best_baseline"]))
        found["over best baseline"] = f"{gain} ({limits(over, 1.0)}) nDCG@10 of the champion over {best}"
    if shares := comparison.get("recoverable_share"):
        parts = [f"{SYSTEMS.get(s, label(s))} {percent(x['value'])} ({limits(x)})" for s, x in shares.items()]
        found["recoverable gain"] = ", ".join(parts)
    return found


def _launch(launch: Mapping[str, Any]) -> Text:
    cqr, give_up = launch["cqr"], launch["give_up"]
    verdict = Text("counts" if launch["counts"] else "does not count", style="green" if launch["counts"] else "yellow")
    figures = (
        f"  change-query rate {percent(cqr['relative'], signed=True)} ({interval(cqr['ci_low'], cqr['ci_high'])}), give-up "
        f"{percent(give_up['relative'], signed=True)}, sample ratio p {significant(launch['srm_p_value'], 2)}"
    )
    return verdict + Text(figures)
