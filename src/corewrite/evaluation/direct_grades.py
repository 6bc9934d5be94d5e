"""Raters' direct grades of the documents in which candidate, champion and no rewriter differ."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corewrite.domain import Query
from corewrite.relevance import Judge
from corewrite.relevance.pair_sample import Contrast, PairSample, PairsToGrade, Raters, choose_pairs
from corewrite.relevance.protocol import calibration_error

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_TO_CHAMPION, _TO_OTHERS = 0.7, 0.3
"""How the pairs are shared out: the decision is about the champion; the other bars are usually far."""


@dataclass(frozen=True)
class GradingTask:
    """What raters are asked in a comparison.

    Attributes:
        raters: Whom.
        pairs: How many pairs of a search and a document.
        seed: Of their choice.
    """

    raters: Raters
    pairs: int
    seed: int

    def graded(
        self,
        search_ids: Sequence[str],
        queries: Sequence[Query],
        candidate: IntArray,
        champion: IntArray,
        others: Sequence[IntArray],
    ) -> "GradedPairs | None":
        """Choose the pairs and have them graded; None: nothing differs, or no grade came.

        Args:
            search_ids: Query ids of the searches in the log.
            queries: What was searched.
            candidate, champion: What they show, rows int64 [searches, 10].
            others: What else the candidate is compared with.
        """
        contrasts = [Contrast(candidate, champion, _TO_CHAMPION)]
        contrasts += [Contrast(candidate, other, _TO_OTHERS / len(others)) for other in others]
        sample = choose_pairs(contrasts, self.pairs, seed=self.seed)
        if not len(sample):
            return None
        places = sample.searches.tolist()
        ids, asked = [search_ids[i] for i in places], [queries[i] for i in places]
        pairs = PairsToGrade(ids, asked, sample.rows, sample.probability)
        given = np.asarray(self.raters.grade(pairs), np.float64)
        return None if np.isnan(given).all() else GradedPairs(sample, pairs, given)


@dataclass(frozen=True, eq=False)
class GradedPairs:
    """Pairs and their grades.

    Attributes:
        sample: How they were chosen.
        pairs: What raters saw.
        given: Their grades, float64 [pairs]; NaN where there is none.
    """

    sample: PairSample
    pairs: PairsToGrade
    given: FloatArray

    def corrections(self, judge: Judge, systems: Sequence[IntArray]) -> list[FloatArray]:
        """What to add to each system's nDCG@10 under a judge fitted without these grades, float64 [searches] each."""
        judged = self._judged(judge)
        return [self.sample.corrections(self.given, judged, rows) for rows in systems]

    def calibration_error(self, judge: Judge) -> float:
        """How far the judge's grades of these pairs are from the raters', see `relevance.protocol.calibration_error`."""
        graded = ~np.isnan(self.given)
        return calibration_error(self._judged(judge)[graded], self.given[graded])

    def _judged(self, judge: Judge) -> FloatArray:
        return judge.grade(self.pairs.queries, self.pairs.rows[:, None])[:, 0]
