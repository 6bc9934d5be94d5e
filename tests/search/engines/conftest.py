"""A small catalogue and, in memory or on the loopback, every engine over it."""

import json
import math
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from corewrite.domain import Catalogue
from corewrite.search.engines import EmbeddedEngine, OpenSearchEngine, QdrantEngine, fill_opensearch, fill_qdrant

VOCABULARY = "red lion dance rice cook snow train race song cat dog river night garden moon storm".split()


def bm25(documents: dict[str, list[str]], terms: list[str]) -> dict[str, float]:
    """By the formula of Robertson & Zaragoza (2009), as Lucene has it; documents with no term are left out."""
    mean = sum(map(len, documents.values())) / len(documents)
    out = {}
    for name, document in documents.items():
        score = 0.0
        for term in terms:
            n = sum(term in other for other in documents.values())
            tf = document.count(term)
            idf = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
            score += idf * tf / (tf + 1.2 * (0.25 + 0.75 * len(document) / mean))
        if score > 0:
            out[name] = score
    return out


class SmallOpenSearch(ThreadingHTTPServer):
    """As much of OpenSearch as is asked here; what it does not know is a failure, so that every request body is checked.

    `change(path, answer)` may spoil an answer.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.indices: dict[str, dict] = {}
        self.documents: dict[str, dict[str, dict]] = {}
        self.seen: list[str] = []
        self.problems: list[str] = []
        self.change = lambda path, answer: answer

    def answer(self, method: str, path: str, query: str, body: bytes):
        self.seen.append(path)
        name = path.split("/")[1]
        lines = [json.loads(line) for line in body.splitlines()] if body and path in ("/_bulk", "/_msearch") else []
        if method == "HEAD":
            return (200 if name in self.indices else 404), {}
        if method == "PUT":
            self.indices[name], self.documents[name] = json.loads(body), {}
            return 200, {"acknowledged": True, "shards_acknowledged": True, "index": name}
        if path == "/_bulk":
            return 200, self.bulk(lines)
        if path == f"/{name}/_refresh":
            return 200, {"_shards": {"total": 1, "successful": 1, "failed": 0}}
        if path == "/_msearch":
            return 200, {"took": 1, "responses": [self.search(h, b) for h, b in zip(lines[::2], lines[1::2], strict=True)]}
        if path == f"/{name}/_mget":
            field = query.removeprefix("_source_includes=")
            asked = json.loads(body)
            assert list(asked) == ["ids"] and field in self.properties(name), (asked, query)
            return 200, {"docs": [self.get(name, i, field) for i in asked["ids"]]}
        raise AssertionError(f"{method} {path} is not known")

    def properties(self, name):
        return self.indices[name]["mappings"]["properties"]

    def bulk(self, lines):
        items = []
        for action, source in zip(lines[::2], lines[1::2], strict=True):
            at = action["index"]
            assert set(at) == {"_index", "_id"} and set(source) == {"words", "dense"}, (action, source)
            assert len(source["dense"]) == self.properties(at["_index"])["dense"]["dimension"]
            self.documents[at["_index"]][at["_id"]] = source
            items.append({"index": {**at, "status": 201}})
        return {"errors": False, "items": items}

    def search(self, head, body):
        assert head == {"index": head["index"], "search_type": "dfs_query_then_fetch"}, head
        assert set(body) == {"size", "_source", "track_total_hits", "query"}, body
        assert body["_source"] is False and body["track_total_hits"] is False and body["size"] >= 1
        documents = self.documents[head["index"]]
        ((kind, by_field),) = body["query"].items()
        ((field, asked),) = by_field.items()
        mapped = self.properties(head["index"])[field]
        if kind == "match":
            assert mapped == {"type": "text", "analyzer": "whitespace"} and list(asked) == ["query"], (mapped, asked)
            scores = bm25({i: d[field].split(" ") for i, d in documents.items()}, asked["query"].split(" "))
        else:
            assert kind == "knn" and set(asked) == {"vector", "k"} and asked["k"] == body["size"], body
            assert self.indices[head["index"]]["settings"] == {"index": {"knn": True}}
            assert mapped["type"] == "knn_vector" and mapped["method"]["space_type"] == "innerproduct"
            products = {i: float(np.dot(d[field], asked["vector"])) for i, d in documents.items()}
            scores = {i: p + 1 if p >= 0 else 1 / (1 - p) for i, p in products.items()}
        best = sorted(scores, key=lambda i: -scores[i])[: body["size"]]
        hits = [{"_index": head["index"], "_id": i, "_score": scores[i]} for i in best]
        shards = {"total": 2, "successful": 2, "skipped": 0, "failed": 0}
        return {"took": 1, "timed_out": False, "_shards": shards, "hits": {"max_score": None, "hits": hits}, "status": 200}

    def get(self, name, doc_id, field):
        source = self.documents[name].get(doc_id)
        if source is None:
            return {"_index": name, "_id": doc_id, "found": False}
        return {"_index": name, "_id": doc_id, "found": True, "_source": {field: source[field]}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SmallOpenSearch

    def log_message(self, *_):
        pass

    def do(self):
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            status, answer = self.server.answer(self.command, path, query, body)
            answer = self.server.change(path, answer)
        except Exception as error:
            self.server.problems.append(repr(error))
            status, answer = 400, {"error": repr(error)}
        data = b"" if self.command == "HEAD" else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_HEAD = do_POST = do_PUT = do  # noqa: N815


@pytest.fixture
def opensearch():
    """Server and client."""
    package = pytest.importorskip("opensearchpy")
    server = SmallOpenSearch()
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    client = package.OpenSearch(hosts=[{"host": "127.0.0.1", "port": server.server_port}], max_retries=0, timeout=60)
    try:
        yield server, client
    finally:
        client.close()
        server.shutdown()
        server.server_close()
        thread.join()
    assert server.problems == []


@pytest.fixture
def qdrant():
    package = pytest.importorskip("qdrant_client")
    client = package.QdrantClient(":memory:")
    yield client
    client.close()


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    rng = np.random.default_rng(1)
    draw = [rng.choice(VOCABULARY, rng.integers(2, 9)).tolist() for _ in range(40)]
    titles = tuple(" ".join(d[:2]).title() for d in draw)
    texts = tuple(" ".join(d[2:]) for d in draw)
    ids = tuple(f"video/{i} é" for i in range(40))
    return Catalogue(ids, titles, texts, np.zeros((40, 1), np.float32), np.ones(40), np.ones(40))


@pytest.fixture(scope="session")
def vectors() -> np.ndarray:
    return np.random.default_rng(2).normal(size=(40, 6)).astype(np.float32)


@pytest.fixture(params=["embedded", "qdrant", "opensearch"])
def engine(request, catalogue, vectors):
    if request.param == "embedded":
        return EmbeddedEngine(catalogue, vectors)
    if request.param == "qdrant":
        client = request.getfixturevalue("qdrant")
        fill_qdrant(client, "videos", catalogue, vectors)
        return QdrantEngine(client, "videos", catalogue)
    _, client = request.getfixturevalue("opensearch")
    fill_opensearch(client, "videos", catalogue, vectors)
    return OpenSearchEngine(client, "videos", catalogue)


@pytest.fixture(scope="session")
def word_scores(catalogue):
    """BM25 of every document for a text, by hand: float64 [documents], 0 where no word matches."""
    whole = zip(catalogue.titles, catalogue.texts, strict=True)
    documents = {str(i): f"{title} {text}".lower().split() for i, (title, text) in enumerate(whole)}

    def of(text: str) -> np.ndarray:
        scores = bm25(documents, list(Counter(text.lower().split())))
        return np.array([scores.get(str(i), 0.0) for i in range(len(documents))])

    return of
