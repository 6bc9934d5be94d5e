"""What the rest of the system asks of a relevance model and of a judge."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from corewrite.domain import Query

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class RelevanceScorer(Protocol):
    """A relevance model bound to one catalogue."""

    @property
    def model_hash(self) -> str:
        """Content hash of the weights: the key of every cached score."""
        ...

    def score(self, texts: Sequence[str], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Probability that the document satisfies someone who typed the text.

        Args:
            texts: Queries or rewrites, length [texts].
            rows: Catalogue rows to score under each text, int64 [texts, documents]; -1 pads.

        Returns:
            Calibrated probabilities in (0, 1), float64 [texts, documents]; 0.0 where `rows` is -1. A score that
            could not be computed is NaN, never a guess.
        """
        ...


class DenseRelevanceScorer(RelevanceScorer, Protocol):
    """A relevance scorer whose score is that of two vectors, so that it can also recall."""

    @property
    def document_vectors(self) -> npt.NDArray[np.float32]:
        """Unit vector of every document of the catalogue, float32 [documents, dims]."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vector of each text, float32 [texts, dims]; all zero where nothing of the text is known."""
        ...


@dataclass(frozen=True, eq=False)
class Labels:
    """Raters' grades, one element each.

    Attributes:
        queries: What was searched, with its context.
        rows: Catalogue row graded, int64.
        grades: Grade 0-3 given, float64, noisy.
    """

    queries: Sequence[Query]
    rows: IntArray
    grades: FloatArray


@dataclass(frozen=True)
class JudgeReport:
    """How well the judge agrees with raters on held-out queries.

    Attributes:
        rank_correlation: Spearman's rho of predicted and given grades.
        mean_absolute_error: In grades.
        labels: Labels held out.
    """

    rank_correlation: float
    mean_absolute_error: float
    labels: int
