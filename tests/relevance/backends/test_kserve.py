"""The wire format is that of the real Triton client, and every way in which a server can be wrong has its own error."""

import gzip
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from corewrite.relevance.backends import (
    KServeScorer,
    NaNOnFailure,
    ScoreCalibration,
    ScoreError,
    ScorerMismatchError,
    ScorerUnavailableError,
    kserve,
)
from corewrite.relevance.backends.open_inference import decode, encode
from corewrite.relevance.cache import CachedScorer

pytest.importorskip("httpx")
triton = pytest.importorskip("tritonclient.http")
triton_utils = pytest.importorskip("tritonclient.utils")
HEADER = "Inference-Header-Content-Length"


def overlap(text: str, document: str) -> float:
    """What the small server's model says: 0.1, and 0.2 more for each word of the text that stands in the document."""
    return 0.1 + 0.2 * len(set(text.split()) & set(document.split()))


def as_triton_request(texts, documents, binary):
    """The same request by the real client: body and length of its JSON."""
    inputs = []
    for name, strings in (("text", texts), ("document", documents)):
        tensor = triton.InferInput(name, [len(strings), 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[s.encode()] for s in strings], object), binary_data=binary)
        inputs.append(tensor)
    output = triton.InferRequestedOutput("score", binary_data=binary)
    return triton.InferenceServerClient.generate_request_body(inputs, outputs=[output])


def answer_of(scores, binary, **changes):
    """An answer as Triton gives it: another output stands first, so that its bytes have to be passed over."""
    scores = np.asarray(scores, np.float32)
    other = {"name": "other", "datatype": "FP64", "shape": [1], "data": [7.0]}
    mine = {"name": "score", "datatype": "FP32", "shape": [len(scores), 1], "data": scores.tolist()}
    body, raw = {"model_name": "ranker", "model_version": "3", "outputs": [other, mine]} | changes, b""
    if binary:
        del other["data"], mine["data"]
        other["parameters"], mine["parameters"] = {"binary_data_size": 8}, {"binary_data_size": 4 * len(scores)}
        raw = np.float64(7).tobytes() + scores.tobytes()
    head = json.dumps(body).encode()
    return head + raw, len(head) if binary else None


class SmallServer(ThreadingHTTPServer):
    """`faults` are used up by requests, one each: a status, "drop", "slow", "trickle", or the answer as bytes; None is none."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults, self.sizes, self.paths, self.headers = [], [], [], []
        self.broken: set[str] = set()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SmallServer

    def log_message(self, *_):
        pass

    def reply(self, status, body, length=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if length is not None:
            self.send_header(HEADER, str(length))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        length = self.headers.get(HEADER)
        head = json.loads(body[: int(length)] if length else body)
        texts, documents = self.strings(head, body[int(length) :] if length else None)
        # Whatever we send, the real client sends too, byte for byte but for the JSON's white space.
        real, real_length = as_triton_request(texts, documents, binary=length is not None)
        assert json.loads(real[:real_length]) == head
        assert length is None or real[real_length:] == body[int(length) :]
        server = self.server
        server.sizes.append(len(texts))
        server.paths.append(self.path)
        server.headers.append(dict(self.headers))
        fault = server.faults.pop(0) if server.faults else None
        if isinstance(fault, int):
            return self.reply(fault, b'{"error": "as told"}')
        if isinstance(fault, bytes):
            return self.reply(200, fault)
        if fault == "drop":
            self.close_connection = True
            return self.connection.close()
        if fault == "slow":
            time.sleep(0.6)
        scores = [np.nan if d in server.broken else overlap(t, d) for t, d in zip(texts, documents, strict=True)]
        answer, json_length = answer_of(scores, binary=length is not None)
        if fault == "trickle":
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            try:
                for i in range(len(answer)):
                    self.wfile.write(answer[i : i + 1])
                    time.sleep(0.05)
            except OSError:
                self.close_connection = True
            return None
        return self.reply(200, answer, json_length)

    @staticmethod
    def strings(head, raw):
        """The strings of both tensors, binary ones by the real client's own reader."""
        out, start = [], 0
        for tensor in head["inputs"]:
            if raw is None:
                out.append(tensor["data"])
            else:
                size = tensor["parameters"]["binary_data_size"]
                out.append([b.decode() for b in triton_utils.deserialize_bytes_tensor(raw[start : start + size])])
                start += size
        return out


@contextmanager
def running():
    server = SmallServer()
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(kserve, "_FIRST_WAIT", 0.01)
    with running() as server:
        yield server


def scorer(catalogue, server, **more):
    return KServeScorer(catalogue, server.url, "ranker", "3", **more)


ROWS = np.array([[0, 1, -1], [1, 2, 0]])
TEXTS = ["red lion", "dance été"]
EXPECTED = np.array([[0.5, 0.3, 0.0], [0.3, 0.1, 0.1]])


@pytest.mark.parametrize("binary", [False, True])
def test_scores_by_the_protocol(catalogue, server, binary):
    model = scorer(catalogue, server, binary=binary, headers={"Host": "ranker.example"})
    assert model.score(TEXTS, ROWS) == pytest.approx(EXPECTED, abs=1e-6)
    assert server.paths == ["/v2/models/ranker/versions/3/infer"] and server.sizes == [5]
    assert server.headers[0]["Host"] == "ranker.example"
    model.close()


@pytest.mark.parametrize("binary", [False, True])
def test_the_real_client_reads_what_we_read(binary):
    body, length = answer_of([0.25, 0.5, 1.0], binary)
    real = triton.InferResult.from_response_body(body, header_length=length).as_numpy("score")
    ours = decode(body, None if length is None else str(length), "score", "ranker", "3")
    assert ours.shape == real.shape == (3, 1) and ours.tolist() == real.tolist() == [[0.25], [0.5], [1.0]]


def test_the_real_client_is_understood_by_the_small_server(server):
    """Else the tests here would show only that the server was made to fit."""
    client = triton.InferenceServerClient(server.url.removeprefix("http://"))
    tensors = []
    for name, value in (("text", b"red lion"), ("document", b"red lion")):
        tensors.append(triton.InferInput(name, [1, 1], "BYTES"))
        tensors[-1].set_data_from_numpy(np.array([[value]], object))
    answer = client.infer("ranker", tensors, model_version="3", outputs=[triton.InferRequestedOutput("score")])
    assert answer.as_numpy("score").tolist() == [[pytest.approx(0.5)]]
    client.close()


def test_strings_are_counted_in_bytes():
    body, headers = encode({"text": ["é"]}, "score", binary=True)
    assert body[int(headers[HEADER]) :] == b"\x02\x00\x00\x00\xc3\xa9"


def test_batches_pairs_once_and_caches(catalogue, server):
    cached = CachedScorer(scorer(catalogue, server, batch=2))
    rows = np.array([[0, 1, 2], [0, 1, 2]])
    for _ in range(2):
        assert cached.score(["lion", "lion"], rows) == pytest.approx(np.array([[0.3, 0.3, 0.1]] * 2), abs=1e-6)
    assert server.sizes == [2, 1] and cached.hits == 6


def test_logits_are_calibrated(catalogue, server):
    p = scorer(catalogue, server, calibration=ScoreCalibration(2.0, -1.0)).score(["red lion"], np.array([[0]]))
    assert p[0, 0] == pytest.approx(0.5, abs=1e-6)  # the model says 0.5; sigmoid(2 * 0.5 - 1) = sigmoid(0)
    with pytest.raises(ValueError, match="slope above 0"):
        ScoreCalibration(slope=-1.0)


@pytest.mark.parametrize("faults, attempts", [([503, 500], 3), (["drop"], 2)])
def test_what_may_pass_is_tried_again(catalogue, server, faults, attempts):
    server.faults = list(faults)
    assert scorer(catalogue, server).score(["red lion"], np.array([[0]]))[0, 0] == pytest.approx(0.5)
    assert len(server.sizes) == attempts


@pytest.mark.parametrize(
    "faults, error, attempts",
    [
        ([503] * 5, ScorerUnavailableError, 3),
        ([429], ScorerUnavailableError, 1),
        ([400], ScorerMismatchError, 1),
        ([302], ScorerMismatchError, 1),
        (["slow"], ScorerUnavailableError, 1),
        (["trickle"], ScorerUnavailableError, 1),
    ],
)
def test_what_will_not_pass_is_not(catalogue, server, faults, error, attempts):
    server.faults = list(faults)
    start = time.monotonic()
    with pytest.raises(error):
        scorer(catalogue, server, timeout=0.3).score(["red lion"], np.array([[0]]))
    assert len(server.sizes) == attempts and time.monotonic() - start < 1.0


def test_the_timeout_is_of_the_whole_call(catalogue, server):
    server.faults = ["slow"] * 4
    with pytest.raises(ScorerUnavailableError):
        scorer(catalogue, server, batch=1, timeout=0.9).score(["lion"], np.array([[0, 1, 2, 3]]))
    assert len(server.sizes) == 2


def test_nobody_listens(catalogue, server):
    closed = KServeScorer(catalogue, "http://127.0.0.1:9", "ranker", "3", timeout=0.5)
    with pytest.raises(OSError, match=r"127\.0\.0\.1:9"):  # an OSError: training's scoring calls again
        closed.score(["lion"], np.array([[0]]))


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"model_version": "4"}, "version '3' .* version '4'"),
        ({"model_version": None}, "version None"),
        ({"model_name": "other"}, "'other'"),
        ({"outputs": []}, "no 'score'"),
        ({"outputs": [{"name": "score", "datatype": "BYTES", "shape": [1], "data": ["0.5"]}]}, "BYTES"),
        ({"outputs": [{"name": "score", "datatype": "FP32", "shape": [1], "data": ["0.5"]}]}, "no number"),
        ({"outputs": [{"name": "score", "datatype": "FP32", "shape": [1], "data": [None]}]}, "no number"),
        ({"outputs": [{"name": "score", "datatype": "FP32", "shape": [1], "data": "\udfff"}]}, r"no number: '\\udfff'"),
        ({"outputs": [{"name": "score", "datatype": "FP32", "shape": [2], "data": [0.5]}]}, "cannot be read"),
    ],
)
def test_another_model_or_nonsense_is_an_error(catalogue, server, changes, match):
    server.faults = [answer_of([0.5], False, **changes)[0]]
    with pytest.raises(ScorerMismatchError, match=match):
        scorer(catalogue, server).score(["lion"], np.array([[0]]))
    assert len(server.sizes) == 1


def test_a_version_left_out_and_a_page_of_html_are_errors(catalogue, server):
    body = json.loads(answer_of([0.5], False)[0])
    del body["model_version"]
    whole = answer_of([0.5], False)[0]
    nonsense = [b"<html>", b"[]", b"null", b"", gzip.compress(whole), b"[" * 100_000, whole + b" " * 2**21]
    for answer in (json.dumps(body).encode(), *nonsense):
        server.faults = [answer]
        with pytest.raises(ScorerMismatchError):
            scorer(catalogue, server).score(["lion"], np.array([[0]]))


def test_cut_bytes_are_an_error():
    body, length = answer_of([0.25, 0.5], True)
    with pytest.raises(ScorerMismatchError, match="ends 4 before"):
        decode(body[:-4], str(length), "score", "ranker", "3")


@pytest.mark.parametrize(
    "scores, match",
    [
        ([0.5, np.nan], "'b' is nan"),
        ([0.5, np.inf], "'b' is inf"),
        ([1.5, 0.5], "'a' is 1.5"),
        ([0.5, -0.1], "'b' is -0.1"),
        ([0.5], r"2 documents, the first 'a', came in shape \[1, 1\]"),
        ([0.5, 0.5, 0.5], "'a'"),
    ],
)
def test_a_score_that_is_none_names_its_document(catalogue, server, scores, match):
    server.faults = [answer_of(scores, False)[0]]
    with pytest.raises(ScoreError, match=match) as caught:
        scorer(catalogue, server).score(["secret text"], np.array([[0, 1]]))
    assert "secret" not in str(caught.value)


def test_infinite_logits_are_no_certainty(catalogue, server):
    server.faults = [answer_of([np.inf], False)[0]]
    with pytest.raises(ScoreError, match="'a' is inf"):
        scorer(catalogue, server, calibration=ScoreCalibration()).score(["lion"], np.array([[0]]))


def test_failures_become_nan_for_the_text_they_are_of(catalogue, server):
    server.broken = {"how to cook rice"}
    safe = NaNOnFailure(scorer(catalogue, server, timeout=0.3))
    scores = safe.score(["lion", "rice", "snow"], np.array([[0, -1], [1, 2], [3, 0]]))
    assert scores[[0, 2]] == pytest.approx(np.array([[0.3, 0.0], [0.3, 0.1]]), abs=1e-6)
    assert np.isnan(scores[1]).all()
    assert safe.failures == 2 and "'c'" in str(safe.last_error)
    server.faults = ["slow"]
    lost = safe.score(["lion", "snow"], np.array([[0, -1], [1, 2]]))
    assert np.isnan(lost).tolist() == [[True, False], [True, True]] and lost[0, 1] == 0.0


def test_hash_is_of_what_decides_the_score(catalogue, server):
    one = scorer(catalogue, server)
    assert one.model_hash == KServeScorer(catalogue, "http://elsewhere:1", "ranker", "3", batch=7, binary=True).model_hash
    others = [
        KServeScorer(catalogue, server.url, "ranker", "4"),
        KServeScorer(catalogue, server.url, "second", "3"),
        scorer(catalogue, server, calibration=ScoreCalibration()),
        scorer(catalogue, server, calibration=ScoreCalibration(2.0)),
        scorer(catalogue, server, output="logit"),
    ]
    assert len({one.model_hash, *(o.model_hash for o in others)}) == 6


def test_addresses_and_limits_are_checked(catalogue):
    for more in ({"base_url": "localhost:8000"}, {"batch": 0}, {"timeout": 0}, {"retries": -1}):
        with pytest.raises(ValueError):
            KServeScorer(**({"documents": catalogue, "base_url": "http://x", "model": "m", "model_version": "1"} | more))


def test_rows_that_fit_nothing_are_refused_before_a_request(catalogue, server):
    for rows in (np.array([[4]]), np.array([0]), np.array([[0], [1]])):
        with pytest.raises(ValueError):
            scorer(catalogue, server).score(["lion"], rows)
    assert server.sizes == []
