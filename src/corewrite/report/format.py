"""Formatting of numbers, names and untrusted text, in pages and on a terminal."""

import math
from collections.abc import Callable, Iterable, Mapping

MISSING = "–"

# What each word of a run's summary is called, in the order in which tables show it.
SYSTEMS = {
    "original": "original only",
    "last_query": "query + last query",
    "first_and_last_query": "query + first and last",
    "rm3": "RM3",
    "warm_start": "warm start",
    "champion": "champion",
    "recoverable": "recoverable oracle",
    "oracle": "oracle rewrite",
}
SLICES = {"all": "all", "clear": "clear", "context_needed": "context needed", "misspelt": "misspelt"}


def finite(value: float | None) -> float | None:
    """`value`, or None where there is no number to show or to draw: null, NaN, an infinity.

    Raises:
        TypeError: `value` is neither a number nor None.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number: give a number, or null where there is none")
    return value if math.isfinite(value) else None


def number(value: float | None, digits: int = 3, *, signed: bool = False) -> str:
    """`value` with `digits` decimals and thousands separated by commas; "–" where `finite` gives None.

    Raises:
        TypeError: `value` is neither a number nor None.
    """
    found = finite(value)
    if found is None:
        return MISSING
    rounded = round(found, digits) + 0.0  # Adding 0.0 turns -0.0 into 0.0.
    return f"{rounded:{'+' if signed else ''},.{digits}f}"


def percent(share: float | None, digits: int = 1, *, signed: bool = False) -> str:
    """A share as a percentage, 0.123 as "12.3 %"; "–" where `finite` gives None.

    Raises:
        TypeError: `share` is neither a number nor None.
    """
    found = finite(share)
    return MISSING if found is None else f"{number(100 * found, digits, signed=signed)} %"


def significant(value: float | None, digits: int = 3, *, signed: bool = False) -> str:
    """`value` with `digits` significant digits, for p-values and for numbers of unlike units; "–" where `finite` gives None.

    Raises:
        TypeError: `value` is neither a number nor None.
    """
    found = finite(value)
    return MISSING if found is None else f"{found + 0.0:{'+' if signed else ''}.{digits}g}"


def duration(seconds: float | None) -> str:
    """Seconds as "4.2 s", "3 min 20 s" or "1 h 5 min"; "–" where `finite` gives None.

    Raises:
        TypeError: `seconds` is neither a number nor None.
    """
    found = finite(seconds)
    if found is None:
        return MISSING
    if found < 60:
        return f"{found:.1f} s"
    minutes, rest = divmod(round(found), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def interval(
    low: float | None, high: float | None, show: Callable[..., str] = percent, digits: int = 1, *, signed: bool = True
) -> str:
    """Both ends as `show` writes them, such as "-8.2 % to -4.0 %"; "–" where `finite` gives None for either.

    Raises:
        TypeError: an end is neither a number nor None.
    """
    if finite(low) is None or finite(high) is None:
        return MISSING
    return f"{show(low, digits, signed=signed)} to {show(high, digits, signed=signed)}"


def mebibytes(value: float | None) -> str:
    """Memory as "1,523 MiB"; "–" where `finite` gives None.

    Raises:
        TypeError: `value` is neither a number nor None.
    """
    return MISSING if finite(value) is None else f"{number(value, 0)} MiB"


def total(seconds: Mapping[str, float | None] | None) -> float | None:
    """Sum of the finite values; None where there is none.

    Raises:
        TypeError: a value is neither a number nor None.
    """
    found = [s for value in (seconds or {}).values() if (s := finite(value)) is not None]
    return sum(found) if found else None


def change(value: float | None, reference: float | None) -> float | None:
    """Relative change of `value` against `reference`; None where either is missing or the reference is 0.

    Raises:
        TypeError: either is neither a number nor None.
    """
    value, reference = finite(value), finite(reference)
    return None if value is None or not reference else value / reference - 1


def label(name: str) -> str:
    """A key as words."""
    return name.replace("_", " ")


def ordered(found: Iterable[str], known: Mapping[str, str]) -> dict[str, str]:
    """Labels of the keys `found`: the known ones first and in their order, others behind as words."""
    keys = list(found)
    return {k: known[k] for k in known if k in keys} | {k: label(k) for k in keys if k not in known}
