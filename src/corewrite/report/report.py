"""The report of a run: one self-contained HTML page."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from corewrite.report import charts, views
from corewrite.report.format import finite, label
from corewrite.report.page import environment


def render_report(summary: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    """Render a run as a self-contained page: no script, nothing loaded from anywhere.

    A section whose data the run lacks is left out, keys that no section knows are ignored, and a number that is null is
    shown as "–". Queries, titles and all other text are untrusted: escaped, with control characters spelled out.

    Args:
        summary: The run's figures, as parsed JSON.
        details: Phases, examples and platform facts, as parsed JSON.

    Returns:
        The page; equal arguments give equal text.

    Raises:
        KeyError: a section has data but lacks one of its parts.
        TypeError: a number is neither a number nor null.
    """
    examples = details.get("examples") or []
    scales = views.FactorScales.of(d for example in examples for d in (*example["before"], *example["after"]))
    phases = views.phases(details)
    page = environment().get_template("report.html")
    return page.render(
        summary=summary,
        details=details,
        cards=views.headline(summary),
        by_slice=_by_slice(summary),
        other_means=views.other_means(summary),
        phases=phases,
        phase_chart=_phase_chart(phases),
        phase_seconds=views.phase_seconds(phases),
        launches=[_launch(launch) for launch in summary.get("experiment") or ()],
        examples=[(example, *views.rankings(example, scales)) for example in examples],
        scales=scales,
        seconds=_seconds(summary),
    )


def _by_slice(summary: Mapping[str, Any]) -> tuple[views.BySlice, Markup] | None:
    if not summary.get("ndcg10"):
        return None
    table = views.BySlice.of(summary["ndcg10"])
    emphasis, reference = (table.systems.get(name, "") for name in ("champion", "original"))
    return table, Markup(charts.slice_bars(table.in_words, emphasis=emphasis, reference=reference))


def _phase_chart(phases: list[dict[str, Any]]) -> Markup | None:
    panels = views.phase_panels(phases)
    return Markup(charts.phase_lines(panels)) if panels else None


def _launch(launch: Mapping[str, Any]) -> tuple[Mapping[str, Any], Markup | None]:
    intervals, limits = views.build_forest(launch)
    return launch, Markup(charts.forest(intervals, limits=limits)) if intervals else None


def _seconds(summary: Mapping[str, Any]) -> tuple[float, Markup] | None:
    measured = {label(k): s for k, v in (summary.get("seconds") or {}).items() if (s := finite(v)) is not None}
    return (sum(measured.values()), Markup(charts.durations(measured))) if measured else None
