"""BM25 over passages (Robertson & Zaragoza 2009), by bm25s."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from corewrite.domain import words
from corewrite.domain.extras import from_extra
from corewrite.relevance.backends.calibration import ScoreCalibration

FloatArray = npt.NDArray[np.float64]

K1, B = 0.9, 0.4
"""Anserini's, found best on newswire and passages."""
BM25_CALIBRATION = ScoreCalibration(slope=0.42, offset=-6.5)
"""Fitted (Platt 1999) on the human rewrites of CAsT 2021 and iKAT 2023: 583 turns after the first, 859 passages."""


class Bm25Ranker:
    """BM25 with Lucene's idf (a `PassageRanker`); what has no word of the text is not found.

    Words are `domain.words`, without the English stop words of scikit-learn; a word that the text repeats counts as often.

    Args:
        passages: Texts of the pool.
        k1: Saturation of a word's count.
        b: Weight of a passage's length.
        calibration: Makes a probability of a score.

    Raises:
        MissingExtraError: bm25s or scikit-learn is not installed.
    """

    name = "bm25"

    def __init__(
        self,
        passages: Sequence[str],
        *,
        k1: float = K1,
        b: float = B,
        calibration: ScoreCalibration = BM25_CALIBRATION,
    ) -> None:
        with from_extra("eval", "BM25 over passages is bm25s, its stop words are scikit-learn's"):
            import bm25s
            from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
        self._stop_words = ENGLISH_STOP_WORDS
        self._passages = len(passages)
        self._calibration = calibration
        said = [self._terms(text) for text in passages]
        # bm25s cannot index nothing: passages of stop words alone are found by nothing.
        self._model: Any = None
        if any(said):
            self._model = bm25s.BM25(k1=k1, b=b, method="lucene")
            self._model.index(said, show_progress=False)
        self._known = frozenset(term for terms in said for term in terms)

    @property
    def calibration(self) -> ScoreCalibration:
        """See `PassageRanker.calibration`."""
        return self._calibration

    def scores(self, texts: Sequence[str]) -> FloatArray:
        """See `PassageRanker.scores`."""
        found = np.full((len(texts), self._passages), -np.inf)
        for row, text in zip(found, texts, strict=True):
            if terms := [term for term in self._terms(text) if term in self._known]:
                scores = self._model.get_scores(terms)
                row[:] = np.where(scores > 0, scores, -np.inf)
        return found

    def _terms(self, text: str) -> list[str]:
        return [word for word in words(text) if word not in self._stop_words]
