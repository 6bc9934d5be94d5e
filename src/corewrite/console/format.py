"""Numbers, names and untrusted text as a reader sees them, in the page and in the terminal."""

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping

MISSING = "–"

# What each word of a run's summary is called, in the order in which tables show it.
SYSTEMS = {
    "original": "original only",
    "last_query": "query + last query",
    "spelling": "spelling dictionary",
    "last_query_and_spelling": "last query + spelling",
    "warm_start": "warm start",
    "champion": "champion",
    "oracle": "oracle rewrite",
}
SLICES = {"all": "all", "clear": "clear", "context_needed": "context needed", "misspelt": "misspelt"}

_LAYOUT = re.compile(r"\s+")


def number(value: float | None, digits: int = 3, *, signed: bool = False) -> str:
    """`value` with `digits` decimals and thousands separated by commas; "–" for None, NaN and infinities.

    Raises:
        TypeError: `value` is neither a number nor None.
    """
    if value is None:
        return MISSING
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number: give a number, or null where there is none")
    if not math.isfinite(value):
        return MISSING
    rounded = round(value, digits) + 0.0  # Adding 0.0 turns -0.0 into 0.0.
    return f"{rounded:{'+' if signed else ''},.{digits}f}"


def percent(share: float | None, digits: int = 1, *, signed: bool = False) -> str:
    """A share as a percentage, 0.123 as "12.3 %"; "–" where `number` says so.

    Raises:
        TypeError: `share` is neither a number nor None.
    """
    text = number(None if share is None else 100 * share, digits, signed=signed)
    return text if text == MISSING else f"{text} %"


def significant(value: float | None, digits: int = 3, *, signed: bool = False) -> str:
    """`value` with `digits` significant digits, for p-values and for numbers of unlike units; "–" where `number` says so.

    Raises:
        TypeError: `value` is neither a number nor None.
    """
    if number(value) == MISSING or value is None:
        return MISSING
    return f"{value + 0.0:{'+' if signed else ''}.{digits}g}"


def duration(seconds: float | None) -> str:
    """Seconds as "4.2 s", "3 min 20 s" or "1 h 5 min"; "–" where `number` says so.

    Raises:
        TypeError: `seconds` is neither a number nor None.
    """
    if number(seconds) == MISSING or seconds is None:
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def change(value: float | None, reference: float | None) -> float | None:
    """Relative change of `value` against `reference`; None where either is missing or the reference is 0."""
    return None if value is None or not reference else value / reference - 1


def label(name: str) -> str:
    """A key as words."""
    return name.replace("_", " ")


def ordered(found: Iterable[str], known: Mapping[str, str]) -> dict[str, str]:
    """Labels of the keys `found`: the known ones first and in their order, others behind as words."""
    keys = list(found)
    return {k: known[k] for k in known if k in keys} | {k: label(k) for k in keys if k not in known}


def visible(text: str) -> str:
    """Untrusted text on one line, with its control and format characters (bidirectional overrides, escapes) spelled out.

    Such characters could make a title read as another one, or drive a terminal. Markup is left as it is: escaping is
    the template's.
    """
    line = _LAYOUT.sub(" ", text).strip()
    return "".join(f"<U+{ord(c):04X}>" if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in line)
