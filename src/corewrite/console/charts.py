"""Charts as SVG text, drawn by matplotlib without a display; the same numbers give the same bytes."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, ACCENT, GOOD, BAD = "#4a5568", "#a0aec0", "#2b6cb0", "#2f855a", "#c53030"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "corewrite",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def slice_bars(ndcg: Mapping[str, Mapping[str, float | None]], systems: Mapping[str, str], slices: Mapping[str, str]) -> str:
    """nDCG@10 as bars, one panel per slice, one bar per system."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.5, 2.6), layout="constrained")
        panels = figure.subplots(1, len(slices), sharey=True, squeeze=False)[0]
        colours = {"original": MUTED, "champion": ACCENT, "oracle": GOOD}
        for axes, (name, title) in zip(panels, slices.items(), strict=True):
            values = [ndcg[name].get(s) or 0.0 for s in systems]
            axes.barh(list(systems.values()), values, color=[colours.get(s, "#cbd5e0") for s in systems])
            axes.invert_yaxis()
            axes.set_title(title, fontsize=9)
            for y, value in enumerate(values):
                axes.text(value, y, f" {value:.2f}", va="center", fontsize=7)
            axes.set_xlim(0, 1)
        return _svg(figure)


def phase_lines(phases: Sequence[int], series: Mapping[str, Sequence[float | None]]) -> str:
    """One small panel per measure over the phases; phase 0 is the warm start."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.5, 2.2), layout="constrained")
        panels = figure.subplots(1, len(series), squeeze=False)[0]
        for axes, (title, values) in zip(panels, series.items(), strict=True):
            axes.plot(phases, [float("nan") if v is None else v for v in values], color=ACCENT, marker="o", markersize=3)
            axes.set_title(title, fontsize=9)
            axes.set_xticks(list(phases))
            axes.set_xlabel("phase")
        return _svg(figure)


def intervals(rows: Sequence[tuple[str, float | None, float | None, float | None, str]], mark: float | None, unit: str) -> str:
    """Intervals one below the other: (label, value, low, high, colour), a line at 0 and one at `mark`."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 0.36 * len(rows) + 0.7), layout="constrained")
        axes = figure.subplots()
        for y, (_, value, low, high, colour) in enumerate(rows):
            if value is None or low is None or high is None:
                continue
            axes.plot([low, high], [y, y], color=colour, linewidth=2)
            axes.plot([value], [y], "o", color=colour, markersize=5)
        _finish_intervals(axes, [label for label, *_ in rows], mark, unit)
        return _svg(figure)


def scaled_intervals(rows: Sequence[tuple[str, float | None, float | None, float | None, float, str]]) -> str:
    """Gate checks on one axis: every interval in units of its own margin, (label, D, low, high, margin, colour)."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 0.36 * len(rows) + 0.7), layout="constrained")
        axes = figure.subplots()
        for y, (_, value, low, high, margin, colour) in enumerate(rows):
            if value is None or low is None or high is None or margin <= 0:
                continue
            axes.plot([low / margin, high / margin], [y, y], color=colour, linewidth=2)
            axes.plot([value / margin], [y], "o", color=colour, markersize=5)
        _finish_intervals(axes, [label for label, *_ in rows], -1.0, "difference, in margins (higher is better)")
        return _svg(figure)


def step_bars(seconds: Mapping[str, float]) -> str:
    """Seconds of each step."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 0.24 * len(seconds) + 0.6), layout="constrained")
        axes = figure.subplots()
        axes.barh(list(seconds), list(seconds.values()), color="#cbd5e0")
        axes.invert_yaxis()
        for y, value in enumerate(seconds.values()):
            axes.text(value, y, f" {value:.1f} s", va="center", fontsize=7)
        axes.set_xlabel("seconds")
        return _svg(figure)


def _finish_intervals(axes: Axes, labels: Sequence[str], mark: float | None, unit: str) -> None:
    axes.axvline(0, color=INK, linewidth=0.8)
    if mark is not None:
        axes.axvline(mark, color=BAD, linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlabel(unit)


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
