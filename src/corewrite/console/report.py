"""One self-contained HTML page on a run: it opens without a network."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from corewrite.console import charts, format

_EFFECTS = {
    "cqr": "change-query rate, first impacted search of each user (primary)",
    "give_up": "give-up, the same searches",
    "satisfied": "satisfied, the same searches",
    "cqr_all_impacted": "change-query rate, all impacted searches",
    "give_up_all_impacted": "give-up, all impacted searches",
    "cqr_overall": "change-query rate, all searches (diluted)",
    "plain_cqr": "plain change-query rate, all searches",
    "watch_seconds": "watch time a user",
}


def render_report(summary: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    """The page.

    Args:
        summary: What `summary.json` holds. A section whose part is missing or empty is left out.
        details: What `details.json` holds: `start`, `phases`, `examples`, `facts`.

    Returns:
        HTML with all styles and charts inline. Queries and titles are escaped, their control characters spelled out.
    """
    environment = Environment(
        loader=PackageLoader("corewrite.console", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "number": format.number,
        "percent": format.percent,
        "significant": format.significant,
        "duration": format.duration,
        "label": format.label,
        "visible": format.visible,
        "change": format.change,
        "zip_ranks": lambda ids: list(zip(ids, range(1, len(ids) + 1), strict=True)),
    }
    environment.globals["bar"] = _bar
    page = environment.get_template("report.html")
    return page.render(
        s=summary,
        d=details,
        systems=_systems(summary),
        slices=_slices(summary),
        effects=_EFFECTS,
        charts=_charts(summary, details),
    )


def _systems(summary: Mapping[str, Any]) -> dict[str, str]:
    return format.ordered({name for row in summary.get("ndcg10", {}).values() for name in row}, format.SYSTEMS)


def _slices(summary: Mapping[str, Any]) -> dict[str, str]:
    return format.ordered(summary.get("ndcg10", {}), format.SLICES)


def _charts(summary: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    drawn: dict[str, Any] = {"launches": []}
    if summary.get("ndcg10"):
        drawn["slices"] = charts.slice_bars(summary["ndcg10"], _systems(summary), _slices(summary))
    if details.get("phases"):
        drawn["phases"] = _phase_chart(details)
    if summary.get("gate", {}).get("checks"):
        drawn["gate"] = charts.scaled_intervals(
            [
                (format.label(c["name"]), c["difference"], c["low"], c["high"], c["margin"] or 0.0, _colour(c["verdict"]))
                for c in summary["gate"]["checks"]
                if c["margin"]
            ]
        )
    for launch in summary.get("experiment") or []:
        drawn["launches"].append(_launch_chart(launch))
    if summary.get("seconds"):
        drawn["seconds"] = charts.step_bars(summary["seconds"])
    return {k: [Markup(x) for x in v] if isinstance(v, list) else Markup(v) for k, v in drawn.items()}


def _phase_chart(details: Mapping[str, Any]) -> str:
    observed = [details["start"], *(r["observed"] for r in details["phases"])] if details.get("start") else []
    names = {"reward": "log R, held-out", "judge": "judge nDCG@10", "ndcg10": "true nDCG@10"}
    series: dict[str, Sequence[float | None]] = {
        title: [o.get(name) for o in observed] for name, title in names.items() if observed and name in observed[0]
    }
    series["entropy a token, nats"] = [None, *(r["entropy_per_token"] for r in details["phases"])]
    return charts.phase_lines(range(len(details["phases"]) + 1), series)


def _launch_chart(launch: Mapping[str, Any]) -> str:
    hundred = partial(_times, 100.0)
    rows = []
    for name, title in _EFFECTS.items():
        e = launch[name]
        better = e["ci_high"] is not None and (
            e["ci_high"] < 0 if name not in ("satisfied", "watch_seconds") else e["ci_low"] > 0
        )
        colour = charts.GOOD if better else charts.INK
        rows.append((title, hundred(e["relative"]), hundred(e["ci_low"]), hundred(e["ci_high"]), colour))
    return charts.intervals(rows, hundred(launch["give_up_margin"]), "relative change, % (dashed: margin of give-up)")


def _times(factor: float, value: float | None) -> float | None:
    return None if value is None else factor * value


def _colour(verdict: str) -> str:
    return {"pass": charts.GOOD, "fail": charts.BAD}.get(verdict, charts.INK)


def _bar(factor: float, limit: float = 4.0) -> dict[str, float]:
    """Left edge and width, in % of a bar whose middle is factor 1 and whose ends are `limit` and its inverse, log scale."""
    reach = max(-1.0, min(1.0, math.log(max(factor, 1e-12)) / math.log(limit)))
    return {"left": 50 + min(0.0, reach) * 50, "width": max(0.8, abs(reach) * 50)}
