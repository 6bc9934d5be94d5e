"""Direct grades where systems differ, and what they say that the judge is wrong by.

A judge's mean is biased where it does not know what makes one system better than the other. Raters who grade a few of the very
documents in which the systems differ correct it: the mean of the judged differences over all searches plus the mean of (graded
- judged) over the graded pairs, each over the probability with which it was chosen (prediction-powered inference, Angelopoulos
et al. 2023; the second term is that of Horvitz & Thompson 1952). The sum has no bias, however wrong the judge is: a better
judge makes it more exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from corewrite.domain import Query
from corewrite.domain.ndcg import DEPTH, DISCOUNT, perfect_dcg10
from corewrite.relevance.protocol import HIGHEST_GRADE

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Contrast:
    """Two systems whose difference is to be known.

    Attributes:
        first, second: Ranked rows of each, int64 [searches, 10], -1 pads.
        share: Of the pairs that are chosen for this difference, above 0.
    """

    first: IntArray
    second: IntArray
    share: float


@dataclass(frozen=True, eq=False)
class PairSample:
    """Pairs of a search and a document, chosen at random for raters.

    Attributes:
        searches: Place of each pair's search, int64 [pairs].
        rows: Catalogue row of its document, int64 [pairs].
        probability: With which it was chosen, float64 [pairs], in (0, 1].
    """

    searches: IntArray
    rows: IntArray
    probability: FloatArray

    def __len__(self) -> int:
        return len(self.rows)

    def corrections(self, given: FloatArray, judged: FloatArray, lists: IntArray) -> FloatArray:
        """What to add to the judge's nDCG@10 of each search of a system, float64 [searches]; only means of it say anything.

        Where some pairs have no grade, the others stand for them.

        Args:
            given: Raters' grade of each pair, [pairs]; NaN where there is none.
            judged: The judge's, fitted without these grades, [pairs].
            lists: What the system shows, int64 [searches, 10], -1 pads.

        Raises:
            ValueError: no pair has a grade.
        """
        graded = ~np.isnan(given)
        if not graded.any():
            raise ValueError("no pair has a grade")
        weight = (lists[self.searches, :DEPTH] == self.rows[:, None]) @ DISCOUNT[: min(DEPTH, lists.shape[1])]
        error = np.where(graded, given - judged, 0.0) / (self.probability * graded.mean())
        found = np.bincount(self.searches, weight * error, minlength=len(lists))
        return np.asarray(found / perfect_dcg10(HIGHEST_GRADE))


def choose_pairs(contrasts: Sequence[Contrast], n: int, *, seed: int) -> PairSample:
    """About `n` pairs, the more probably the more their grade moves the differences.

    The probability of a pair is proportional to the difference of its document's discounts in the two lists, which nearly
    minimises the variance where the judge is about as wrong everywhere (Cochran 1977, Sampling Techniques, 9A). What both
    systems show at the same rank is never chosen for their difference. The choice is systematic, in random order (Madow 1949),
    so that there are `n` of them, or all that differ where those are fewer.

    Args:
        contrasts: Differences to be known, on the same searches; a pair may serve several.
        n: How many.
        seed: Of the choice.
    """
    searches, rows, importance = _importance(contrasts)
    if len(rows) == 0:
        return PairSample(searches, rows, np.empty(0))
    probability = _capped(importance, n)
    order = np.random.default_rng([seed, 83]).permutation(len(rows))
    start = np.random.default_rng([seed, 84]).random()
    # Rounding must not let a sum of 2,000.0000001 choose one more.
    steps = np.floor(np.round(np.cumsum(probability[order]), 9) + start)
    chosen = np.sort(order[np.diff(steps, prepend=np.floor(start)) > 0])
    return PairSample(searches[chosen], rows[chosen], probability[chosen])


def _importance(contrasts: Sequence[Contrast]) -> tuple[IntArray, IntArray, FloatArray]:
    """Search, row and importance of every pair in which a contrast's systems differ; importance sums to 1."""
    found: list[tuple[IntArray, IntArray, FloatArray]] = []
    for contrast in contrasts:
        sides = [(rows[:, :DEPTH], sign) for rows, sign in ((contrast.first, 1.0), (contrast.second, -1.0))]
        place = np.concatenate([np.repeat(np.arange(len(rows)), rows.shape[1]) for rows, _ in sides])
        row = np.concatenate([rows.ravel() for rows, _ in sides])
        weight = np.concatenate([sign * np.tile(DISCOUNT[: rows.shape[1]], len(rows)) for rows, sign in sides])
        at, owner = _distinct(place[row >= 0], row[row >= 0])
        moved = np.abs(np.bincount(owner, weight[row >= 0], minlength=len(at[0])))
        if moved.sum() > 0:
            found.append((*at, contrast.share * moved / moved.sum()))
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    place, row, weight = (np.concatenate(parts) for parts in zip(*found, strict=True))
    (searches, rows), owner = _distinct(place, row)
    importance = np.bincount(owner, weight, minlength=len(rows))
    moving = importance > 1e-12 * importance.max()
    return searches[moving], rows[moving], importance[moving] / importance[moving].sum()


def _distinct(place: IntArray, row: IntArray) -> tuple[tuple[IntArray, IntArray], IntArray]:
    """Distinct pairs in order, and which of them each is."""
    span = int(row.max(initial=0)) + 1
    keys, owner = np.unique(place * span + row, return_inverse=True)
    return (keys // span, keys % span), owner


def _capped(importance: FloatArray, n: int) -> FloatArray:
    """Probabilities proportional to importance that sum to `n`; where one would be above 1, the rest share what is left."""
    if n >= len(importance):
        return np.ones(len(importance))
    certain = np.zeros(len(importance), np.bool_)
    while True:
        free = importance[~certain].sum()
        probability = np.where(certain, 1.0, importance * (n - certain.sum()) / free)
        if not (probability > 1.0).any():
            return probability
        certain |= probability >= 1.0


@dataclass(frozen=True, eq=False)
class PairsToGrade:
    """What raters are asked, one element a pair.

    Attributes:
        search_ids: Query id of the search in the log.
        queries: What was searched, with its context.
        rows: Catalogue row of the document, int64.
        probability: With which the pair was chosen, float64.
    """

    search_ids: Sequence[str]
    queries: Sequence[Query]
    rows: IntArray
    probability: FloatArray

    def __len__(self) -> int:
        return len(self.rows)


class Raters(Protocol):
    """Whoever grades pairs: a team's own raters, by way of files, or those of the simulated platform."""

    def grade(self, pairs: PairsToGrade) -> FloatArray:
        """Grades 0-3 of the pairs, float64 [pairs]; NaN where there is none."""
        ...
