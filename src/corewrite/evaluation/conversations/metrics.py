"""Metrics of a ranking with one relevant passage."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from corewrite.domain.ndcg import DEPTH, ndcg10

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def reciprocal_rank(ranks: IntArray) -> FloatArray:
    """1 / rank, whatever the depth; 0 where it is not found."""
    return np.divide(1.0, ranks, out=np.zeros(len(ranks)), where=ranks > 0)


def ndcg_at_10(ranks: IntArray) -> FloatArray:
    """nDCG@10 of the one relevant passage."""
    return ndcg10((ranks[:, None] == np.arange(1, DEPTH + 1)).astype(np.float64), 1.0)


def recall_at_10(ranks: IntArray) -> FloatArray:
    """Whether it is among the first ten."""
    return ((ranks > 0) & (ranks <= DEPTH)).astype(np.float64)


METRICS: Mapping[str, Callable[[IntArray], FloatArray]] = {
    "mrr": reciprocal_rank,
    "ndcg@10": ndcg_at_10,
    "recall@10": recall_at_10,
}
"""By name: from the rank of the relevant passage of each turn, int64 [turns], 0 where it is not found, to float64 [turns]."""
