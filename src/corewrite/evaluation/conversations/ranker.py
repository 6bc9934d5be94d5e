"""Scores of passages, and the one order that they give."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from corewrite.relevance.backends.calibration import ScoreCalibration

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class PassageRanker(Protocol):
    """Scores a pool of passages by a text."""

    @property
    def name(self) -> str:
        """As tables and files have it."""
        ...

    @property
    def calibration(self) -> ScoreCalibration:
        """Makes a probability of a score, for fusion."""
        ...

    def scores(self, texts: Sequence[str]) -> FloatArray:
        """Scores, float64 [texts, passages]; -inf where a passage is not found at all."""
        ...


def tie_order(ids: Sequence[str]) -> IntArray:
    """Place of each id among all by which ties are broken, [passages]: the larger id is first, as `trec_eval` has it."""
    order = sorted(range(len(ids)), key=lambda row: ids[row].encode())
    place = np.empty(len(ids), np.int64)
    place[order] = np.arange(len(ids), 0, -1)
    return place


def rank_of(scores: FloatArray, row: int, ties: IntArray) -> int:
    """Rank of a passage, 1 is best; 0 where it is not found (its score is -inf).

    Args:
        scores: Of all passages, [passages]; -inf for those that are no candidates.
        row: Of the passage.
        ties: See `tie_order`.
    """
    own = scores[row]
    if own == -np.inf:
        return 0
    return 1 + int((scores > own).sum()) + int(((scores == own) & (ties < ties[row])).sum())


def best_rows(scores: FloatArray, ties: IntArray, depth: int) -> IntArray:
    """Rows of the first `depth` passages that are found, best first."""
    order = np.lexsort((ties, -scores))[:depth]
    return np.asarray(order[scores[order] > -np.inf], np.int64)
