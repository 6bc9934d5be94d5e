"""Quality of many rankings at once, from scores and grades."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from corewrite.domain import ndcg

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

Quality = Callable[[FloatArray, FloatArray], FloatArray]
"""Quality of rankings, [..., requests], from log scores [..., requests, documents] (-inf pads) and relevance."""


def ndcg10(log_score: FloatArray, relevance: FloatArray) -> FloatArray:
    """nDCG@10 with linear gains; the ideal ranks the request's own documents (Järvelin & Kekäläinen 2002).

    Args:
        log_score: [..., requests, documents], -inf for documents that are not there.
        relevance: [requests, documents], 0 for documents that are not there.

    Returns:
        [..., requests]; 0 for a request without a relevant document.
    """
    top = _top(log_score, min(ndcg.DEPTH, relevance.shape[-1]))
    found = np.take_along_axis(np.broadcast_to(relevance, log_score.shape), top, -1)
    return ndcg.ndcg10(found, ndcg.ideal_dcg10(relevance))


def reciprocal_rank(log_score: FloatArray, relevance: FloatArray) -> FloatArray:
    """One over the rank of the first relevant document, 0 where there is none; shapes as in `ndcg10`."""
    hits = np.where(relevance > 0, log_score, -np.inf)
    column = hits.argmax(-1)[..., None]
    best = np.take_along_axis(hits, column, -1)
    earlier = np.arange(log_score.shape[-1]) < column
    ahead = ((log_score > best) | ((log_score == best) & earlier)).sum(-1)
    return np.where(best[..., 0] > -np.inf, 1 / (ahead + 1.0), 0.0)


def _top(log_score: FloatArray, depth: int) -> IntArray:
    """Columns of the best documents, best first, equal scores in the order of the columns; [..., depth]."""
    order = np.argsort(-log_score, axis=-1)[..., : depth + 1]
    found = np.take_along_axis(log_score, order, -1)
    # A stable sort takes several times as long; only rows with equal scores around their head need it.
    tied = (found[..., 1:] == found[..., :-1]).any(-1)
    order[tied] = np.argsort(-log_score[tied], axis=-1, kind="stable")[..., : depth + 1]
    return order[..., :depth]
