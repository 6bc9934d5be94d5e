"""A model that does not answer is left alone for a while, so that not every search waits for it."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from corewrite.relevance.backends.errors import ScoreError, ScorerMismatchError, ScorerUnavailableError
from corewrite.relevance.protocol import RelevanceScorer

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_log = logging.getLogger(__name__)


class CircuitBreaker:
    """A scorer that stops asking after failures in a row (a `RelevanceScorer`; Nygard, Release It!, 2007).

    Open, it raises `ScorerUnavailableError` at once. After a pause one call is let through, the others go on being refused: an
    answer closes it, a failure doubles the pause. Failures are `ScorerUnavailableError` and `ScorerMismatchError`; a score
    that is no probability is an answer.

    Goes inside `NaNOnFailure`: `CachedScorer(NaNOnFailure(CircuitBreaker(remote)))`. Any number of threads may call it, as far
    as the scorer behind allows that.

    Attributes:
        opened: How often it opened, or stayed open after another try.
        refused: Calls that were not let through.
    """

    def __init__(
        self, scorer: RelevanceScorer, *, failures: int = 3, pause: float = 1.0, longest: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """Wrap `scorer`.

        Args:
            scorer: What is asked.
            failures: Failures in a row that open it.
            pause: First pause, seconds; doubled by every further failure.
            longest: Longest pause, seconds.
            clock: Seconds that never go back.

        Raises:
            ValueError: `failures` or `pause` is not above 0, or `longest` is below `pause`.
        """
        if failures < 1 or not 0 < pause <= longest:
            raise ValueError(f"failures {failures} and pause {pause} must be above 0, longest {longest} not below the pause")
        self._scorer, self._clock = scorer, clock
        self._most, self._first, self._longest = failures, pause, longest
        self._lock = threading.Lock()
        self._failures, self._pause, self._trying = 0, pause, False
        self._until: float | None = None
        self.opened = self.refused = 0

    @property
    def model_hash(self) -> str:
        """Hash of the model behind."""
        return self._scorer.model_hash

    @property
    def is_open(self) -> bool:
        """Whether calls are refused, but for one after each pause."""
        return self._until is not None

    def score(self, texts: Sequence[str], rows: IntArray) -> FloatArray:
        """See `RelevanceScorer.score`.

        Raises:
            ScorerUnavailableError: it is open.
        """
        if not (np.asarray(rows) >= 0).any():
            return self._scorer.score(texts, rows)  # nothing is asked: no sign of life
        trial = self._let_through()
        try:
            found = self._scorer.score(texts, rows)
        except (ScorerUnavailableError, ScorerMismatchError) as error:
            self._failed(trial, error)
            raise
        except ScoreError:
            self._answered()
            raise
        else:
            self._answered()
            return found
        finally:
            if trial:
                self._trying = False

    def _let_through(self) -> bool:
        """Whether this call is the one that tries a model thought to be down."""
        with self._lock:
            if self._until is None:
                return False
            left = self._until - self._clock()
            if left > 0 or self._trying:
                self.refused += 1
                raise ScorerUnavailableError(
                    f"not asked: it failed {self._failures} times in a row, tried in {max(left, 0):.1f} s"
                )
            self._trying = True
        _log.info("the relevance model is tried again")
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
        _log.error("the relevance model failed %d times in a row (%s), not asked for %.1f s", self._failures, kind, pause)
        _log.debug("it failed with: %s", error)  # a server's own words may repeat what users typed

    def _answered(self) -> None:
        with self._lock:
            was_open = self._until is not None
            self._until, self._failures, self._pause = None, 0, self._first
        if was_open:
            _log.warning("the relevance model answers again")
