"""From errors to the NaN that the cascade understands."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from corewrite.relevance.backends.errors import ScoreError, ScorerMismatchError, ScorerUnavailableError
from corewrite.relevance.protocol import RelevanceScorer

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class NaNOnFailure:
    """A scorer whose failures become NaN, for a live cascade (a `RelevanceScorer`).

    The fusion then leaves the rewrite's factor at exactly 1 for the whole search, with status `error`; an original signal
    that is NaN is an error of the fusion: no ranking is made up. A document that one text has no score for does not cost the
    other texts of the batch theirs: they are asked again one by one.

    A batch job has to see that a model cannot be reached, so that it calls again and can say why: see `live`.

    Attributes:
        failures: Failed calls so far.
        last_error: Of the latest of them; None before the first.
    """

    def __init__(self, scorer: RelevanceScorer, *, live: bool = True) -> None:
        """Wrap `scorer`; a `CachedScorer` goes around this one, it keeps no NaN, and a `CircuitBreaker` into it.

        Args:
            scorer: What is asked.
            live: False, for a batch job: only a score that is no probability becomes NaN, a model that cannot be reached or is
                another one stays an error.
        """
        self._scorer, self._live = scorer, live
        self.failures = 0
        self.last_error: Exception | None = None

    @property
    def model_hash(self) -> str:
        """Hash of the model behind."""
        return self._scorer.model_hash

    def score(self, texts: Sequence[str], rows: IntArray) -> FloatArray:
        """See `RelevanceScorer.score`."""
        rows = np.asarray(rows, np.int64)
        nothing = np.where(rows < 0, 0.0, np.nan)
        try:
            return self._scorer.score(texts, rows)
        except (ScorerUnavailableError, ScorerMismatchError) as error:
            if not self._live:
                raise
            self._note(error)
            return nothing
        except ScoreError as error:
            self._note(error)
        if len(texts) == 1:
            return nothing
        for i, text in enumerate(texts):
            try:
                nothing[i] = self._scorer.score([text], rows[i : i + 1])[0]
            except ScoreError as error:
                self._note(error)
            except (ScorerUnavailableError, ScorerMismatchError) as error:
                if not self._live:
                    raise
                self._note(error)
                break
        return nothing

    def _note(self, error: Exception) -> None:
        self.failures += 1
        self.last_error = error
