"""nDCG@10 with linear gains (Järvelin & Kekäläinen 2002): the one kernel of the judge, of tuning and of the simulated truth.

They differ only in the ideal, which is an argument: ten documents of the highest grade (judge: one scale for all policies and
weeks, and linear in the grades), the request's own candidates (tuning), or the whole catalogue (simulated truth).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Gains = npt.NDArray[np.number[Any]]

DEPTH = 10
DISCOUNT = 1.0 / np.log2(np.arange(DEPTH) + 2.0)
"""Weight of each of the first ten ranks, float64 [10]."""


def dcg10(gains: Gains) -> FloatArray:
    """Discounted cumulative gain of ranked lists: the sum of gain / log2(rank + 1) over the first ten ranks.

    Args:
        gains: Gain of each document, best rank first, [..., documents]; 0 for padding. Any number of documents.

    Returns:
        float64 [...].
    """
    top = gains[..., :DEPTH]
    return np.asarray(top @ DISCOUNT[: top.shape[-1]])


def perfect_dcg10(highest: float) -> float:
    """`dcg10` of ten documents of the highest grade: the ideal that depends on nothing."""
    return float(highest * DISCOUNT.sum())


def ideal_dcg10(gains: Gains) -> FloatArray:
    """The largest `dcg10` that any order of the documents has.

    Args:
        gains: Gain of each document, in any order, [..., documents]; 0 for padding and for repetitions.

    Returns:
        float64 [...].
    """
    return dcg10(-np.sort(-gains, axis=-1)[..., :DEPTH])


def ndcg10(gains: Gains, ideal: FloatArray | float) -> FloatArray:
    """nDCG@10 of ranked lists.

    Args:
        gains: As in `dcg10`.
        ideal: DCG of the ideal ranking, broadcastable to [...].

    Returns:
        float64 [...]; 0 where the ideal is 0, that is, where nothing is relevant.
    """
    dcg = dcg10(gains)
    return np.asarray(np.divide(dcg, ideal, out=np.zeros(dcg.shape), where=np.asarray(ideal) > 0))
