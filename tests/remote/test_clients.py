"""The clients of Qdrant, OpenSearch and Redis as they are opened: whatever the server does, a call ends in its time."""

import numpy as np
import pytest

from corewrite.deployment.recall import RecallOpener
from corewrite.deployment.settings import OpenSearchRecall, QdrantRecall, RedisRecall
from corewrite.domain import Catalogue
from corewrite.remote import Budget, spending
from corewrite.search.engines import EngineError, EngineUnavailableError, QdrantEngine

DOCUMENTS = Catalogue(("a", "b"), ("red lion", "rice"), ("", ""), np.zeros((2, 1), np.float32), np.full(2, np.nan), np.ones(2))


def trickled_resp(server, connection):
    """A bulk string of Redis, a byte every 50 ms, from the first command on."""
    connection.recv(65536)
    server.trickle(connection, b"$10000\r\n" + b"x" * 10_000)


def gigabyte_resp(server, connection):
    connection.recv(65536)
    server.send(connection, b"$1073741824\r\n")
    for _ in range(1024):
        server.send(connection, b"x" * 2**20)


def lies(server, connection):
    """Answers everything with JSON that means nothing."""
    while connection.recv(65536):
        body = b'{"responses": [{"hits": {"hits": [{"_id": 7, "_score": null}]}}], "result": [], "status": "ok", "time": 0}'
        server.send(connection, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body))
        server.send(connection, body)


def opened(kind, port, live=True):
    """The engine of a live service, without the check of its index."""
    if kind == "qdrant":
        opener = RecallOpener(
            QdrantRecall(kind=kind, url=f"http://127.0.0.1:{port}", collection="c", timeout_ms=400), DOCUMENTS, live=live
        )
        return opener._guarded(QdrantEngine(opener._client, "c", DOCUMENTS), "c")
    if kind == "opensearch":
        settings = OpenSearchRecall(kind=kind, url=f"http://127.0.0.1:{port}", index="i", vector_field=None, timeout_ms=400)
    else:
        settings = RedisRecall(kind=kind, url=f"redis://127.0.0.1:{port}", index="i", vector_field=None, timeout_ms=400)
    return RecallOpener(settings, DOCUMENTS, live=live).open("", None)


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize(
    "kind, behave",
    [(kind, behave) for kind in ("qdrant", "opensearch") for behave in ("silent", "trickled_headers", "trickled_body")]
    + [("redis", "silent"), ("redis", trickled_resp)],
)
def test_a_search_ends_in_its_time(bad, kind, behave, live):
    pytest.importorskip({"qdrant": "qdrant_client", "opensearch": "opensearchpy", "redis": "redis"}[kind])
    with bad.hostile(behave if callable(behave) else getattr(bad, behave)) as server:
        engine = opened(kind, server.port, live)
        seconds, error = bad.decision_seconds(lambda: engine.search_text(["lion"], 3))
        # Qdrant's client counts in whole seconds; where searches wait, its limit is kept all the same.
        assert seconds < (2 if live or kind != "qdrant" else 3)
        if live:
            assert isinstance(error, EngineError | EngineUnavailableError)
            for _ in range(2):
                bad.decision_seconds(lambda: engine.search_text(["lion"], 3))
            seconds, error = bad.decision_seconds(lambda: engine.search_text(["lion"], 3))
            assert seconds < 0.3 and isinstance(error, EngineUnavailableError)


@pytest.mark.parametrize(
    "kind, behave", [("qdrant", "gigabyte"), ("opensearch", "gigabyte"), ("opensearch", "bomb"), ("redis", gigabyte_resp)]
)
def test_a_gigabyte_is_not_read(bad, kind, behave, monkeypatch):
    monkeypatch.setattr("corewrite.search.engines.redis._MOST_BYTES", 2**20)
    with bad.hostile(behave if callable(behave) else getattr(bad, behave)) as server:
        engine = opened(kind, server.port)
        bad.decision_seconds(lambda: engine.search_text(["lion"], 3))
        server.stopped.wait(1)
        assert server.sent < 2**28


@pytest.mark.parametrize("kind", ["qdrant", "opensearch"])
def test_nonsense_is_an_engine_error(bad, kind):
    with bad.hostile(lies) as server:
        _, error = bad.decision_seconds(lambda: opened(kind, server.port).search_text(["lion"], 3))
    assert isinstance(error, EngineError) and repr(kind)[1:-1] in str(error)


def test_redis_writes_and_reads_are_bounded_by_the_exchange(bad):
    redis = pytest.importorskip("redis")
    from corewrite.remote.redis import bounded_connection

    with bad.hostile(trickled_resp) as server:
        url = f"redis://127.0.0.1:{server.port}"
        client = redis.Redis.from_url(url, connection_class=bounded_connection(url), socket_timeout=30)

        def ask():
            with spending(Budget(0.3)):
                client.get("k")

        seconds, error = bad.decision_seconds(ask)
    assert isinstance(error, redis.exceptions.TimeoutError) and seconds < 2
