"""Charts as SVG text to put inside a page: the same input gives the same bytes, and nothing is loaded from elsewhere."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from corewrite.domain.shown import visible
from corewrite.report.chart_data import Interval, Panel, pad, spread
from corewrite.report.format import number
from corewrite.report.vega import (
    BAD,
    DASHED,
    INK,
    LINES,
    MUTED,
    PAPER,
    QUIET,
    Spec,
    layers,
    lookup,
    mark,
    quantity,
    render_svg,
    rows,
)

_SHAPES = ("circle", "square", "diamond", "triangle-up")
# By arm, told apart by dashes as well as by colours: blue, orange, green and grey stay apart in every common colour blindness
# but the rarest, blue against purple would not.
_ARMS = ((LINES[0], [1, 0]), (LINES[1], [5, 2]), (LINES[2], [1, 2]), (MUTED, [6, 2, 1, 2]))
# Marker, its filling and its edge, by what the gate said.
_VERDICTS = {
    "promote": ("triangle-up", LINES[0], LINES[0]),
    "hold": ("circle", PAPER, LINES[0]),
    "reject": ("cross", BAD, BAD),
}
_THICK = 0.34
"""Half a bar's height, in rows."""


def slice_bars(values: Mapping[str, Mapping[str, float | None]], *, emphasis: str, reference: str) -> str:
    """Bars of every system, one panel per slice; all panels share one scale from 0.

    Args:
        values: Value by slice and system; every slice has the same systems in the same order. None draws no bar.
        emphasis: The system to set off by colour.
        reference: The system whose value is drawn as a line through its slice's panel.
    """
    systems = list(next(iter(values.values())))
    top = max((v for row in values.values() for v in row.values() if v is not None), default=1.0)
    ends = (0.0, 1.22 * top if top > 0 else 1.0)
    panels: list[Spec] = []
    for title, row in values.items():
        marks = list(_bars(row, ends, [LINES[0] if s == emphasis else QUIET for s in systems], 3, first=not panels))
        line = row.get(reference)
        if line is not None:
            marks.append(mark("rule", [{"x": line}], {"x": quantity("x", ends)}, color=INK, strokeDash=DASHED))
        panels.append(layers(marks, title, width=190, height=26 * len(systems)))
    return render_svg({"hconcat": panels})


def durations(seconds: Mapping[str, float]) -> str:
    """One bar per step, in the order given.

    Args:
        seconds: Seconds by step.
    """
    ends = (0.0, 1.12 * max(seconds.values()) or 1.0)
    marks = _bars(seconds, ends, [LINES[0]] * len(seconds), 1, title="seconds")
    return render_svg(layers(list(marks), width=560, height=25 * len(seconds)))


def _bars(
    values: Mapping[str, float | None],
    ends: tuple[float, float],
    colours: Sequence[str],
    digits: int,
    *,
    first: bool = True,
    title: str | None = None,
) -> Iterator[Spec]:
    """A bar from 0 for each value, with the value in digits behind it."""
    names = list(values)
    found = [
        {"k": k, "low": k - _THICK, "high": k + _THICK, "x": v or 0.0, "zero": 0.0, "paint": paint, "text": number(v, digits)}
        for k, (v, paint) in enumerate(zip(values.values(), colours, strict=True))
    ]
    x, y = quantity("x", ends, title=title), rows("k", names, shown=first)
    paint = {"field": "paint", "type": "nominal", "scale": None, "legend": None}
    corners = {"x": x, "x2": {"field": "zero"}, "y": y | {"field": "low"}, "y2": {"field": "high"}, "color": paint}
    yield mark("rect", [bar for bar, v in zip(found, values.values(), strict=True) if v is not None], corners)
    yield mark("text", found, {"x": x, "y": y, "text": {"field": "text", "type": "nominal"}}, align="left", dx=4)


def phase_lines(panels: Sequence[Panel]) -> str:
    """Small line charts over phases, four in a row; a legend where a panel has several series.

    Args:
        panels: At most as many series in each as there are line colours (4).

    Raises:
        ValueError: a panel has too many series to tell apart, or there is no panel.
    """
    _check(panels, len(LINES))
    phases = [x for panel in panels for points in panel.series.values() for x, _ in points]
    ends = (min(phases) - 0.3, max(phases) + 0.3)
    columns = min(4, len(panels))
    drawn = []
    for place, panel in enumerate(panels):
        lowest = place >= len(panels) - columns
        axis = {"tickMinStep": 1, "format": "d", "tickCount": 6}
        x = quantity("x", ends, axis=axis, title="phase" if lowest else None)
        y = quantity("y", pad(panel.values, 0.15), axis={"grid": True, "tickCount": 4})
        order = list(range(len(panel.series)))
        legend = {"orient": "top", "direction": "horizontal", "columns": 2, "labelExpr": lookup(list(panel.series))}
        told = {"field": "series", "type": "nominal", "legend": legend if len(order) > 1 else None}
        colour = told | {"scale": {"domain": order, "range": list(LINES[: len(order)])}}
        shape = told | {"scale": {"domain": order, "range": list(_SHAPES[: len(order)])}}
        points = [{"x": a, "y": b, "series": k} for k, series in enumerate(panel.series.values()) for a, b in series]
        encoding = {"x": x, "y": y, "color": colour}
        marks = [
            mark("line", points, encoding, strokeWidth=1.6),
            mark(
                "point", [p for p in points if p["y"] is not None], encoding | {"shape": shape}, filled=True, size=22, opacity=1
            ),
        ]
        drawn.append(layers(marks, panel.title, width=195, height=120, resolve={"scale": {"color": "shared"}}))
    scales = {"color": "independent", "shape": "independent"}
    return render_svg({"concat": drawn, "columns": columns, "resolve": {"scale": scales}})


def week_lines(panels: Sequence[Panel], *, verdicts: Mapping[int, str], shaded: Collection[int], weeks: tuple[int, int]) -> str:
    """Wide line charts over weeks, one below the other on one axis of weeks, each line named at its right end.

    Args:
        panels: The same series in the same order in each, at most 4; a series without a value draws no line.
        verdicts: "promote", "hold" or "reject" by week, drawn on the first series.
        shaded: Weeks of an incident.
        weeks: First and last week of the axis.

    Raises:
        ValueError: a panel has too many series to tell apart, there is no panel, or a verdict is another word.
    """
    _check(panels, len(_ARMS))
    for week, verdict in verdicts.items():
        if verdict not in _VERDICTS:
            raise ValueError(f"verdict {verdict!r} of week {week} is none of {', '.join(_VERDICTS)}")
    ends = (weeks[0] - 0.6, weeks[1] + 0.6)
    drawn = []
    for place, panel in enumerate(panels):
        axis = {"tickMinStep": 1, "format": "d", "tickCount": 24}
        x = quantity("x", ends, axis=axis, title="week" if place == len(panels) - 1 else None)
        y = quantity("y", pad(panel.values, 0.12), axis={"grid": True, "tickCount": 5})
        marks = [
            _shade(x, shaded),
            *_arms(x, y, panel),
            *_names(x, y, panel),
            _verdicts(x, y, panel, verdicts, legend=not place),
        ]
        if place == 0:
            words = [{"x": week} for week in sorted(shaded)]
            marks.append(mark("text", words, {"x": x, "y": {"value": 0}, "text": {"value": "incident"}}, dy=-7, fontSize=10))
        drawn.append(layers(marks, panel.title, width=760, height=130))
    return render_svg({"vconcat": drawn})


def _shade(x: Spec, weeks: Collection[int]) -> Spec:
    spans = [{"x": week - 0.5, "end": week + 0.5} for week in sorted(weeks)]
    return mark("rect", spans, {"x": x, "x2": {"field": "end"}}, color=QUIET, opacity=0.3)


def _arms(x: Spec, y: Spec, panel: Panel) -> Iterator[Spec]:
    """A line of each series, the first on top."""
    for place, (points, (colour, dash)) in reversed(list(enumerate(zip(panel.series.values(), _ARMS, strict=False)))):
        values = [{"x": a, "y": b} for a, b in points]
        width = 1.5 if place else 2.4
        yield mark("line", values, {"x": x, "y": y}, color=colour, strokeDash=dash, strokeWidth=width)
        yield mark("circle", [v for v in values if v["y"] is not None], {"x": x, "y": y}, color=colour, size=10, opacity=1)


def _names(x: Spec, y: Spec, panel: Panel) -> Iterator[Spec]:
    """The name of each line at the right of the panel, at the height of its last value or as near as the others let it."""
    ends = {
        name: (colour, values[-1])
        for (name, points), (colour, _) in zip(panel.series.items(), _ARMS, strict=False)
        if (values := [(a, b) for a, b in points if b is not None])
    }
    (bottom, top), right = y["scale"]["domain"], x["scale"]["domain"][1]
    places = spread([b for _, (_, b) in ends.values()], 0.13 * (top - bottom), bottom, top)
    for (name, (colour, (a, b))), place in zip(ends.items(), places, strict=True):
        way = [{"x": a, "y": b, "x2": right, "y2": place}]
        yield mark("rule", way, {"x": x, "y": y, "x2": {"field": "x2"}, "y2": {"field": "y2"}}, color=colour, strokeWidth=0.6)
        written = {"x": x, "y": y, "text": {"field": "name", "type": "nominal"}}
        yield mark("text", [{"x": right, "y": place, "name": visible(name)}], written, align="left", dx=4, color=colour)


def _verdicts(x: Spec, y: Spec, panel: Panel, verdicts: Mapping[int, str], *, legend: bool) -> Spec:
    """What the gate said, on the first series."""
    marked = next(iter(panel.series.values()), ())
    values = [{"x": a, "y": b, "verdict": verdicts[a]} for a, b in marked if b is not None and a in verdicts]
    keys = {"orient": "top", "direction": "horizontal"} if legend else None

    def told(column: int) -> Spec:
        scale = {"domain": list(_VERDICTS), "range": [look[column] for look in _VERDICTS.values()]}
        return {"field": "verdict", "type": "nominal", "scale": scale, "legend": keys}

    encoding = {"x": x, "y": y, "shape": told(0), "fill": told(1), "stroke": told(2)}
    return mark("point", values, encoding, size=60, strokeWidth=1, opacity=1)


def interval_strip(interval: Interval, limit: float | None) -> str:
    """One interval on its own scale with 0 and a limit: for a cell of a table.

    Args:
        interval: What is drawn.
        limit: A value drawn as a dashed line, e.g. minus the margin; None draws none.
    """
    ends = pad([0.0, interval.low, interval.high, interval.value, *([] if limit is None else [limit])], 0.08)
    x, middle = quantity("x", ends, axis=None), {"value": 14}
    marks = [mark("rule", [{"x": 0.0}], {"x": x}, color=MUTED)]
    if limit is not None:
        marks.append(mark("rule", [{"x": limit}], {"x": x}, color=BAD, strokeDash=DASHED, strokeWidth=1.5))
    return render_svg(layers([*marks, *_whiskers([interval], x, middle)], width=180, height=28))


def forest(intervals: Sequence[Interval], *, limits: Mapping[str, float] | None = None) -> str:
    """Forest plot of relative effects, in per cent, one row each, with a line at 0.

    Args:
        intervals: Effects as shares (0.1 is 10 %), from the top.
        limits: By row name, the effect that must not be reached; drawn as a short dashed line.
    """
    names = [i.name for i in intervals]
    in_percent = [Interval(i.name, 100 * i.value, 100 * i.low, 100 * i.high) for i in intervals]
    bounds = [(k, 100 * (limits or {})[name]) for k, name in enumerate(names) if name in (limits or {})]
    ends = pad([0.0, *(v for i in in_percent for v in (i.low, i.value, i.high)), *(b for _, b in bounds)], 0.08)
    x = quantity("x", ends, axis={"grid": True}, title="treatment against control, %")
    y = rows("k", names)
    across = {"x": x, "y": y | {"field": "low"}, "y2": {"field": "high"}}
    crossed = [{"x": bound, "low": k - 0.4, "high": k + 0.4} for k, bound in bounds]
    marks = [
        mark("rule", [{"x": 0.0}], {"x": x}, color=MUTED),
        *_whiskers(in_percent, x, y),
        mark("rule", crossed, across, color=BAD, strokeDash=DASHED, strokeWidth=1.5),
    ]
    return render_svg(layers(marks, width=480, height=32 * len(names)))


def _whiskers(intervals: Sequence[Interval], x: Spec, y: Spec) -> Iterator[Spec]:
    """A line from end to end of each interval, and a dot at its estimate; row k of `y` is the k-th."""
    values = [{"k": k, "x": i.low, "end": i.high, "value": i.value} for k, i in enumerate(intervals)]
    yield mark("rule", values, {"x": x, "x2": {"field": "end"}, "y": y}, color=LINES[0], strokeWidth=2.5)
    yield mark("circle", values, {"x": x | {"field": "value"}, "y": y}, color=LINES[0], size=45, opacity=1)


def _check(panels: Sequence[Panel], most: int) -> None:
    if not panels:
        raise ValueError("there is no panel to draw")
    for panel in panels:
        if len(panel.series) > most:
            raise ValueError(f"panel {panel.title!r} has {len(panel.series)} series, at most {most} can be told apart")
