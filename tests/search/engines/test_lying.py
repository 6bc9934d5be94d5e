"""Qdrant and OpenSearch that lie, through their real clients: a list of ours, or one sentence that says what is wrong."""

import json
import socket

import numpy as np
import pytest

from corewrite.deployment.recall import RecallOpener
from corewrite.deployment.settings import OpenSearchRecall, QdrantRecall
from corewrite.domain import Catalogue
from corewrite.search.engines import EngineError, EngineUnavailableError, OpenSearchEngine, QdrantEngine, point_id

DOCUMENTS = Catalogue(
    ("a", "b", "c"), ("red lion", "rice", "snow"), ("", "", ""), np.zeros((3, 1), np.float32), np.full(3, np.nan), np.ones(3)
)  # fmt: skip
VECTORS = np.eye(2, dtype=np.float32)


def saying(value, status=200):
    """Answers every request with a document of JSON, whatever was asked."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    head = b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body))

    def behave(server, connection):
        while data := connection.recv(65536):
            while b"\r\n\r\n" not in data:
                if not (more := connection.recv(65536)):
                    return  # the end of a body that came by itself, and the client is gone
                data += more
            server.send(connection, head + body)

    return behave


@pytest.fixture(params=["qdrant", "opensearch"])
def kind(request):
    pytest.importorskip({"qdrant": "qdrant_client", "opensearch": "opensearchpy"}[request.param])
    return request.param


def opened(kind, url):
    if kind == "qdrant":
        opener = RecallOpener(QdrantRecall(kind=kind, url=url, collection="c", timeout_ms=5_000), DOCUMENTS)
        return QdrantEngine(opener._client, "c", DOCUMENTS)
    opener = RecallOpener(OpenSearchRecall(kind=kind, url=url, index="c", timeout_ms=5_000), DOCUMENTS)
    return OpenSearchEngine(opener._client, "c", DOCUMENTS)


def found(kind, hits, **more):
    """An answer to one search: hits are pairs of id and score."""
    if kind == "qdrant":
        points = [{"id": 5, "version": 0, "score": score, "payload": {"id": i}} for i, score in hits]
        return {"result": [{"points": points}], "status": "ok", "time": 0.1}
    hits = [{"_index": "c", "_id": i, "_score": score} for i, score in hits]
    shards = {"total": 1, "successful": 1, "failed": 0}
    return {"responses": [{"timed_out": False, "_shards": shards, "hits": {"hits": hits}} | more]}


def stored(kind, *vectors):
    """An answer to a request for vectors: pairs of id and vector."""
    if kind == "qdrant":
        return {"result": [{"id": point_id(i), "vector": {"dense": v}} for i, v in vectors], "status": "ok", "time": 0.1}
    return {"docs": [{"_id": i, "found": True, "_source": {"dense": v}} for i, v in vectors]}


def searched(bad, kind, answer, k=3):
    with bad.hostile(saying(answer)) as server:
        return opened(kind, server.url).search_text(["lion"], k).tolist()


def scored(bad, kind, answer):
    with bad.hostile(saying(answer)) as server:
        return opened(kind, server.url).score(VECTORS[:1], np.array([[0, 1, -1]]))[0]


def test_what_is_no_document_is_left_out_and_none_stands_twice(bad, kind):
    hits = [("b", 1.0), ("a", 2.0), ("nowhere", 9.0), ("b", 3.0), ("b", 2.0), ("", 1.0)]
    assert searched(bad, kind, found(kind, hits)) == [[1, 0, -1]]


def test_more_than_was_asked_for_is_cut(bad, kind):
    many = [("x", 5.0)] * 5_000 + [("c", 1.0), ("b", 2.0), ("a", 3.0)]
    assert searched(bad, kind, found(kind, many), k=2) == [[0, 1]]


@pytest.mark.parametrize("score", [float("nan"), float("inf"), None, "NaN", [], {}])
def test_a_score_that_is_no_number_is_an_error(bad, kind, score):
    with pytest.raises(EngineError, match=r"'c'|finite number"):
        searched(bad, kind, found(kind, [("a", 1.0), ("b", score)]))


@pytest.mark.parametrize("doc_id", [5, None, ["a"], {"id": "a"}, True])
def test_an_id_of_another_type_is_an_error_or_nobody(bad, kind, doc_id):
    try:
        assert searched(bad, kind, found(kind, [("a", 1.0), (doc_id, 2.0)])) == [[0, -1, -1]]
    except EngineError as error:
        assert "'c'" in str(error) and "\n" not in str(error)


def test_what_a_server_puts_into_an_error_is_one_line_of_some_length(bad, kind):
    if kind == "qdrant":
        answer = found(kind, [("a", 1.0)])
        answer["result"][0]["points"][0] |= {"payload": {}, "id": "word\n\x1b[2J" * 200}
    else:
        answer = found(kind, [], timed_out="word\n\x1b[2J" * 200)
    with pytest.raises(EngineError) as caught:
        searched(bad, kind, answer)
    assert len(str(caught.value)) <= 300 and "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


NONSENSE = [
    b"", b"{", b"null", b"[]", b"5", b'"a"', b"{}", b'{"result": 5, "responses": 5}', b'{"result": [], "responses": []}',
    b'{"result": null, "responses": null, "docs": null}', b'{"result": [5], "responses": [5], "docs": [5]}', b"\xff\xfe",
    b'{"result": [{"points": 5}], "responses": [{"hits": 5}], "docs": [{}]}', b"[" * 100_000, b'{"a":' * 100_000,
    b'{"result": [{}], "responses": [{"timed_out": false, "_shards": {"failed": "no"}}], "docs": [{"found": true}]}',
]  # fmt: skip


@pytest.mark.parametrize("body", NONSENSE)
def test_nonsense_is_one_sentence(bad, kind, body):
    for ask in (searched, scored):
        try:
            answer = ask(bad, kind, body)
        except (EngineError, EngineUnavailableError) as error:
            assert "'c'" in str(error) and "\n" not in str(error) and len(str(error)) < 400
        else:
            assert ask is scored and np.isnan(answer[:2]).all()  # none of the documents is held


def test_vectors_of_others_are_no_score_of_ours(bad, kind):
    scores = scored(bad, kind, stored(kind, ("a", [2.0, 1.0]), ("c", [5.0, 5.0]), ("nowhere", [7.0, 7.0])))
    assert scores[0] == 2.0 and np.isnan(scores[1]) and scores[2] == 0.0


@pytest.mark.parametrize(
    "vector", [[float("nan"), 1.0], [float("inf"), 1.0], ["2.0", "1.0"], [[1.0], [2.0]], [None, 1.0], "ab", [10**400, 1]]
)  # fmt: skip
def test_a_vector_that_is_none_is_an_error(bad, kind, vector):
    with pytest.raises(EngineError, match=r"'c'|no list of finite numbers"):
        scored(bad, kind, stored(kind, ("a", vector)))


@pytest.mark.parametrize("status", [301, 400, 401, 404, 429, 500, 503, 999])
def test_a_refusal_says_the_status_and_not_what_was_asked(bad, kind, status):
    with bad.hostile(saying(["why: secret lion"], status)) as server:
        engine = opened(kind, server.url)
        for ask in (lambda: engine.search_text(["lion"], 3), lambda: engine.score(VECTORS[:1], np.array([[0]]))):
            with pytest.raises(EngineError, match=f"'c' failed: .*{status}") as caught:
                ask()
            assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_nobody_there_is_said(kind, caplog):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        engine = opened(kind, f"http://127.0.0.1:{probe.getsockname()[1]}")
    for ask in (lambda: engine.search_text(["lion"], 3), lambda: engine.score(VECTORS[:1], np.array([[0]]))):
        with pytest.raises(EngineUnavailableError, match=r"'c' got no answer: .*refused"):
            ask()
    assert not caplog.records  # said once, by the error
