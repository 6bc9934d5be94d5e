"""A model that does not answer is left alone for a while, so that not every search waits for it."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from corewrite.relevance.backends.errors import ScoreError, ScorerMismatchError, ScorerUnavailableError
from corewrite.relevance.protocol import RelevanceScorer
from corewrite.remote.breaker import Breaker, BreakerOpenError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class CircuitBreaker:
    """A scorer that stops asking after failures in a row (a `RelevanceScorer`), see `corewrite.remote.breaker.Breaker`.

    Open, it raises `ScorerUnavailableError` at once. Failures are `ScorerUnavailableError` and `ScorerMismatchError`;
    a score that is no probability is an answer.

    Goes inside `NaNOnFailure`: `CachedScorer(NaNOnFailure(CircuitBreaker(remote)))`. Any number of threads may call it, as far
    as the scorer behind allows that.
    """

    def __init__(
        self,
        scorer: RelevanceScorer,
        *,
        failures: int = 3,
        pause: float = 1.0,
        longest: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wrap `scorer`; for the others, and `ValueError`, see `Breaker`."""
        self._scorer = scorer
        self._breaker = Breaker("the relevance model", failures=failures, pause=pause, longest=longest, clock=clock)

    @property
    def model_hash(self) -> str:
        """Hash of the model behind."""
        return self._scorer.model_hash

    @property
    def is_open(self) -> bool:
        """Whether calls are refused, but for one after each pause."""
        return self._breaker.is_open

    @property
    def opened(self) -> int:
        """How often it opened, or stayed open after another try."""
        return self._breaker.opened

    @property
    def refused(self) -> int:
        """Calls that were not let through."""
        return self._breaker.refused

    def score(self, texts: Sequence[str], rows: IntArray) -> FloatArray:
        """See `RelevanceScorer.score`.

        Raises:
            ScorerUnavailableError: it is open.
        """
        if not (np.asarray(rows) >= 0).any():
            return self._scorer.score(texts, rows)  # nothing is asked: no sign of life
        try:
            return self._breaker.call(
                lambda: self._scorer.score(texts, rows), (ScorerUnavailableError, ScorerMismatchError), (ScoreError,)
            )
        except BreakerOpenError as error:
            raise ScorerUnavailableError(str(error)) from error
