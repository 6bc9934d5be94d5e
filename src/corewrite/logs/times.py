"""Times of a log: ISO 8601 or an epoch to seconds, and back."""

from datetime import UTC, datetime
from typing import Any

from corewrite.logs.values import finite_number


def parse_time(value: Any) -> float:
    """Seconds since the epoch of an ISO 8601 string (UTC where no offset is said) or an epoch in seconds or milliseconds.

    Raises:
        ValueError: it is neither.
    """
    try:
        seconds = finite_number(float(value) if isinstance(value, str) else value)
        if seconds is not None and abs(seconds) > 1e11:
            seconds /= 1000
    except ValueError:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"timestamp {value!r:.50} is neither ISO 8601 nor an epoch") from None
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if seconds is None:
        raise ValueError(f"timestamp {value!r:.50} is neither ISO 8601 nor an epoch")
    if not 0 <= seconds < 4e9:
        raise ValueError(f"timestamp {value!r:.50} lies outside 1970-2096")
    return seconds


def iso(seconds: float) -> str:
    """ISO 8601 in UTC with milliseconds of an epoch."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
