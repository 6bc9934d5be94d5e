"""What every engine answers alike, against BM25 and inner products by hand."""

from itertools import pairwise

import numpy as np
import pytest

from corewrite.search import Cascade
from corewrite.search.engines import (
    EmbeddedEngine,
    OpenSearchEngine,
    QdrantEngine,
    RedisEngine,
    fill_opensearch,
    fill_qdrant,
    fill_redis,
)

TEXTS = ["red lion", "Moon, storm! moon", "", "never heard", "cat dog river night garden", "snow"]


def test_text_is_ranked_by_bm25(engine, word_scores):
    found = engine.search_text(TEXTS, 10)
    assert found.shape == (6, 10) and found.dtype == np.int64
    assert (found[[2, 3]] == -1).all()
    assert found.tolist() == [engine.search_text([text], 10)[0].tolist() for text in TEXTS]
    for text, rows in zip(["red lion", "moon storm", "", "", "cat dog river night garden", "snow"], found, strict=True):
        fields = (1.0, 1.0) if isinstance(engine, EmbeddedEngine) else None  # the others have one field
        scores = word_scores(text, 0.5 if isinstance(engine, RedisEngine) else 0.75, fields)
        rows = rows[rows >= 0]
        best = np.sort(scores[scores > 0])[::-1][:10]
        assert scores[rows] == pytest.approx(best, rel=1e-5)  # ties may be cut differently, scores may not differ
        assert len(set(rows)) == len(rows) == len(best)
        for left, right in pairwise(rows):
            assert scores[left] > scores[right] * (1 + 1e-9) or left < right  # equal scores by row
    assert len(set(found[4].tolist())) == 10


def test_all_that_match_are_found_when_asked_for(engine, word_scores):
    rows = engine.search_text(["storm"], 40)[0]
    assert set(rows[rows >= 0]) == set(np.flatnonzero(word_scores("storm")))
    assert (rows[len(rows[rows >= 0]) :] == -1).all()


def test_vectors_are_ranked_by_inner_product(engine, vectors):
    asked = np.random.default_rng(3).normal(size=(70, 6)).astype(np.float32)
    asked[1] = 0
    found = engine.search_vector(asked, 7)
    wanted = np.argsort(-(asked.astype(float) @ vectors.T.astype(float)), axis=1)[:, :7]
    wanted[1] = -1
    assert found.tolist() == wanted.tolist()
    assert (engine.search_vector(asked[:1], 45)[0] >= 0).sum() == 40


def test_nothing_asked_nothing_found(engine):
    assert engine.search_text(["lion"], 0).shape == (1, 0)
    assert engine.search_vector(np.ones((2, 6), np.float32), 0).shape == (2, 0)
    assert engine.search_text([], 3).shape == (0, 3)
    assert engine.search_vector(np.ones((0, 6), np.float32), 3).shape == (0, 3)
    assert engine.score(np.ones((1, 6), np.float32), np.array([[-1, -1]])).tolist() == [[0.0, 0.0]]


def test_score_is_exact_for_every_document_named(engine, vectors):
    asked = np.random.default_rng(4).normal(size=(3, 6)).astype(np.float32)
    rows = np.array([[39, 0, -1, 0], [5, -1, -1, 7], [-1, 0, 1, 2]])
    scores = engine.score(asked, rows)
    wanted = np.einsum("nd,nmd->nm", asked.astype(float), vectors.astype(float)[np.maximum(rows, 0)])
    assert scores == pytest.approx(np.where(rows < 0, 0.0, wanted), rel=1e-12, abs=1e-15)
    assert (scores[rows < 0] == 0).all()
    everything = engine.score(asked, np.tile(np.arange(40), (3, 1)))
    assert everything == pytest.approx(asked.astype(float) @ vectors.T.astype(float), rel=1e-12)


def test_score_refuses_what_does_not_fit(engine):
    one = np.ones((1, 6), np.float32)
    for rows in (np.array([[40]]), np.array([0]), np.array([[0], [1]])):
        with pytest.raises(ValueError, match="row"):
            engine.score(one, rows)
    with pytest.raises(ValueError, match="dimensions"):
        engine.score(one[:, :5], np.array([[0]]))


@pytest.mark.parametrize("name", ["qdrant", "opensearch", "redis"])
def test_the_cascade_answers_alike(name, request, deployment, queries):
    """The first documents of the whole cascade; recall is asked for all, so that no tie is cut."""
    cascade, whole = deployment.cascade, deployment.catalogue
    recall = deployment.spec.recall.model_copy(update={"original_candidates": 1_200})
    spec = deployment.spec.model_copy(update={"recall": recall})
    vectors = cascade.signals["dense"].document_vectors
    if name == "qdrant":
        client = request.getfixturevalue("qdrant")
        fill_qdrant(client, "videos", whole, vectors)
        engine = QdrantEngine(client, "videos", whole)
    elif name == "redis":
        client = request.getfixturevalue("redis")
        fill_redis(client, "videos", whole, vectors, algorithm="FLAT")
        engine = RedisEngine(client, "videos", whole)
    else:
        _, client = request.getfixturevalue("opensearch")
        fill_opensearch(client, "videos", whole, vectors)
        engine = OpenSearchEngine(client, "videos", whole)
    asked = [*queries[:3], queries[-2]]
    answers = [
        Cascade(whole, e, cascade.signals, cascade.signals["dense"], spec).search(asked, [*asked[1:], None])
        for e in (EmbeddedEngine(whole, vectors), engine)
    ]
    assert answers[0].rows.tolist() == answers[1].rows.tolist() and (answers[0].rows[:3] >= 0).all()
    assert answers[0].scores.tobytes() == answers[1].scores.tobytes()
