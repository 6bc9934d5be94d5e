"""`corewrite search` over an engine that is down, hangs or lies: one sentence and exit code 1, no traceback, in time."""

import os
import subprocess
import sys
import time

import pytest


def search(made, tmp_path, **recall):
    config = made.file(tmp_path / "corewrite.yaml", ranker={"recall": {"timeout_ms": 1_000, **recall}})
    command = [sys.executable, "-c", "from corewrite.cli.main import app; app()", "search", "lion", "--config", str(config)]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | {"COLUMNS": "400"})
    return done, time.monotonic() - began


def said(done, *words):
    assert done.returncode == 1 and done.stdout == ""
    lines = done.stderr.strip().split("\n")
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    assert all(word in lines[0] for word in words), lines


RECALL = {
    "qdrant": ("qdrant_client", {"kind": "qdrant", "collection": "videos"}, "http"),
    "opensearch": ("opensearchpy", {"kind": "opensearch", "index": "videos"}, "http"),
    "redis": ("redis", {"kind": "redis", "index": "videos"}, "redis"),
}


@pytest.fixture(params=list(RECALL))
def recall(request):
    package, settings, scheme = RECALL[request.param]
    pytest.importorskip(package)
    return lambda port: settings | {"url": f"{scheme}://127.0.0.1:{port}"}


def test_nobody_listens(made, kit, tmp_path, recall):
    done, _ = search(made, tmp_path, **recall(kit.free_port()))
    said(done, "'videos'", "no answer", "refused")


def test_one_that_hangs(made, bad, tmp_path, recall):
    with bad.hostile(bad.silent) as server:
        done, seconds = search(made, tmp_path, **recall(server.port))
    said(done, "'videos'", "no answer")
    assert seconds < 60


@pytest.mark.parametrize("kind", ["qdrant", "opensearch"])
def test_one_that_lies(made, bad, tmp_path, kind):
    package, settings, _ = RECALL[kind]
    pytest.importorskip(package)

    def lies(server, connection):
        while connection.recv(65536):
            server.send(connection, b"HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\n" + b'{"result":5,"docs":[{}]}')

    with bad.hostile(lies) as server:
        done, _ = search(made, tmp_path, **settings, url=server.url)
    said(done, "'videos'", "failed")
