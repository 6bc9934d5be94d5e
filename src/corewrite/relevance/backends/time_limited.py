"""A wall-clock limit around a scorer that is not ours."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from corewrite.relevance.backends.errors import ScorerUnavailableError
from corewrite.relevance.protocol import RelevanceScorer
from corewrite.remote import OutOfTimeError, Patience

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class TimeLimited:
    """A scorer whose every call ends in time, whatever it does (a `RelevanceScorer`); goes inside a `CircuitBreaker`.

    Args:
        scorer: What is asked; always from one thread, and never while a call that was too late still runs.
        patience: Limits the time of a call.
    """

    def __init__(self, scorer: RelevanceScorer, patience: Patience) -> None:
        self._scorer, self._patience = scorer, patience

    @property
    def model_hash(self) -> str:
        """Hash of the model behind."""
        return self._scorer.model_hash

    def score(self, texts: Sequence[str], rows: IntArray) -> FloatArray:
        """See `RelevanceScorer.score`.

        Raises:
            ScorerUnavailableError: it did not answer in time.
        """
        try:
            return self._patience.call(lambda: self._scorer.score(texts, rows))
        except OutOfTimeError as error:
            raise ScorerUnavailableError(str(error)) from error
