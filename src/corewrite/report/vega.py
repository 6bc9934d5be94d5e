"""Pieces of Vega-Lite specifications in the pages' style, and their rendering to SVG, without a browser or a network.

Colours are CSS variables of the page (`--ink`, `--c1`, ...), with the light theme's as fallback, so that a drawing follows the
reader's theme.
"""

import json
from collections.abc import Sequence
from typing import Any

from corewrite.domain.extras import from_extra
from corewrite.domain.shown import visible

Spec = dict[str, Any]
"""A Vega-Lite specification or a part of one, as JSON."""

INK = "var(--ink, #1c2126)"
MUTED = "var(--muted, #5b646e)"
RULE = "var(--rule, #c9d0d7)"
QUIET = "var(--quiet, #9fb0c1)"
BAD = "var(--bad, #b3302c)"
PAPER = "var(--paper, #fdfdfc)"
LINES = ("var(--c1, #1f5fa8)", "var(--c2, #a8521a)", "var(--c3, #2b7a52)", "var(--c4, #7a4b9c)")
DASHED = [4, 3]

_VEGA_LITE = "6.1"
# vl-convert brings the first of these, by whose widths it lays out; the next are as wide, letter by letter.
_FONTS = "Liberation Sans, Arial, Helvetica, sans-serif"
_STYLE: Spec = {
    "aria": False,
    "background": None,
    "font": _FONTS,
    "view": {"stroke": None},
    "concat": {"spacing": 12},
    "title": {"anchor": "start", "frame": "group", "color": INK, "fontSize": 12, "offset": 6},
    "axis": {
        "grid": False,
        "domainColor": MUTED,
        "tickColor": MUTED,
        "gridColor": RULE,
        "labelColor": MUTED,
        "labelFontSize": 11,
        "labelLimit": 0,
        "titleColor": MUTED,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "titleLimit": 0,
    },
    "legend": {
        "title": None,
        "labelColor": INK,
        "labelFontSize": 10.5,
        "labelLimit": 0,
        "symbolSize": 40,
        "padding": 0,
        "offset": 4,
    },
    "text": {"color": INK, "fontSize": 11, "baseline": "middle"},
}


def render_svg(spec: Spec) -> str:
    """The drawing as an `<svg>` element; the same specification gives the same bytes.

    Raises:
        MissingExtraError: vl-convert is not installed.
    """
    with from_extra("report", "charts are drawn by vl-convert"):
        import vl_convert
    return vl_convert.vegalite_to_svg(spec | {"config": _STYLE, "padding": 2}, vl_version=_VEGA_LITE)


def layers(marks: Sequence[Spec], title: str | None = None, **settings: Any) -> Spec:
    """Marks on top of each other, the first lowest.

    Args:
        marks: As `mark` makes them.
        title: Above them; any text.
        settings: Further keys of the specification, such as the width in pixels.
    """
    heading = {} if title is None else {"title": visible(title)}
    return heading | settings | {"layer": list(marks)}


def mark(kind: str, values: Sequence[Spec], encoding: Spec, **settings: Any) -> Spec:
    """One kind of mark, drawn for each of `values`."""
    return {"data": {"values": list(values)}, "mark": {"type": kind} | settings, "encoding": encoding}


def quantity(field: str, domain: tuple[float, float], **settings: Any) -> Spec:
    """An axis of numbers from end to end of `domain`; further keys of the channel in `settings`, those of `scale` added."""
    scale = {"domain": list(domain), "nice": False, "zero": False} | settings.pop("scale", {})
    return {"field": field, "type": "quantitative", "title": None, "scale": scale} | settings


def rows(field: str, names: Sequence[str], *, shown: bool = True) -> Spec:
    """The vertical channel of a table's rows, row k at k with the first on top.

    Args:
        field: Of the row's number.
        names: Names of the rows; any text.
        shown: Whether they stand at the left.
    """
    labels = {"values": list(range(len(names))), "labelExpr": lookup(names), "ticks": False, "domain": False, "labelColor": INK}
    return quantity(field, (-0.6, len(names) - 0.4), scale={"reverse": True}, axis=labels if shown else None)


def lookup(names: Sequence[str]) -> str:
    """Expression for the name of a label whose value is its place among `names`: any text, and equal ones stay apart."""
    return f"{json.dumps([visible(name) for name in names])}[datum.value]"
