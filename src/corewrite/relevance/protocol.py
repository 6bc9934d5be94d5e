"""Protocols of relevance models and judges, and raters' labels."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from corewrite.domain import Query
from corewrite.domain.ndcg import DEPTH, ndcg10, perfect_dcg10

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
HIGHEST_GRADE = 3
"""The highest grade that a rater gives; the lowest is 0."""


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


@dataclass(frozen=True)
class LeftOutLabels:
    """Rated results that cannot be used.

    Attributes:
        count: How many.
        of: Of how many in the file.
        unknown_documents: Of those, results whose document is not there any more.
        incomplete: Those that lack a query, a document or a grade.
        example: The first of them, in words.
    """

    count: int
    of: int
    unknown_documents: int
    incomplete: int
    example: str

    def __str__(self) -> str:
        reasons = [
            f"{n} {what}"
            for n, what in (
                (self.unknown_documents, "of documents that are not there"),
                (self.incomplete, "without a query, a document or a grade"),
            )
            if n
        ]
        return f"{self.count} of {self.of} rated results are left out, {' and '.join(reasons)}, such as {self.example}"


@dataclass(frozen=True, eq=False)
class Labels:
    """Raters' grades, one element each.

    Attributes:
        queries: What was searched, with its context.
        rows: Catalogue row graded, int64.
        grades: Grade 0-3 given, float64, noisy.
        left_out: What of a file is not among them; None: nothing.
    """

    queries: Sequence[Query]
    rows: IntArray
    grades: FloatArray
    left_out: LeftOutLabels | None = None

    def counts(self) -> dict[str, Any]:
        """How many are used, and what is left out."""
        return {"used": len(self.rows), "left_out": None if self.left_out is None else asdict(self.left_out)}


@dataclass(frozen=True)
class JudgeReport:
    """How well the judge agrees with raters on held-out queries.

    Attributes:
        rank_correlation: Spearman's rho of predicted and given grades.
        mean_absolute_error: In grades.
        labels: Labels held out.
        calibration_error: See `calibration_error`, in grades; None: not measured.
    """

    rank_correlation: float
    mean_absolute_error: float
    labels: int
    calibration_error: float | None = None


def calibration_error(predicted: FloatArray, given: FloatArray, bins: int = 10) -> float:
    """Expected calibration error of grades (Naeini et al. 2015): over equally large bins of the predicted grade, the mean
    absolute difference between the mean predicted and the mean given grade.

    Args:
        predicted: By the judge, [labels].
        given: By raters, [labels].
        bins: How many; fewer where there are fewer labels.
    """
    order = np.argsort(predicted, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return float(sum(len(part) * abs(predicted[part].mean() - given[part].mean()) for part in parts) / len(predicted))


class Judge(Protocol):
    """Grades documents for what (query, context) most likely means, never for a rewrite; training never sees it.

    A judge of your own derives from this class: it brings `fit` and `grade`, and has `ndcg10` from here.
    """

    @abstractmethod
    def fit(self, labels: Labels, *, seed: int) -> JudgeReport:
        """Learn from raters' grades, or only compare itself with them; called once, before any `grade`.

        Raises:
            ValueError: the labels are too few.
        """
        ...

    @abstractmethod
    def grade(self, queries: Sequence[Query], rows: IntArray) -> FloatArray:
        """Grades in [0, 3], float64 [queries, documents]; the same for the same query and document whatever stands beside them.

        Args:
            queries: What was searched, with the context.
            rows: Documents, int64 [queries, documents]; -1 pads, whose grade is 0.
        """
        ...

    def ndcg10(self, queries: Sequence[Query], lists: Sequence[IntArray]) -> list[FloatArray]:
        """nDCG@10 of several systems' ranked lists under this judge, linear gains, float64 [queries] each.

        The ideal is ten documents of the highest grade, whatever is compared: one scale for all policies and weeks, and linear
        in the grades, so that direct grades can correct its mean without bias (see `PairSample`). An ideal made of the lists
        compared rises with every better policy, which hides gains.

        Args:
            queries: What was searched.
            lists: Ranked rows of each system, [queries, >= 10], -1 pads.
        """
        grades = self.grade(queries, np.concatenate([rows[:, :DEPTH] for rows in lists], 1))
        starts = np.cumsum([min(DEPTH, rows.shape[1]) for rows in lists])[:-1]
        return [ndcg10(shown, perfect_dcg10(HIGHEST_GRADE)) for shown in np.split(grades, starts, axis=1)]
