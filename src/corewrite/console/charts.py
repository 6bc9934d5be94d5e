"""Charts as SVG text to put inside a page: the same input gives the same bytes.

Colours are CSS variables of the page (`--ink`, `--c1`, ...), with the light theme's as fallback, so that a chart follows the
reader's theme. Nothing in a chart is loaded from elsewhere.
"""

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from corewrite.console.format import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Each colour is told from the others by its code in the drawn SVG, so no two may be equal.
_INK, _MUTED, _RULE = "#1c2126", "#5b646e", "#c9d0d7"
_LINES = ("#1f5fa8", "#a8521a", "#2b7a52", "#7a4b9c")
_BAR, _BAR_QUIET, _BAD = "#1f5fa9", "#9fb0c1", "#b3302c"
_VARIABLES = {
    _INK: "ink",
    _MUTED: "muted",
    _RULE: "rule",
    **{colour: f"c{i}" for i, colour in enumerate(_LINES, 1)},
    _BAR: "c1",
    _BAR_QUIET: "quiet",
    _BAD: "bad",
}
_MARKERS = "osD^"
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
            axis.set_title(title, loc="left")
            axis.set_xlim(0, 1.22 * top if top > 0 else 1)
            axis.set_yticks(range(len(systems)), systems)
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
                axis.plot([x for x, _ in points], y, color=colour, marker=marker, markersize=3.5, linewidth=1.4, label=series)
            axis.set_title(panel.title, loc="left")
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
        axis.set_yticks(range(len(rows)), [row.name for row in rows])
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
        axis.set_yticks(range(len(seconds)), list(seconds))
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
    width: float, height: float, *, rows: int = 1, columns: int = 1, share_y: bool = False
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
        grid = figure.subplots(rows, columns, sharey=share_y, squeeze=False)
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
