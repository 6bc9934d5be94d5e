"""Lines that a client can cause at will come once a minute: a log must not grow with what is refused."""

import logging
import time
from collections.abc import Callable

_MOST = 1_000
"""Different lines remembered at most; all beyond are taken for one."""
_LIMITED = ("uvicorn.error", "corewrite.serving.problems", "opensearch", "qdrant_client", "httpx")
"""Loggers with a line per request that fails."""


class RateLimit(logging.Filter):
    """Lets each line (its text before arguments, with the kind of its exception) through once in a while, and then says how
    many were left out.

    Args:
        seconds: How long a line stays away.
        clock: Seconds that never go back.
    """

    def __init__(self, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._seconds, self._clock = seconds, clock
        self._known: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter`."""
        now = self._clock()
        key: tuple[object, ...] = (record.levelno, str(record.msg), record.exc_info[0] if record.exc_info else None)
        if key not in self._known and len(self._known) >= _MOST:
            self._known = {k: v for k, v in self._known.items() if now - v[0] < self._seconds}
            if len(self._known) >= _MOST:
                key = ()
        since, left_out = self._known.get(key, (float("-inf"), 0))
        if now - since < self._seconds:
            self._known[key] = since, left_out + 1
            return False
        self._known[key] = now, 0
        if left_out:
            record.msg = f"{record.msg} ({left_out} more like it since the last)"
        return True


def limit_logs() -> None:
    """Limit the lines of every logger that has one per request which fails."""
    for name in _LIMITED:
        logger = logging.getLogger(name)
        if not any(isinstance(known, RateLimit) for known in logger.filters):
            logger.addFilter(RateLimit())
