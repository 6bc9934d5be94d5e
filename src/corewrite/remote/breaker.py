"""What does not answer is left alone for a while, so that not every search waits for it (Nygard, Release It!, 2007)."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

_log = logging.getLogger(__name__)
T = TypeVar("T")


class BreakerOpenError(ConnectionError):
    """Not asked: it failed several times in a row."""


class Breaker:
    """Stops calling after failures in a row.

    Open, it raises `BreakerOpenError` at once. After a pause one call is let through, the others go on being refused: an
    answer closes it, a failure doubles the pause. Any number of threads may call it.

    Attributes:
        opened: How often it opened, or stayed open after another try.
        refused: Calls that were not let through.
    """

    def __init__(
        self,
        name: str,
        *,
        failures: int = 3,
        pause: float = 1.0,
        longest: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Guard calls.

        Args:
            name: Of what is called, for the log.
            failures: Failures in a row that open it.
            pause: First pause, seconds; doubled by every further failure.
            longest: Longest pause, seconds.
            clock: Seconds that never go back.

        Raises:
            ValueError: `failures` or `pause` is not above 0, or `longest` is below `pause`.
        """
        if failures < 1 or not 0 < pause <= longest:
            raise ValueError(f"failures {failures} and pause {pause} must be above 0, longest {longest} not below the pause")
        self._name, self._clock = name, clock
        self._most, self._first, self._longest = failures, pause, longest
        self._lock = threading.Lock()
        self._failures, self._pause, self._trying = 0, pause, False
        self._until: float | None = None
        self.opened = self.refused = 0

    @property
    def is_open(self) -> bool:
        """Whether calls are refused, but for one after each pause."""
        return self._until is not None

    def call(
        self, function: Callable[[], T], failures: tuple[type[Exception], ...], answers: tuple[type[Exception], ...] = ()
    ) -> T:
        """What `function` returns or raises.

        Args:
            function: The call.
            failures: Errors that count as failures.
            answers: Errors that are answers all the same; those of neither kind say nothing of the other side.

        Raises:
            BreakerOpenError: it is open.
        """
        trial = self._let_through()
        try:
            found = function()
        except failures as error:
            self._failed(trial, error)
            raise
        except answers:
            self._answered()
            raise
        else:
            self._answered()
            return found
        finally:
            if trial:
                self._trying = False

    def _let_through(self) -> bool:
        """Whether this call is the one that tries what is thought to be down."""
        with self._lock:
            if self._until is None:
                return False
            left = self._until - self._clock()
            if left > 0 or self._trying:
                self.refused += 1
                raise BreakerOpenError(f"not asked: it failed {self._failures} times in a row, tried in {max(left, 0):.1f} s")
            self._trying = True
        _log.info("%s is tried again", self._name)
        return True

    def _failed(self, trial: bool, error: Exception) -> None:
        with self._lock:
            self._failures += 1
            if self._until is not None and not trial:
                return  # began before it opened: known by now
            if not trial and self._failures < self._most:
                return
            pause = self._pause
            self._until, self._pause = self._clock() + pause, min(2 * pause, self._longest)
            self.opened += 1
        kind = type(error).__name__
        _log.error("%s failed %d times in a row (%s), not asked for %.1f s", self._name, self._failures, kind, pause)
        _log.debug("it failed with: %s", error)  # a server's own words may repeat what users typed

    def _answered(self) -> None:
        with self._lock:
            was_open = self._until is not None
            self._until, self._failures, self._pause = None, 0, self._first
        if was_open:
            _log.warning("%s answers again", self._name)
