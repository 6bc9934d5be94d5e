"""What is OpenSearch's own: partial answers, missing documents, batches, and that no score comes from a search."""

import numpy as np
import pytest

from corewrite.search.engines import EngineError, OpenSearchEngine, fill_opensearch


@pytest.fixture
def filled(opensearch, catalogue, vectors):
    server, client = opensearch
    fill_opensearch(client, "videos", catalogue, vectors)
    server.seen.clear()
    return server, OpenSearchEngine(client, "videos", catalogue)


def test_the_index_is_made_for_what_is_asked_of_it(filled, catalogue, vectors):
    server, _ = filled
    made = server.indices["videos"]
    method = {"name": "hnsw", "engine": "faiss", "space_type": "innerproduct"}
    assert made["mappings"]["properties"]["dense"] == {"type": "knn_vector", "dimension": 6, "method": method}
    stored = server.documents["videos"][catalogue.ids[5]]
    assert stored["words"] == f"{catalogue.titles[5]} {catalogue.texts[5]}".lower()
    assert np.array_equal(np.array(stored["dense"], np.float32), vectors[5])  # through JSON and back, bit by bit


def test_many_searches_are_few_requests(filled):
    server, engine = filled
    engine.search_text(["lion"] * 130, 3)
    assert server.seen == ["/_msearch"] * 3


def test_score_never_searches_and_names_no_number_for_a_missing_document(filled, catalogue, vectors):
    server, engine = filled
    del server.documents["videos"][catalogue.ids[3]]
    scores = engine.score(vectors[:2], np.array([[2, 3], [3, -1]]))
    assert np.isnan(scores).tolist() == [[False, True], [True, False]] and server.seen == ["/videos/_mget"]


def test_a_document_that_the_catalogue_does_not_know_is_left_out(filled, vectors):
    server, engine = filled
    server.documents["videos"]["newer"] = {"words": "lion lion lion", "dense": (100 * vectors[0]).tolist()}
    assert engine.search_vector(vectors[:1], 3)[0].tolist()[-1] == -1
    assert (engine.search_text(["lion"], 40)[0] >= 0).any()


@pytest.mark.parametrize(
    "spoil, match",
    [
        (lambda r: r.update(timed_out=True), "timed_out True"),
        (lambda r: r["_shards"].update(failed=1), "1 of 2 shards failed"),
        (lambda r: r.update(error={"reason": "too many clauses"}), "too many clauses"),
    ],
)
def test_a_partial_answer_is_none(filled, vectors, spoil, match):
    server, engine = filled

    def change(path, answer):
        if path == "/_msearch":
            spoil(answer["responses"][-1])
        return answer

    server.change = change
    for search in (lambda: engine.search_text(["moon", "secret"], 3), lambda: engine.search_vector(vectors[:2], 3)):
        with pytest.raises(EngineError, match=match) as caught:
            search()
        assert "secret" not in str(caught.value)


def test_answers_too_few_or_unreadable_are_errors(filled, vectors):
    server, engine = filled
    server.change = lambda path, answer: {"responses": answer["responses"][1:]} if path == "/_msearch" else answer
    with pytest.raises(EngineError, match=r"2 searches .* 1 answers"):
        engine.search_text(["moon", "lion"], 3)
    server.change = lambda path, answer: {"docs": [{"_id": "x", "error": {"type": "no_shard_available"}}]}
    with pytest.raises(EngineError, match="no_shard_available"):
        engine.score(vectors[:1], np.array([[0]]))
    server.change = lambda path, answer: {"docs": [{**d, "_source": {}} for d in answer["docs"]]}
    with pytest.raises(EngineError, match="keep it there"):
        engine.score(vectors[:1], np.array([[0]]))


def test_filling_never_overwrites(filled, opensearch, catalogue, vectors):
    _, client = opensearch
    with pytest.raises(ValueError, match="there already"):
        fill_opensearch(client, "videos", catalogue, vectors)
    with pytest.raises(ValueError, match="39 vectors for 40"):
        fill_opensearch(client, "other", catalogue, vectors[1:])
