"""The short table at the end of a run."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from corewrite.console import format


def print_summary(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Print a run's figures: nDCG@10 by slice, reward and judge, the gate's verdict, launches, time and memory."""
    out = console or Console()
    out.print()
    if summary.get("ndcg10"):
        out.print(_ndcg(summary["ndcg10"]))
    rows = Table("", "original", "warm start", "champion", box=None, pad_edge=False)
    for key, title in (
        ("reward", "mean log R, gate users"),
        ("judge", "judge nDCG@10, gate users"),
        ("intent_named", "intent named"),
    ):
        values = summary.get(key) or {}
        rows.add_row(title, *(format.number(values.get(name), 4) for name in ("original", "warm_start", "champion")))
    out.print(rows)
    if gate := summary.get("gate"):
        colour = {"promote": "green", "reject": "red"}.get(gate["verdict"], "yellow")
        out.print(f"\ngate    [{colour}]{gate['verdict'].upper()}[/{colour}]  ", end="")
        out.print(format.visible(gate["reason"]), markup=False, highlight=False)
    for launch in summary.get("experiment") or []:
        cqr, mark = launch["cqr"], "✓" if launch["counts"] else "–"
        span = f"[{format.percent(cqr['ci_low'], signed=True)}, {format.percent(cqr['ci_high'], signed=True)}]"
        text = f"{mark} {launch['launch']}: change-query rate {format.percent(cqr['relative'], signed=True)} {span}"
        out.print(text, markup=False, highlight=False)
    if aa := summary.get("aa"):
        out.print(f"  A/A: {format.percent(aa['share_significant'])} of {aa['splits']} splits significant", highlight=False)
    if seconds := summary.get("seconds"):
        memory = format.number(summary.get("peak_rss_mib"), 0)
        out.print(f"\ntook    {format.duration(sum(seconds.values()))}, peak memory {memory} MiB", highlight=False)


def _ndcg(ndcg: Mapping[str, Mapping[str, float | None]]) -> Table:
    slices = format.ordered(ndcg, format.SLICES)
    systems = format.ordered({name for row in ndcg.values() for name in row}, format.SYSTEMS)
    table = Table("nDCG@10", *slices.values(), box=None, pad_edge=False)
    for system, title in systems.items():
        cells = []
        for key in slices:
            value = ndcg[key].get(system)
            gain = format.percent(format.change(value, ndcg[key].get("original")), 0, signed=True)
            cells.append(format.number(value) + ("" if system == "original" else f" [dim]{gain:>6}[/dim]"))
        table.add_row(title, *cells, style="bold" if system == "champion" else "")
    return table
