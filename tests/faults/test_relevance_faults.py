"""A model server that is down, slow, or answers NaN: the real client of it, behind the cascade's rules."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from corewrite.relevance import cold_start
from corewrite.relevance.backends.pairs import document_texts


class ModelServer:
    """Speaks the Open Inference Protocol, with the bundled model's scores; `fault` is what is wrong now."""

    def __init__(self, catalogue, queries):
        self.fault = ""
        rows = {text: row for row, text in enumerate(document_texts(catalogue))}
        model, lock = cold_start(catalogue).bind(catalogue), threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self):
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                texts, documents = (tensor["data"] for tensor in asked["inputs"])
                with lock:
                    scores = [
                        float(model.score([t], np.array([[rows[d]]]))[0, 0]) for t, d in zip(texts, documents, strict=True)
                    ]
                if outer.fault == "slow":
                    time.sleep(1)
                status = 503 if outer.fault == "down" else 200
                if outer.fault == "NaN" or (outer.fault == "NaN for rewrites" and any(t not in queries for t in texts)):
                    scores = [float("nan")] * len(scores)
                tensor = {"name": "score", "shape": [len(scores)], "datatype": "FP64", "data": scores}
                body = json.dumps({"model_name": "m", "model_version": "1", "outputs": [tensor]}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass  # the client does not wait for a slow answer

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def model_server(platform, queries):
    started = ModelServer(platform.catalogue, frozenset(queries))
    yield started
    started.http.shutdown()


@pytest.fixture(scope="module")
def served(model_server, platform, kit, tmp_path_factory):
    """A server with the rewrite at finerank only, so that an answer without it there is one without it anywhere."""
    arms = {"launch_1": 1, "launch_2": 0}
    started = kit.start(platform, tmp_path_factory.mktemp("server"), relevance=model_server.url, arms=arms)
    yield started
    started.kill()


def used(a):
    return (
        a.body["signal_status"]["finerank.relevance"] in {"ok", "neutral"}
        and "finerank.original" not in a.body["signal_status"]
    )


def load_of(kit, served, queries):
    # Two at a time: what is tested is that they are answered, not how many.
    return kit.load.Load(served.port, queries, threads=2)


def test_nan_for_rewrites_leaves_the_ranking_as_it_is_without_them(served, model_server, queries, plain, kit, note):
    with load_of(kit, served, queries) as load:
        load.until(used, time.monotonic(), 15, run=3)
        model_server.fault = "NaN for rewrites"
        began = time.monotonic()
        load.until(lambda a: a.body["signal_status"]["finerank.relevance"] == "error", began, 10, run=3)
        time.sleep(1)
        mended = time.monotonic()
        model_server.fault = ""
        recovery = load.until(used, mended, 10, run=3)
    kit.load.check(load.answers, plain)
    broken = load.since(began + 0.3, mended)
    # A rewrite may happen to be another query of this test, which the model server scores.
    broken = [a for a in broken if not set(a.body["rewrites"]) & set(queries)]
    for a in broken:
        assert a.neutral and kit.load.ranking(a) == plain[a.query]
    assert any(a.body["rewrites"] for a in broken)  # there was a rewrite: it could not be scored
    note("model server answers NaN for rewrites", broken, recovery_s=recovery)


@pytest.mark.parametrize("fault", ["down", "slow", "NaN"])
def test_a_model_server_that_is_down_slow_or_answers_nan(served, model_server, queries, plain, cascade, kit, note, fault):
    """The original signal is gone too: the stage before gives the order, and the answer says so."""
    before = {q: kit.ranked(cascade, q, stage="rawrank") for q in queries}
    with load_of(kit, served, queries) as load:
        load.until(used, time.monotonic(), 15, run=3)
        model_server.fault = fault
        began = time.monotonic()
        load.until(lambda a: "finerank.original" in a.body["signal_status"], began, 10, run=3)
        time.sleep(3)
        mended = time.monotonic()
        model_server.fault = ""
        recovery = load.until(used, mended, 10, run=3)
    kit.load.check(load.answers, plain)
    broken = [a for a in load.since(began + 0.3, mended) if "finerank.original" in a.body["signal_status"]]
    assert broken and all(a.body["signal_status"]["finerank.original"] == "error" for a in broken)
    for a in broken:
        assert a.neutral and a.body["rewrites"] == [] and kit.load.ranking(a) == before[a.query]
    note(f"model server {fault}", broken, recovery_s=recovery)
