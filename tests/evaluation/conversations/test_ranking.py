"""BM25, the order of a ranking and its metrics, against the formula and against ir-measures."""

from collections import Counter

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, R, nDCG

from corewrite.domain import words
from corewrite.evaluation.conversations.bm25 import Bm25Ranker
from corewrite.evaluation.conversations.metrics import METRICS
from corewrite.evaluation.conversations.ranker import best_rows, rank_of, tie_order

TEXTS = ["the cat sat on a mat", "cat cat dog", "dog mat mat mat bird", "the of and", "bird"]


def test_bm25_is_the_formula():
    pytest.importorskip("bm25s")
    stop = {"the", "on", "a", "of", "and"}
    said = [Counter(w for w in words(t) if w not in stop) for t in TEXTS]
    mean = sum(c.total() for c in said) / len(said)
    query = ["cat", "mat", "mat", "unheard"]
    want = np.zeros(len(TEXTS))
    for word in query:
        n = sum(word in c for c in said)
        idf = np.log(1 + (len(TEXTS) - n + 0.5) / (n + 0.5))
        for row, c in enumerate(said):
            if c[word]:
                want[row] += idf * c[word] / (c[word] + 0.9 * (1 - 0.4 + 0.4 * c.total() / mean))
    (found,) = Bm25Ranker(TEXTS).scores(["The CAT, a mat -- mat unheard"])
    assert np.allclose(np.where(want > 0, want, -np.inf), found, atol=1e-6)
    assert np.isneginf(Bm25Ranker(TEXTS).scores(["", "the", "unheard"])).all()
    assert np.isneginf(Bm25Ranker(["the", "of"]).scores(["cat"])).all()


def test_ranks_and_metrics_are_those_of_trec_eval():
    rng = np.random.default_rng(0)
    ids = [f"d{i}" for i in range(40)]  # d10 before d9 as text
    ties, ranks, run, qrels = tie_order(ids), [], [], []
    for q in range(200):
        scores = rng.integers(0, 12, len(ids)).astype(float)  # many ties
        scores[rng.random(len(ids)) < 0.3] = -np.inf
        own = int(rng.integers(len(ids)))
        ranks.append(rank_of(scores, own, ties))
        qrels.append(ir_measures.Qrel(str(q), ids[own], 1))
        rows = best_rows(scores, ties, 40)
        assert ranks[-1] == (rows.tolist().index(own) + 1 if own in rows else 0)
        run += [ir_measures.ScoredDoc(str(q), ids[row], scores[row]) for row in rows[rng.permutation(len(rows))]]
    measures = {"mrr": RR, "ndcg@10": nDCG @ 10, "recall@10": R @ 10}
    want = ir_measures.calc_aggregate(list(measures.values()), qrels, run)
    assert METRICS.keys() == measures.keys()
    for name, metric in METRICS.items():
        assert metric(np.array(ranks)).mean() == pytest.approx(want[measures[name]], abs=1e-9), name


def test_the_first_rows_are_the_found_ones_only():
    scores = np.array([1.0, -np.inf, 3.0, 3.0])
    assert best_rows(scores, tie_order(["a", "b", "c", "d"]), 10).tolist() == [3, 2, 0]
    assert best_rows(scores, tie_order(["a", "b", "d", "c"]), 1).tolist() == [2]
