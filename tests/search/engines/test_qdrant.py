"""What is Qdrant's own: ids, missing documents, and that no score comes from a search."""

import numpy as np
import pytest

from corewrite.domain import Catalogue
from corewrite.search.engines import QdrantEngine, fill_qdrant, point_id
from corewrite.search.engines import qdrant as module
from corewrite.search.engines.port import EngineError

models = pytest.importorskip("qdrant_client").models


def test_scores_are_bm25_itself(qdrant, catalogue, vectors, word_scores):
    fill_qdrant(qdrant, "videos", catalogue, vectors)
    engine = QdrantEngine(qdrant, "videos", catalogue)
    points = qdrant.query_points("videos", engine._sparse({"red": 1.0, "lion": 1.0}), using="words", limit=40).points
    scores = {catalogue.rows_by_id[p.payload["id"]]: p.score for p in points}
    wanted = word_scores("red lion") * 2.2  # the k1 + 1 that Lucene leaves out
    assert scores == {row: pytest.approx(wanted[row], rel=1e-5) for row in np.flatnonzero(wanted)}


def test_a_missing_document_has_no_score_and_a_strange_one_no_place(qdrant, catalogue, vectors):
    fill_qdrant(qdrant, "videos", catalogue, vectors)
    qdrant.delete("videos", [point_id(catalogue.ids[3])])
    half = Catalogue(*(column[:20] for column in (
        catalogue.ids, catalogue.titles, catalogue.texts, catalogue.visual, catalogue.seconds, catalogue.prior
    )))  # fmt: skip
    engine = QdrantEngine(qdrant, "videos", half)
    scores = engine.score(vectors[:1], np.array([[2, 3, 4]]))
    assert np.isnan(scores).tolist() == [[False, True, False]]
    found = engine.search_vector(vectors[:1], 40)[0]
    assert set(found[found >= 0]) == set(range(20)) - {3}


def test_score_never_searches_and_fetches_each_document_once(qdrant, catalogue, vectors, monkeypatch):
    fill_qdrant(qdrant, "videos", catalogue, vectors)
    fetched = []

    class Spy:
        def retrieve(self, collection, ids, **more):
            fetched.extend(ids)
            return qdrant.retrieve(collection, ids, **more)

    monkeypatch.setattr("corewrite.search.engines.exact._FETCHED", 3)
    QdrantEngine(Spy(), "videos", catalogue).score(vectors[:2], np.array([[0, 1, 2, 3], [3, 2, -1, 9]]))
    assert sorted(fetched) == sorted(point_id(catalogue.ids[row]) for row in (0, 1, 2, 3, 9))


def test_a_collection_with_ids_of_its_own(qdrant, catalogue, vectors):
    qdrant.create_collection(
        "own", {"dense": models.VectorParams(size=6, distance=models.Distance.DOT)},
        sparse_vectors_config={"words": models.SparseVectorParams(modifier=models.Modifier.IDF)},
    )  # fmt: skip
    points = [
        models.PointStruct(id=100 + i, vector={"dense": v.tolist()}, payload={"id": catalogue.ids[i], "more": "x" * 99})
        for i, v in enumerate(vectors)
    ]
    qdrant.upsert("own", points)
    engine = QdrantEngine(qdrant, "own", catalogue, lambda doc_id: 100 + int(doc_id.split("/")[1].split(" ")[0]))
    assert engine.search_vector(vectors[:1], 40)[0].tolist() == np.argsort(-(vectors @ vectors[0])).tolist()
    assert engine.score(vectors[:1], np.array([[7]]))[0, 0] == pytest.approx(float(vectors[0].astype(float) @ vectors[7]))
    qdrant.clear_payload("own", [103])
    with pytest.raises(EngineError, match=r"point 103 of 'own' has no document id: keep it in the payload.*'id'"):
        engine.search_vector(vectors[3:4], 40)


def test_a_document_without_words_is_only_found_by_vector(qdrant, vectors):
    bare = Catalogue(("a", "b"), ("", "lion"), ("", ""), np.zeros((2, 1), np.float32), np.ones(2), np.ones(2))
    fill_qdrant(qdrant, "videos", bare, vectors[:2])
    engine = QdrantEngine(qdrant, "videos", bare)
    assert engine.search_text(["lion"], 2).tolist() == [[1, -1]]
    assert sorted(engine.search_vector(vectors[:1], 2)[0].tolist()) == [0, 1]


def test_words_that_share_a_dimension_do_not_break_a_document(qdrant, vectors, monkeypatch):
    monkeypatch.setattr(module, "sha256_text", lambda word: "0" * 64)
    bare = Catalogue(("a",), ("red lion",), ("",), np.zeros((1, 1), np.float32), np.ones(1), np.ones(1))
    fill_qdrant(qdrant, "videos", bare, vectors[:1])
    assert QdrantEngine(qdrant, "videos", bare).search_text(["lion red"], 1).tolist() == [[0]]


def test_filling_never_overwrites(qdrant, catalogue, vectors):
    fill_qdrant(qdrant, "videos", catalogue, vectors)
    with pytest.raises(ValueError, match="there already"):
        fill_qdrant(qdrant, "videos", catalogue, vectors)
    with pytest.raises(ValueError, match="39 vectors for 40"):
        fill_qdrant(qdrant, "other", catalogue, vectors[1:])
    assert qdrant.count("videos").count == 40
