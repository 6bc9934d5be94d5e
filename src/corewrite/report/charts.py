"""Charts as SVG text to put inside a page: the same input gives the same bytes.

Colours are CSS variables of the page (`--ink`, `--c1`, ...), with the light theme's as fallback, so that a chart follows the
reader's theme. Nothing in a chart is loaded from elsewhere.
"""

import io
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from corewrite.domain.shown import visible
from corewrite.report.format import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Each colour is told from the others by its code in the drawn SVG, so no two may be equal.
_INK, _MUTED, _RULE = "#1c2126", "#5b646e", "#c9d0d7"
_LINES = ("#1f5fa8", "#a8521a", "#2b7a52", "#7a4b9c")
_BAR, _BAR_QUIET, _BAD = "#1f5fa9", "#9fb0c1", "#b3302c"
_PAPER = "#fdfdfc"
_VARIABLES = {
    _INK: "ink",
    _MUTED: "muted",
    _RULE: "rule",
    **{colour: f"c{i}" for i, colour in enumerate(_LINES, 1)},
    _BAR: "c1",
    _BAR_QUIET: "quiet",
    _BAD: "bad",
    _PAPER: "paper",
}
_MARKERS = "osD^"
# By arm, told apart by dashes as well as by colours: blue, orange, green and grey stay apart in every common colour blindness
# but the rarest, blue against purple would not.
_ARMS: tuple[tuple[str, Any], ...] = (
    (_LINES[0], "solid"),
    (_LINES[1], (0, (5, 2))),
    (_LINES[2], (0, (1, 1.2))),
    (_MUTED, (0, (6, 2, 1, 2))),
)
# Marker and its filling, by what the gate said.
_VERDICTS = {"promote": ("^", _LINES[0]), "hold": ("o", _PAPER), "reject": ("X", _BAD)}
_PAINT = re.compile(r"((?:fill|stroke|stop-color): ?)(#[0-9a-f]{6})")
_REFERENCE = re.compile(r'( id="|url\(#|href="#)')
# The XML declaration, metadata, and a style sheet that would hold for the whole page.
_NOT_DRAWING = re.compile(r"^.*?(?=<svg )|<metadata>.*?</metadata>\s*|<defs>\s*<style.*?</style>\s*</defs>\s*", re.DOTALL)


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval.

    Attributes:
        name: What is estimated.
        value: The estimate.
        low, high: Ends of the interval.
    """

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Panel:
    """Series over phases that share a unit.

    Attributes:
        title: What is drawn, with its unit.
        series: Points (phase, value) by name; a missing value breaks the line.
    """

    title: str
    series: Mapping[str, Sequence[tuple[int, float | None]]]

    @property
    def drawable(self) -> bool:
        """Whether there is any value."""
        return any(y is not None for points in self.series.values() for _, y in points)


def slice_bars(values: Mapping[str, Mapping[str, float | None]], *, name: str, emphasis: str, reference: str) -> str:
    """Bars of every system, one panel per slice; all panels share one scale from 0.

    Args:
        values: Value by slice and system; every slice has the same systems in the same order. None draws no bar.
        name: Unique in the page.
        emphasis: The system to set off by colour.
        reference: The system whose value is drawn as a line through its slice's panel.
    """
    systems = list(next(iter(values.values())))
    with _canvas(2.1 + 2.1 * len(values), 0.7 + 0.27 * len(systems), columns=len(values), share_y=True) as (figure, axes):
        top = max((v for row in values.values() for v in row.values() if v is not None), default=1.0)
        for axis, (title, row) in zip(axes, values.items(), strict=True):
            for place, system in enumerate(systems):
                value = row[system]
                if value is not None:
                    axis.barh(place, value, 0.68, color=_BAR if system == emphasis else _BAR_QUIET)
                axis.annotate(number(value), (value or 0, place), (3, 0), textcoords="offset points", va="center", fontsize=8)
            line = row.get(reference)
            if line is not None:
                axis.axvline(line, color=_INK, linewidth=0.8, linestyle=(0, (3, 2)))
            axis.set_title(visible(title), loc="left")
            axis.set_xlim(0, 1.22 * top if top > 0 else 1)
            axis.set_yticks(range(len(systems)), list(map(visible, systems)))
            axis.set_ylim(len(systems) - 0.4, -0.6)
            _categories(axis)
        return _svg(figure, name)


def phase_lines(panels: Sequence[Panel], *, name: str) -> str:
    """Small line charts over phases, four in a row; a legend where a panel has several series.

    Args:
        panels: At most as many series in each as there are line colours (4).
        name: Unique in the page.

    Raises:
        ValueError: a panel has too many series to tell apart, or there is no panel.
    """
    from matplotlib.ticker import MaxNLocator

    if not panels:
        raise ValueError("there is no panel to draw")
    columns = min(4, len(panels))
    rows = math.ceil(len(panels) / columns)
    phases = [x for panel in panels for points in panel.series.values() for x, _ in points]
    with _canvas(2.6 * columns, 2.0 * rows, rows=rows, columns=columns) as (figure, axes):
        for axis, panel in zip(axes, panels, strict=False):
            if len(panel.series) > len(_LINES):
                raise ValueError(
                    f"panel {panel.title!r} has {len(panel.series)} series, at most {len(_LINES)} can be told apart"
                )
            for (series, points), colour, marker in zip(panel.series.items(), _LINES, _MARKERS, strict=False):
                y = [math.nan if value is None else value for _, value in points]
                axis.plot(
                    [x for x, _ in points], y, color=colour, marker=marker, markersize=3.5, linewidth=1.4, label=visible(series)
                )
            axis.set_title(visible(panel.title), loc="left")
            axis.set_xlim(min(phases) - 0.3, max(phases) + 0.3)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.margins(y=0.15)
            axis.grid(axis="y", color=_RULE, linewidth=0.6)
            if len(panel.series) > 1:
                bottom, top = axis.get_ylim()
                axis.set_ylim(bottom, top + 0.4 * (top - bottom))  # Room for the legend above the lines.
                axis.legend(frameon=False, fontsize=7, handlelength=1.6, loc="upper left", ncols=2)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        for axis in axes[max(0, len(panels) - columns) : len(panels)]:
            axis.set_xlabel("phase")
        return _svg(figure, name)


def week_lines(
    panels: Sequence[Panel], *, name: str, verdicts: Mapping[int, str], shaded: Collection[int], weeks: tuple[int, int]
) -> str:
    """Wide line charts over weeks, one below the other on one axis of weeks, each line named at its right end.

    Args:
        panels: The same series in the same order in each, at most 4; a series without a value draws no line.
        name: Unique in the page.
        verdicts: "promote", "hold" or "reject" by week, drawn on the first series.
        shaded: Weeks of an incident.
        weeks: First and last week of the axis.

    Raises:
        ValueError: a panel has too many series to tell apart, there is no panel, or a verdict is another word.
    """
    from matplotlib.ticker import MaxNLocator

    if not panels:
        raise ValueError("there is no panel to draw")
    for week, verdict in verdicts.items():
        if verdict not in _VERDICTS:
            raise ValueError(f"verdict {verdict!r} of week {week} is none of {', '.join(_VERDICTS)}")
    first, last = weeks
    with _canvas(9.6, 0.5 + 1.75 * len(panels), rows=len(panels), share_x=True) as (figure, axes):
        for axis, panel in zip(axes, panels, strict=True):
            if len(panel.series) > len(_ARMS):
                raise ValueError(
                    f"panel {panel.title!r} has {len(panel.series)} series, at most {len(_ARMS)} can be told apart"
                )
            for week in shaded:
                axis.axvspan(week - 0.5, week + 0.5, color=_BAR_QUIET, alpha=0.3, linewidth=0)
            for place, (points, (colour, dashes)) in enumerate(zip(panel.series.values(), _ARMS, strict=False)):
                y = [math.nan if value is None else value for _, value in points]
                width = 1.4 if place else 2.2
                axis.plot(
                    [x for x, _ in points],
                    y,
                    ".",
                    color=colour,
                    linestyle=dashes,
                    linewidth=width,
                    markersize=3,
                    zorder=3 - 0.1 * place,
                )
            marked = next(iter(panel.series.values()), ())
            for verdict, (marker, filling) in _VERDICTS.items():
                at = [(x, y) for x, y in marked if y is not None and verdicts.get(x) == verdict]
                axis.plot(
                    [x for x, _ in at],
                    [y for _, y in at],
                    marker,
                    markersize=6.5,
                    markerfacecolor=filling,
                    markeredgecolor=_BAD if verdict == "reject" else _LINES[0],
                    markeredgewidth=0.9,
                    label=verdict,
                    zorder=4,
                )
            axis.set_title(visible(panel.title), loc="left")
            axis.set_xlim(first - 0.6, last + 0.6)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=24))
            axis.tick_params(axis="x", labelbottom=True)
            axis.margins(y=0.12)
            axis.grid(axis="y", color=_RULE, linewidth=0.6)
            _name_lines(axis, panel, last + 0.6)
        for week in sorted(shaded):
            axes[0].annotate(
                "incident",
                (week, 1),
                (0, 1),
                xycoords=axes[0].get_xaxis_transform(),
                textcoords="offset points",
                ha="center",
                fontsize=7.5,
                color=_INK,
            )
        axes[-1].set_xlabel("week")
        keys, words = axes[0].get_legend_handles_labels()
        figure.legend(keys, words, loc="outside upper right", frameon=False, ncols=3, fontsize=8, handlelength=1)
        return _svg(figure, name)


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move `places` apart to at least `gap`, in the same order and within `low` to `high` where there is room for all."""
    order = sorted(range(len(places)), key=places.__getitem__)
    moved = list(places)
    for rank, i in enumerate(order):  # Up, as far as those below and the lower end ask for it.
        moved[i] = max(moved[i], low if rank == 0 else moved[order[rank - 1]] + gap)
    for rank, i in reversed(list(enumerate(order))):  # Down again from the upper end.
        moved[i] = min(moved[i], high if rank == len(order) - 1 else moved[order[rank + 1]] - gap)
    return moved


def _name_lines(axis: "Axes", panel: Panel, right: float) -> None:
    """Name each line at the right of the panel, at the height of its last value or as near as the others let it."""
    ends = {
        name: (colour, values[-1])
        for (name, points), (colour, _) in zip(panel.series.items(), _ARMS, strict=False)
        if (values := [(x, y) for x, y in points if y is not None])
    }
    bottom, top = axis.get_ylim()
    height = top - bottom
    places = spread([y for _, (_, y) in ends.values()], 0.13 * height, bottom, top)
    for (name, (colour, (x, y))), place in zip(ends.items(), places, strict=True):
        axis.plot([x, right], [y, place], color=colour, linewidth=0.5, clip_on=False)
        axis.annotate(visible(name), (right, place), (3, 0), textcoords="offset points", va="center", fontsize=8, color=colour)


def interval_strip(interval: Interval, limit: float | None, *, name: str) -> str:
    """One interval on its own scale with 0 and a limit: for a cell of a table.

    Args:
        interval: What is drawn.
        limit: A value drawn as a dashed line, e.g. minus the margin; None draws none.
        name: Unique in the page.
    """
    with _canvas(2.2, 0.42) as (figure, (axis,)):
        marks = [0.0, interval.low, interval.high, interval.value, *([] if limit is None else [limit])]
        room = 0.08 * (max(marks) - min(marks)) or 1.0
        axis.set_xlim(min(marks) - room, max(marks) + room)
        axis.set_ylim(-1, 1)
        axis.axvline(0, color=_MUTED, linewidth=0.8)
        if limit is not None:
            axis.axvline(limit, color=_BAD, linewidth=1.2, linestyle=(0, (3, 2)))
        _whisker(axis, interval, 0)
        axis.set_axis_off()
        return _svg(figure, name)


def forest(rows: Sequence[Interval], *, name: str, limits: Mapping[str, float] | None = None) -> str:
    """Forest plot of relative effects, in per cent, one row each, with a line at 0.

    Args:
        rows: Effects as shares (0.1 is 10 %), from the top.
        name: Unique in the page.
        limits: By row name, the effect that must not be reached; drawn as a short dashed line.
    """
    with _canvas(7.6, 0.75 + 0.34 * len(rows)) as (figure, (axis,)):
        axis.axvline(0, color=_MUTED, linewidth=0.8)
        for place, row in enumerate(rows):
            in_percent = Interval(row.name, 100 * row.value, 100 * row.low, 100 * row.high)
            _whisker(axis, in_percent, place)
            if limits and row.name in limits:
                axis.plot([100 * limits[row.name]] * 2, [place - 0.4, place + 0.4], color=_BAD, linestyle=(0, (3, 2)))
        axis.set_yticks(range(len(rows)), [visible(row.name) for row in rows])
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.margins(x=0.08)
        axis.set_xlabel("treatment against control, %")
        axis.grid(axis="x", color=_RULE, linewidth=0.6)
        _categories(axis)
        return _svg(figure, name)


def durations(seconds: Mapping[str, float], *, name: str) -> str:
    """One bar per step, in seconds, in the order given.

    Args:
        seconds: Seconds by step.
        name: Unique in the page.
    """
    with _canvas(7.6, 0.65 + 0.26 * len(seconds)) as (figure, (axis,)):
        for place, value in enumerate(seconds.values()):
            axis.barh(place, value, 0.68, color=_BAR)
            axis.annotate(number(value, 1), (value, place), (3, 0), textcoords="offset points", va="center", fontsize=8)
        axis.set_yticks(range(len(seconds)), list(map(visible, seconds)))
        axis.set_ylim(len(seconds) - 0.4, -0.6)
        axis.set_xlim(0, 1.12 * max(seconds.values()) or 1)
        axis.set_xlabel("seconds")
        _categories(axis)
        return _svg(figure, name)


def _whisker(axis: "Axes", interval: Interval, place: float) -> None:
    axis.plot([interval.low, interval.high], [place, place], color=_BAR, linewidth=2, solid_capstyle="butt")
    axis.plot([interval.value], [place], "o", color=_BAR, markersize=5)


def _categories(axis: "Axes") -> None:
    """The vertical axis holds names, so it needs neither line nor ticks."""
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)


@contextmanager
def _canvas(
    width: float, height: float, *, rows: int = 1, columns: int = 1, share_x: bool = False, share_y: bool = False
) -> Iterator[tuple["Figure", list["Axes"]]]:
    """A figure of `width` by `height` inches and its axes row by row; the style holds until it is left.

    Drawn without pyplot, which would keep every figure alive and choose a backend for the whole process.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],  # Ships with matplotlib, so that the layout is the same everywhere.
        "font.size": 8.5,
        "axes.titlesize": 9,
        "axes.titleweight": "bold",
        "axes.edgecolor": _MUTED,
        "axes.labelcolor": _MUTED,
        "axes.titlecolor": _INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "text.color": _INK,
        "text.parse_math": False,  # A "$" in a name is no formula.
        "axes.formatter.use_mathtext": False,
        "xtick.color": _MUTED,
        "ytick.color": _MUTED,
        "xtick.labelcolor": _MUTED,
        "ytick.labelcolor": _INK,
        "legend.labelcolor": _INK,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=share_x, sharey=share_y, squeeze=False)
        yield figure, list(grid.flat)


def _svg(figure: "Figure", name: str) -> str:
    """The drawing as an `<svg>` element whose ids no other chart of the page has."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    drawn = _REFERENCE.sub(rf"\g<1>{name}-", _NOT_DRAWING.sub("", buffer.getvalue()))
    return _PAINT.sub(_themed, drawn)


def _themed(paint: re.Match[str]) -> str:
    kind, colour = paint.groups()
    return f"{kind}var(--{_VARIABLES[colour]}, {colour})" if colour in _VARIABLES else paint[0]
