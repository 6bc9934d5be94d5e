"""The kernel of nDCG against ir-measures, an independent implementation (trec_eval's)."""

import ir_measures
import numpy as np
import pytest
from ir_measures import nDCG

from corewrite.domain.ndcg import dcg10, ideal_dcg10, ndcg10

CASES = 200


def by_ir_measures(grades, padded):
    """nDCG@10 of rows [lists, documents] ranked from left to right, and of the grades of documents that no list shows."""
    shown, missed = grades
    qrels, run = {}, {}
    for i in range(len(shown)):
        qrels[f"q{i}"] = {f"d{k}": int(g) for k, g in enumerate(shown[i]) if not padded[i, k]}
        qrels[f"q{i}"] |= {f"missed{k}": int(g) for k, g in enumerate(missed[i])}
        run[f"q{i}"] = {f"d{k}": 1.0 / (k + 1) for k in range(shown.shape[1]) if not padded[i, k]}
    found = {m.query_id: m.value for m in ir_measures.iter_calc([nDCG(dcg="log2") @ 10], qrels, run)}
    return [found[f"q{i}"] for i in range(len(shown))]


@pytest.mark.parametrize("documents", [1, 3, 9, 10, 11, 40])
@pytest.mark.parametrize("missed", [0, 1, 25])
def test_the_kernel_equals_ir_measures(documents, missed):
    """Graded lists with equal grades, of fewer and more than ten documents, some padded, some without a relevant document."""
    rng = np.random.default_rng([documents, missed])
    shown = rng.choice([0, 0, 0, 1, 2, 3], (CASES, documents))
    unseen = rng.choice([0, 0, 1, 3], (CASES, missed))
    shown[:10], unseen[:10] = 0, 0
    padded = np.arange(documents) >= rng.integers(1, documents + 1, CASES)[:, None]
    shown[padded] = 0
    ideal = ideal_dcg10(np.concatenate([shown, unseen], 1))
    ours = ndcg10(shown, ideal)
    assert ours.tolist() == pytest.approx(by_ir_measures((shown, unseen), padded), abs=1e-12)
    assert (ours[:10] == 0).all() and (ours > 0).any()


def test_gains_need_not_be_whole_and_leading_axes_are_free():
    rng = np.random.default_rng(0)
    gains = rng.uniform(0, 3, (4, 5, 12))
    ideal = ideal_dcg10(gains[0])
    ours = ndcg10(gains, ideal)
    assert ours.shape == (4, 5)
    for i in range(4):
        for j in range(5):
            assert ours[i, j] == pytest.approx(dcg10(gains[i, j]) / dcg10(np.sort(gains[0, j])[::-1]))
