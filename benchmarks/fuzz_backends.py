"""What backends answer: model servers, search engines, a sampling server, a shared cache; `fuzz_targets` says what a target is.

Everything but the network is real: the clients of httpx, Qdrant, OpenSearch and Redis read bytes that never came by a socket.
"""

import asyncio
import json
import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpcore
import numpy as np
import torch
from fuzz_inputs import JSON_WORDS, NUMBERS, TEXTS
from fuzz_targets import check_sayable, is_rewrite, must

from corewrite.deployment.recall import RecallOpener
from corewrite.deployment.settings import OpenSearchRecall, QdrantRecall, RedisRecall
from corewrite.domain import Catalogue
from corewrite.relevance.backends import KServeScorer, ScoreCalibration, ScoreError, ScorerMismatchError, ScorerUnavailableError
from corewrite.relevance.backends.open_inference import JSON_LENGTH
from corewrite.remote.http import BoundedTransport, _Backend
from corewrite.search.engines import (
    EngineError,
    EngineUnavailableError,
    OpenSearchEngine,
    QdrantEngine,
    RedisEngine,
    point_id,
)
from corewrite.serving.cache import MAX_REWRITES, RedisCache
from corewrite.serving.warm import read_warm
from corewrite.training.samplers import server_client
from corewrite.training.samplers.server import ServerEngine, _Held
from corewrite.training.samplers.server_client import SamplingServerError

DOCUMENTS = Catalogue(
    ("a", "b", "c"), ("red lion", "rice", "snow"), ("", "", ""), np.zeros((3, 1), np.float32), np.full(3, np.nan), np.ones(3)
)  # fmt: skip
_VECTORS, _ROWS, _K = np.eye(2, dtype=np.float32), np.array([[0, 1, -1]]), 3
_WORDS = (
    b'"a"', b'"b"', b'"nowhere"', b'"points"', b'"payload"', b'"score"', b'"NaN"', b'"responses"', b'"hits"', b'"_id"',
    b'"_score"',
    b'"timed_out"', b'"_shards"', b'"docs"', b'"found"', b'"_source"', b'"dense"', b'"error"', b'"result"', b'"outputs"',
    b'"datatype"', b'"FP16"', b'"FP64"', b'"shape"', b'"parameters"', b'"binary_data_size"', b'"model_version"', b'"choices"',
    b'"token_ids"', b'"logprobs"', b'"index"', b"\r\n", b"\r\n\r\n", b"Content-Length: 5", b"Transfer-Encoding: chunked",
    b"Content-Encoding: gzip", b"HTTP/1.1 100 Continue", b"HTTP/1.1 503 X", b"HTTP/1.1 301 X", b"$-1", b"*-1", b"%2", b"~1",
    b",nan",
    b"#t", b"_", b"(9" + b"9" * 50, b"=5", b"|1", b">2", b"-ERR x", b"!5", b"$99999999999", b"*9999999",
)  # fmt: skip


class _Stream(httpcore.NetworkStream):
    """A connection on which every request gets the present answer."""

    def __init__(self, wire: "Wire") -> None:
        self._wire, self._left = wire, b""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        part, self._left = self._left[:max_bytes], self._left[max_bytes:]
        return part

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._left = self._wire.answer

    def close(self) -> None:
        pass

    def get_extra_info(self, info: str) -> Any:
        return None


class Wire(httpcore.NetworkBackend):
    """No network: connections to anybody are made, and answer `answer`."""

    answer = b""

    def connect_tcp(self, *arguments: Any, **options: Any) -> httpcore.NetworkStream:
        return _Stream(self)

    def connect_unix_socket(self, *arguments: Any, **options: Any) -> httpcore.NetworkStream:
        return _Stream(self)

    def sleep(self, seconds: float) -> None:
        pass


class _Socket:
    """The same for redis-py."""

    def __init__(self, wire: Wire) -> None:
        self._wire, self._left = wire, b""

    def sendall(self, data: Any, flags: int = 0) -> None:
        self._left = self._wire.answer

    def recv(self, size: int, flags: int = 0) -> bytes:
        part, self._left = self._left[:size], self._left[size:]
        return part

    def recv_into(self, buffer: Any, num_bytes: int = 0, flags: int = 0) -> int:
        part = self.recv(num_bytes or len(buffer))
        buffer[: len(part)] = part
        return len(part)

    def settimeout(self, timeout: float | None) -> None:
        pass

    def gettimeout(self) -> float | None:
        return None

    def shutdown(self, how: int) -> None:
        pass

    def close(self) -> None:
        pass

    def fileno(self) -> int:
        return -1


def _resp(value: Any, depth: int = 0) -> bytes:
    """JSON as Redis would say it in version 3 of its protocol."""
    if value is None:
        return b"_\r\n"
    if isinstance(value, bool):
        return b"#t\r\n" if value else b"#f\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value if abs(value) < 2**63 else b"(%s\r\n" % str(value)[:4_000].encode()
    if isinstance(value, float):
        return b",%s\r\n" % repr(value).encode()
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
        return b"$%d\r\n%s\r\n" % (len(data), data)
    if isinstance(value, dict):
        return b"%%%d\r\n" % len(value) + b"".join(_resp(k) + _resp(v, depth + 1) for k, v in value.items())
    return b"*%d\r\n" % len(value) + b"".join(_resp(v, depth + 1) for v in value)


def _http(body: bytes, *more: bytes) -> bytes:
    head = [b"HTTP/1.1 200 OK", b"Content-Type: application/json", b"Content-Length: %d" % len(body), *more]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


_SHARDS = {"total": 1, "successful": 1, "failed": 0}
_HITS = {"timed_out": False, "_shards": _SHARDS, "hits": {"hits": [{"_id": "a", "_score": 2.5}, {"_id": "b", "_score": 1.5}]}}
_OUTPUT = {"name": "score", "shape": [2, 1], "datatype": "FP32", "data": [0.5, 0.25]}
_BINARY = {"name": "score", "shape": [2, 1], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
_CHOICE = {
    "index": 0, "token_ids": [5, 1], "prompt_token_ids": [2, 3], "logprobs": {"token_logprobs": [-0.5, -1.0]},
    "finish_reason": "stop",
}  # fmt: skip
_POINT = {"id": point_id("a"), "version": 0, "score": 2.5, "payload": {"id": "a"}}
ANSWERS: tuple[Any, ...] = (
    {"model_name": "m", "model_version": "1", "outputs": [_OUTPUT]},
    {"model_name": "m", "model_version": "1", "outputs": [_BINARY]},
    {"result": [{"points": [_POINT, {**_POINT, "payload": {"id": "b"}, "score": 1.0}]}], "status": "ok", "time": 0.1},
    {"result": [{"id": point_id("a"), "vector": {"dense": [1.0, 0.5]}}], "status": "ok", "time": 0.1},
    {"took": 1, "responses": [_HITS]},
    {"docs": [{"_id": "a", "found": True, "_source": {"dense": [1.0, 0.5]}}, {"_id": "b", "found": False}]},
    [{"results": [{"id": "i:a", "score": 2.5}, {"id": "i:b", "score": 1.0}], "warning": [], "total_results": 2}],
    ["abcdefgh", None],
    {"choices": [_CHOICE, {**_CHOICE, "index": 1}]},
    {"object": "list", "data": [{"id": "base"}, {"id": "policy"}]},
)
"""A good answer of each; those of Redis are a list of the replies to one pipeline."""
_RAW, _STATUS = 128, 64


class Backends:
    """Answers to a call. The first byte chooses the backend, and whether the rest is all that comes by the wire, or a body."""

    words = _WORDS + JSON_WORDS + NUMBERS + TEXTS
    cpu_seconds = 3.0
    limit = 12_000
    deep = 0

    def __init__(self) -> None:
        self._wire = wire = Wire()
        self._pools: list[Any] = []
        self.seeds = [bytes([k]) + json.dumps(answer).encode() for k, answer in enumerate(ANSWERS)]
        self.seeds[1] += np.array([0.5, 0.25], np.float32).tobytes()
        self.seeds += [bytes([k | _RAW]) + self._framed(k, seed[1:]) for k, seed in enumerate(self.seeds)]

        self._kserve = KServeScorer(DOCUMENTS, "http://server", "m", "1", retries=0, timeout=5)
        self._logits = KServeScorer(
            DOCUMENTS, "http://server", "m", "1", retries=0, timeout=5, binary=True, calibration=ScoreCalibration()
        )
        for scorer in (self._kserve, self._logits):
            self._unplug(scorer._client._transport)
        qdrant = RecallOpener(QdrantRecall(kind="qdrant", url="http://server", collection="c", timeout_ms=5_000), DOCUMENTS)
        self._unplug(qdrant._client._client.http.client._client._transport)
        self._qdrant = QdrantEngine(qdrant._client, "c", DOCUMENTS)
        search = RecallOpener(OpenSearchRecall(kind="opensearch", url="http://server", index="i", timeout_ms=5_000), DOCUMENTS)
        self._unplug(search._client.transport.get_connection()._http._transport)
        self._opensearch = OpenSearchEngine(search._client, "i", DOCUMENTS)
        redis = RecallOpener(RedisRecall(kind="redis", url="redis://server", index="i", timeout_ms=5_000), DOCUMENTS)
        self._redis_pool = redis._client.connection_pool
        kind = self._redis_pool.connection_class
        begun = {"_connect": lambda connection: _Socket(wire)} | dict.fromkeys(
            ("on_connect", "on_connect_check_health"), lambda connection, **_: connection._parser.on_connect(connection)
        )
        self._redis_pool.connection_class = type("Unplugged", (kind,), begun)  # no HELLO, which would take the answer
        self._redis = RedisEngine(redis._client, "i", DOCUMENTS, timeout_ms=5_000)
        server_client._FIRST_WAIT = 0.0
        self._folder = tempfile.TemporaryDirectory()
        self._sampler = ServerEngine("http://server", Path(self._folder.name), "weights", 1, concurrency=1, timeout=5)
        self._unplug(self._sampler._http._client._transport)
        self._held = _Held("v", "m", [[2, 3]], torch.zeros(1, 8))
        self._calls = (
            lambda: self._scored(self._kserve), lambda: self._scored(self._logits), lambda: self._found(self._qdrant),
            lambda: self._product(self._qdrant), lambda: self._found(self._opensearch), lambda: self._product(self._opensearch),
            lambda: self._found(self._redis), lambda: self._product(self._redis), self._sampled, self._served,
        )  # fmt: skip

    def _unplug(self, transport: BoundedTransport) -> None:
        transport._pool._network_backend = _Backend(self._wire)
        self._pools.append(transport._pool)

    def close(self) -> None:
        self._folder.cleanup()

    def _framed(self, mode: int, body: bytes) -> bytes:
        if mode in (6, 7):
            try:
                value = json.loads(body)
                return b"".join(map(_resp, value if isinstance(value, list) else [value]))
            except (ValueError, RecursionError):
                return body
        if mode == 1:
            end = body.rfind(b"}") + 1
            return _http(body, f"{JSON_LENGTH}: {end}".encode())
        return _http(body)

    def __call__(self, data: bytes) -> str:
        control, body = (data[0], data[1:]) if data else (0, b"")
        mode = control % 64 % len(self._calls)
        self._wire.answer = body if control & _RAW else self._framed(mode, body)
        if control & _STATUS and not control & _RAW and mode not in (6, 7):
            self._wire.answer = self._wire.answer.replace(b"200 OK", str(100 + 7 * (len(body) % 80)).encode() + b" Odd", 1)
        try:
            return self._calls[mode]()
        finally:
            for pool in self._pools:  # what is left of an answer must not be part of the next
                pool.close()
            self._redis_pool.disconnect()

    def _scored(self, scorer: KServeScorer) -> str:
        try:
            scores = scorer.score(["lion"], _ROWS)
        except (ScorerUnavailableError, ScorerMismatchError, ScoreError) as error:
            check_sayable(error)
            return f"model {type(error).__name__}"
        must(scores.shape == (1, 3) and bool(((scores >= 0) & (scores <= 1)).all()) and scores[0, 2] == 0, f"scores {scores}")
        return "model scores"

    def _refused(self, error: Exception) -> str:
        check_sayable(error)
        must("\n" not in str(error) and len(str(error)) < 500, f"more than a sentence: {str(error)!r:.600}")
        return f"engine {type(error).__name__}"

    def _found(self, engine: Any) -> str:
        try:
            rows = engine.search_text(["lion"], _K)
        except (EngineError, EngineUnavailableError) as error:
            return self._refused(error)
        must(rows.shape == (1, _K) and rows.dtype == np.int64, f"rows {rows}")
        there = rows[rows >= 0].tolist()
        must(len(set(there)) == len(there) and all(0 <= row < len(DOCUMENTS) for row in there), f"rows {rows}")
        must(bool((np.diff((rows[0] < 0).astype(int)) >= 0).all()) and bool((rows >= -1).all()), "padding in the middle")
        return "engine rows" if there else "engine nothing"

    def _product(self, engine: Any) -> str:
        try:
            scores = engine.score(_VECTORS[:1], _ROWS)
        except (EngineError, EngineUnavailableError, ValueError) as error:
            must(type(error) is not ValueError or "dimensions" in str(error), f"another error: {error!r:.300}")
            return self._refused(error)
        must(scores.shape == (1, 3) and scores[0, 2] == 0 and not bool(np.isinf(scores).any()), f"scores {scores}")
        return "engine scores"

    def _sampled(self) -> str:
        try:
            (found,) = [self._sampler._complete(self._held, [2, 3], 7, 2, 4)]
        except SamplingServerError as error:
            check_sayable(error)
            return "no samples"
        must(len(found) == 2, "not two samples")
        for one in found:
            ids = one.token_ids
            must(1 <= len(ids) <= 4 and all(type(i) is int and 0 <= i < 8 for i in ids), f"tokens {ids}")
            must(len(one.log_probs) == len(ids) and all(np.isfinite(one.log_probs)), f"log-probabilities {one.log_probs}")
        return "samples"

    def _served(self) -> str:
        try:
            names = self._sampler._weights._served()
        except SamplingServerError as error:
            check_sayable(error)
            return "no models"
        must(bool(names) and all(isinstance(name, str) for name in names), "no names")
        return "models"


_SECRET = "0123456789abcdef0123456789abcdef"
_KEY = "f" * 64
_VALUES: tuple[Any, ...] = (
    {"key": _KEY, "rewrites": ["red lion", "lion dance"]}, {"key": _KEY, "rewrites": []}, {"key": "other", "rewrites": ["a"]},
    {"key": _KEY, "rewrites": ["نودلز 辛ラーメン"]}, {"rewrites": ["a"]},
)  # fmt: skip


class Values:
    """What stands in the shared cache. The first byte: 0 a value without a secret, 1 with one, 2 a file that `warm` left."""

    words = (b'"key"', b'"rewrites"', _KEY.encode(), *JSON_WORDS, *NUMBERS, *TEXTS)
    cpu_seconds = 1.0
    limit = 12_000
    deep = 0

    def __init__(self) -> None:
        logging.getLogger("corewrite.serving.warm").setLevel(logging.CRITICAL)
        self._open, self._closed = (RedisCache("redis://127.0.0.1:1", 60, 500, secret) for secret in (None, _SECRET))
        self._value: Any = None
        put: list[bytes] = []

        async def get(name: str) -> Any:
            return self._value

        async def keep(name: str, raw: bytes, **options: Any) -> None:
            put.append(raw)

        for cache in (self._open, self._closed):
            cache._redis = SimpleNamespace(get=get, set=keep)
        self._runner = asyncio.Runner()
        for texts in (("red lion",), ("lion dance", "red lion"), ()):
            self._runner.run(self._closed.put(_KEY, texts))
        self._genuine = set(put)
        lines = "\n".join(json.dumps(value) for value in _VALUES).encode()
        self.seeds = [*(b"\0" + json.dumps(v).encode() for v in _VALUES), *(b"\1" + raw for raw in put), b"\2" + lines]
        self._made = tempfile.TemporaryDirectory()
        self._folder = Path(self._made.name)

    def close(self) -> None:
        self._runner.close()
        self._made.cleanup()

    def __call__(self, data: bytes) -> str:
        mode, raw = (data[0] % 3, data[1:]) if data else (0, b"")
        if mode == 2:
            return self._warmed(raw)
        # A client that decodes by itself hands over a text.
        self._value = raw if len(raw) % 8 else raw.decode("utf-8", "replace")
        found = self._runner.run((self._closed if mode else self._open).get(_KEY))
        if found is None:
            return "refused"
        if mode:
            must(self._value in self._genuine, f"planted, and served: {self._value!r:.300}")
        self._sound(found)
        return "secret value" if mode else "value"

    def _warmed(self, raw: bytes) -> str:
        (self._folder / "p.ndjson").write_bytes(raw)
        found = list(read_warm(self._folder, "p"))
        for key, texts in found:
            must(isinstance(key, str), "a key that is none")
            self._sound(texts)
        return "warm" if found else "cold"

    def _sound(self, texts: Iterable[str]) -> None:
        must(
            isinstance(texts, tuple) and len(texts) <= MAX_REWRITES and all(map(is_rewrite, texts)),
            f"not clean: {texts!r:.300}",
        )
