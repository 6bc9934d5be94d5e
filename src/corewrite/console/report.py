"""The report of a run: one HTML page that needs nothing besides itself."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, Undefined
from markupsafe import Markup

from corewrite.console import charts, views
from corewrite.console.format import (
    MISSING,
    duration,
    finite,
    interval,
    label,
    mebibytes,
    number,
    percent,
    significant,
    visible,
)


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
    page = _environment().get_template("report.html")
    return page.render(
        summary=summary,
        details=details,
        cards=views.headline(summary),
        by_slice=_by_slice(summary),
        other_means=views.other_means(summary),
        phases=phases,
        phase_chart=_phase_chart(phases),
        phase_seconds=views.phase_seconds(phases),
        launches=[_launch(i, launch) for i, launch in enumerate(summary.get("experiment") or (), 1)],
        examples=[(example, *views.rankings(example, scales)) for example in examples],
        scales=scales,
        seconds=_seconds(summary),
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("corewrite.console", ""),
        autoescape=True,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = (duration, mebibytes, number, percent, significant)
    environment.filters |= {"exp": math.exp, "label": label} | {f.__name__: _missing_as_none(f) for f in formats}
    environment.globals |= {
        "effects": views.effects, "gate_chart": _gate_chart, "interval": _missing_as_none(interval), "level": views.level,
        "number": number, "percent": percent,
    }  # fmt: skip
    return environment


def _shown(value: object) -> object:
    """What an expression of the template shows: text made visible, "–" for what is not there."""
    if value is None or isinstance(value, Undefined):
        return MISSING
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _missing_as_none(function: Callable[..., str]) -> Callable[..., str]:
    """The function, with a key that is not there taken as null."""
    return lambda *args, **settings: function(*(None if isinstance(a, Undefined) else a for a in args), **settings)


def _by_slice(summary: Mapping[str, Any]) -> tuple[views.BySlice, Markup] | None:
    if not summary.get("ndcg10"):
        return None
    table = views.BySlice.of(summary["ndcg10"])
    emphasis, reference = (table.systems.get(name, "") for name in ("champion", "original"))
    return table, Markup(charts.slice_bars(table.in_words, name="slices", emphasis=emphasis, reference=reference))


def _phase_chart(phases: list[dict[str, Any]]) -> Markup | None:
    panels = views.phase_panels(phases)
    return Markup(charts.phase_lines(panels, name="phases")) if panels else None


def _gate_chart(check: Mapping[str, Any], place: int) -> Markup | None:
    found = views.interval_of(check["name"], check["difference"], check["low"], check["high"])
    return None if found is None else Markup(charts.interval_strip(found, -check["margin"], name=f"gate{place}"))


def _launch(place: int, launch: Mapping[str, Any]) -> tuple[Mapping[str, Any], Markup | None]:
    intervals, limits = views.forest_of(launch)
    return launch, Markup(charts.forest(intervals, name=f"launch{place}", limits=limits)) if intervals else None


def _seconds(summary: Mapping[str, Any]) -> tuple[float, Markup] | None:
    measured = {label(k): s for k, v in (summary.get("seconds") or {}).items() if (s := finite(v)) is not None}
    return (sum(measured.values()), Markup(charts.durations(measured, name="seconds"))) if measured else None
