"""Clients that hold connections: nothing of theirs takes the place of those who ask."""

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

KEY = "k" * 20
BODY = json.dumps({"query": "lion"}).encode()


def head(path="/v1/search", length=len(BODY), *more):
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {length}", *more]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"


@contextmanager
def held(port, data, n):
    """`n` connections that send `data` and nothing more."""
    made = []
    try:
        for _ in range(n):
            one = socket.create_connection(("127.0.0.1", port), timeout=10)
            one.sendall(data)
            made.append(one)
        yield made
    finally:
        for one in made:
            one.close()


def search(port, key=None, timeout=10):
    headers = {} if key is None else {"x-api-key": key}
    return httpx.post(f"http://127.0.0.1:{port}/v1/search", json={"query": "lion"}, headers=headers, timeout=timeout)


def answer(one):
    """All that comes until the server closes."""
    data = b""
    while part := one.recv(2**16):
        data += part
    return data


def closed_after(one, seconds=10):
    """Seconds until the server closes a connection, and what it said."""
    began = time.monotonic()
    one.settimeout(seconds)
    try:
        said = answer(one)
    except ConnectionResetError:
        said = b""
    return time.monotonic() - began, said


def test_the_key_is_asked_for_before_the_body_is_read(listening):
    with listening(api_key_env="SERVE_KEY") as port:
        for path, more, status in (
            ("/v1/search", (), 401),
            ("/v1/search", ("X-API-Key: wrong",), 401),
            ("/v1/search", (f"X-API-Key: {KEY}", f"X-API-Key: {KEY}"), 401),
            ("/v1/events", (), 401),
            ("/v1/admin/kill", (), 401),
            ("/v1/nothing", (), 404),
            ("/healthz", (), 405),
        ):
            with held(port, head(path, 200_000, *more), 1) as (one,):
                seconds, said = closed_after(one)
                assert said.startswith(b"HTTP/1.1 %d " % status), (path, said)
                assert b"connection: close" in said.lower() and seconds < 2
        assert search(port, KEY).status_code == 200


def test_bodies_that_never_come_take_no_place_of_searches(listening):
    with (
        listening(api_key_env="SERVE_KEY", limits={"in_flight": 4, "connections": 32}) as port,
        held(port, head(), 40),
        held(port, head("/v1/search", 20, f"X-API-Key: {KEY}") + b'{"qu', 40),
    ):
        time.sleep(0.6)  # they have had their grace
        for _ in range(5):
            assert search(port, KEY).status_code == 200


def test_without_a_key_too(listening):
    with listening(limits={"in_flight": 4, "connections": 32}) as port, held(port, head(length=1000) + b'{"qu', 100):
        time.sleep(0.6)  # they have had their grace
        for _ in range(5):
            assert search(port).status_code == 200


def test_heads_and_bodies_and_answers_have_their_time(listening):
    limits = {"header_seconds": 0.5, "body_seconds": 1.0}
    with listening(limits=limits) as port:
        with held(port, b"", 1) as (silent,), held(port, b"POST /v1/search HT", 1) as (partial,):
            # Whatever trickles in: the whole head has its time, not each byte.
            began = time.monotonic()
            trickle = socket.create_connection(("127.0.0.1", port), timeout=10)
            with pytest.raises(OSError):
                for byte in b"POST /v1/search HTTP/1.1\r\nX-Slow: " + b"x" * 1000:
                    trickle.sendall(bytes([byte]))
                    time.sleep(0.05)
            assert 0.4 < time.monotonic() - began < 2.5
            assert closed_after(silent)[0] < 1 and closed_after(partial)[0] < 1
        with held(port, head() + BODY[:5], 1) as (one,):
            seconds, said = closed_after(one)
            assert said.startswith(b"HTTP/1.1 408 ") and 0.5 < seconds < 3
        with socket.create_connection(("127.0.0.1", port), timeout=10) as two:  # the second request of a connection
            two.sendall(head() + BODY)
            time.sleep(0.7)  # idle for longer than a head may take is no fault
            assert two.recv(2**16).startswith(b"HTTP/1.1 200")
            two.sendall(head() + BODY)
            assert two.recv(2**16).startswith(b"HTTP/1.1 200")
            two.sendall(b"POST /v1")
            assert closed_after(two)[0] < 2


def test_who_does_not_read_the_answers_is_closed(listening):
    with listening(limits={"body_seconds": 0.5}) as port, socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        one.settimeout(20)
        one.connect(("127.0.0.1", port))
        one.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)  # more than the kernel keeps for a client
        assert search(port).status_code == 200  # what was promised to others is kept meanwhile
        end = time.monotonic() + 10
        with pytest.raises(OSError):
            while time.monotonic() < end:
                time.sleep(0.1)
                one.sendall(b"P")


def test_a_body_for_nobody_is_not_kept(listening):
    """Half-bodies to a path that is none: the connection ends, and nothing of them stays."""
    with listening() as port:
        before, most = _memory(), 0
        for _ in range(4):
            ones = []
            for _ in range(100):
                one = socket.create_connection(("127.0.0.1", port), timeout=10)
                with suppress(OSError):  # closed already
                    one.sendall(head("/nowhere", 2**20) + b"x" * 200_000)
                ones.append(one)
            most = max(most, _memory())
            for one in ones:
                assert closed_after(one)[0] < 5
                one.close()
        assert most - before < 30e6


def _memory():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_probes_have_a_listener_of_their_own(listening, kit):
    release = threading.Event()

    async def stuck(queries, n):
        while not release.is_set():
            await asyncio.sleep(0.02)
        return [["x"]] * len(queries)

    health = kit.free_port()
    with listening(stuck, health_port=health, limits={"in_flight": 16, "connections": 16}) as port:
        url = f"http://127.0.0.1:{health}"
        for path in ("/healthz", "/readyz", "/metrics"):
            assert httpx.get(url + path).status_code == 200
            assert httpx.get(f"http://127.0.0.1:{port}{path}").status_code == 404
        assert httpx.post(url + "/v1/search", json={"query": "a"}).status_code == 404
        with held(port, head() + BODY, 16) as asked, held(health, b"GET /he", 40):
            time.sleep(0.3)
            with pytest.raises(httpx.TransportError):
                search(port, timeout=2)  # every connection is worked for: there is no room
            began = time.monotonic()
            assert httpx.get(url + "/healthz").json() == {"status": "alive"}
            assert httpx.get(url + "/readyz").status_code == 200
            assert time.monotonic() - began < 3  # a client of httpx takes a while to make
            release.set()
            for one in asked:
                assert one.recv(2**16).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("workers", [1, 2])
def test_few_open_files_are_kept_for_those_who_ask(platform, kit, tmp_path, workers):
    port, health = kit.free_port(), kit.free_port()
    config = platform.file(tmp_path / "corewrite.yaml", port=port, workers=workers, health_port=health)
    start = "import sys; from corewrite.cli.main import app; app()"

    def few_files():
        resource.setrlimit(resource.RLIMIT_NOFILE, (320, 320))

    with (tmp_path / "output").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", start, "serve", "--config", str(config)], stdout=out, stderr=out, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"}, preexec_fn=few_files,
        )  # fmt: skip
    try:
        url, end = f"http://127.0.0.1:{health}", time.monotonic() + 180
        while _status(f"{url}/readyz") != 200:
            assert process.poll() is None and time.monotonic() < end, (tmp_path / "output").read_text()
            time.sleep(0.2)
        with held(port, b"POST /v1/sea", 600), held(port, head() + b"{", 200):
            time.sleep(0.6)
            for _ in range(10):
                assert _status(f"{url}/healthz") == 200
                assert search(port).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert "Too many open files" not in (tmp_path / "output").read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _status(url):
    try:
        return httpx.get(url, timeout=5).status_code
    except httpx.TransportError:
        return 0
