"""Values of a log's JSON: text, numbers, ids, flags; whatever is none of them is refused with the value in the message."""

import json
import math
from collections.abc import Mapping
from typing import Any

from corewrite.domain.traffic_split import NUM_BUCKETS

ID_LIMIT = 100
"""Characters of an id or an action at most."""


def parse_id(value: Mapping[str, Any], name: str) -> str:
    """The id that stands under `name`, at most `ID_LIMIT` characters.

    Raises:
        ValueError: there is none, or it is too long.
    """
    text = parse_text(value.get(name) or "")
    if not text:
        raise ValueError(f"query without {name}")
    if len(text) > ID_LIMIT:
        raise ValueError(f"{name} of {len(text)} characters is over the limit of {ID_LIMIT}")
    return text


def parse_text(value: Any) -> str:
    """Text, or a number as text.

    Raises:
        ValueError: it is neither.
    """
    if type(value) is str:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r:.50} is not text")
    return str(value)


def parse_flag(name: str, value: Any) -> bool | None:
    """A flag; None where it is not logged.

    Raises:
        ValueError: it is something else; the message calls it `name`.
    """
    if value is None or isinstance(value, bool):
        return value
    raise ValueError(f"{name} {value!r:.50} is neither true nor false: leave it out where it is not known")


def parse_bucket(value: Any) -> int | None:
    """The bucket of a user (see `corewrite.domain.traffic_split`); None where it is not logged.

    Raises:
        ValueError: it is something else.
    """
    if value is None or (type(value) is int and 0 <= value < NUM_BUCKETS):
        return value
    raise ValueError(
        f"bucket {value!r:.50} is no whole number from 0 to {NUM_BUCKETS - 1}: leave it out where it is not that of "
        "corewrite.domain.traffic_split"
    )


def refuse_surrogates(value: Any) -> None:
    """Refuse half characters, which JSON escapes can spell and no store accepts.

    Raises:
        ValueError: there is one.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("text with a lone surrogate") from None


def parse_seconds(value: Any) -> float | None:
    """A duration in seconds, at least 0; None where it is not logged.

    Raises:
        ValueError: it is something else.
    """
    if value is None:
        return None
    seconds = finite_number(value)
    if seconds is None or seconds < 0:
        raise ValueError(f"{value!r:.50} is not a duration in seconds")
    return seconds


def finite_number(value: Any) -> float | None:
    """A JSON number as a float; None where it is none, or not finite as one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
