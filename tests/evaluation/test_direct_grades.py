"""From the lists of an evaluation to pairs, grades and corrected means."""

import numpy as np
import pytest

from corewrite.domain import Query
from corewrite.domain.ndcg import dcg10, perfect_dcg10
from corewrite.evaluation.direct_grades import GradingTask
from corewrite.relevance import Judge

N, DOCUMENTS = 200, 60


class Wrong(Judge):
    """Likes even rows."""

    def fit(self, labels, *, seed):
        raise NotImplementedError

    def grade(self, queries, rows):
        return np.where(rows < 0, 0.0, np.where(rows % 2, 0.5, 2.5))


class Right:
    """Raters who know the truth: grades by search and row."""

    def __init__(self, truth):
        self.truth, self.asked = truth, None

    def grade(self, pairs):
        self.asked = pairs
        return np.array([self.truth[int(s[1:]), r] for s, r in zip(pairs.search_ids, pairs.rows.tolist(), strict=True)], float)


@pytest.fixture(scope="module")
def lists():
    rng = np.random.default_rng(0)
    return [np.stack([rng.permutation(DOCUMENTS)[:10] for _ in range(N)]) for _ in range(3)]


def test_means_are_the_graded_truth_when_all_that_differs_is_graded(lists):
    truth = np.random.default_rng(1).integers(0, 4, (N, DOCUMENTS))
    raters, judge = Right(truth), Wrong()
    queries = [Query(f"q{i}") for i in range(N)]
    graded = GradingTask(raters, 10**6, 3).graded([f"s{i}" for i in range(N)], queries, lists[0], lists[1], [lists[2]])
    assert raters.asked.queries[0] == queries[int(raters.asked.search_ids[0][1:])]
    judged = judge.ndcg10(queries, lists)
    values = [(a + b).mean() for a, b in zip(judged, graded.corrections(judge, lists), strict=True)]
    wanted = [dcg10(np.take_along_axis(truth, rows, 1)).mean() / perfect_dcg10(3) for rows in lists]
    for k in (1, 2):  # what stands at the same rank in both is not graded, and cancels
        assert values[0] - values[k] == pytest.approx(wanted[0] - wanted[k])
    assert judged[0].mean() - judged[1].mean() != pytest.approx(wanted[0] - wanted[1], abs=1e-3)
    assert graded.calibration_error(judge) == pytest.approx(1.0, abs=0.1)


def test_nothing_that_differs_and_no_grade_leave_the_judge_alone(lists):
    queries, ids = [Query("q")] * N, ["s"] * N
    assert GradingTask(Right(None), 50, 0).graded(ids, queries, lists[0], lists[0], [lists[0]]) is None

    class Absent:
        def grade(self, pairs):
            return np.full(len(pairs), np.nan)

    assert GradingTask(Absent(), 50, 0).graded(ids, queries, lists[0], lists[1], []) is None
