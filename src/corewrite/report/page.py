"""Shared parts of the HTML pages: the template environment and its filters."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, Undefined
from markupsafe import Markup

from corewrite.domain.shown import visible
from corewrite.report import charts, views
from corewrite.report.format import MISSING, duration, finite, interval, label, mebibytes, number, percent, significant


def environment() -> Environment:
    """The environment of the templates: everything escaped, text made visible, null and what is not there shown as "–"."""
    found = Environment(
        loader=PackageLoader("corewrite.report", ""),
        autoescape=True,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = (duration, mebibytes, number, percent, significant)
    found.filters |= {"exp": math.exp, "label": label} | {f.__name__: _missing_as_none(f) for f in formats}
    found.globals |= {
        "effects": views.effects,
        "gate_chart": _gate_chart,
        "interval": _missing_as_none(interval),
        "level": views.level,
        "number": number,
        "percent": percent,
        "significant": significant,
    }
    return found


def _shown(value: object) -> object:
    """What an expression of the template shows: text made visible, "–" for what is not there."""
    if value is None or isinstance(value, Undefined):
        return MISSING
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _missing_as_none(function: Callable[..., str]) -> Callable[..., str]:
    """The function, with a key that is not there taken as null."""
    return lambda *args, **settings: function(*(None if isinstance(a, Undefined) else a for a in args), **settings)


def _gate_chart(check: Mapping[str, Any]) -> Markup | None:
    found = views.build_interval(check["name"], check["difference"], check["low"], check["high"])
    margin = finite(check["margin"])
    limit = None if margin is None else -margin
    return None if found is None else Markup(charts.interval_strip(found, limit))
