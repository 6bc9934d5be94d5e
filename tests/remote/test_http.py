"""A request by `BoundedTransport` ends in its time and within its size, whatever the server does."""

import threading

import httpx
import pytest

from corewrite.remote.http import BoundedTransport


def client(server, **more):
    return httpx.Client(transport=BoundedTransport(server.url, **more))


@pytest.mark.parametrize("behave", ["silent", "trickled_headers", "trickled_body"])
def test_the_timeout_is_of_the_whole_exchange(bad, behave):
    with bad.hostile(getattr(bad, behave)) as server, client(server) as http:
        seconds, error = bad.decision_seconds(lambda: http.post(server.url, content=b"x", timeout=0.4))
    assert isinstance(error, httpx.TimeoutException) and 0.3 < seconds < 2


@pytest.mark.parametrize("behave", ["gigabyte", "bomb"])
def test_no_more_is_read_than_asked_and_nothing_is_unpacked(bad, behave):
    with bad.hostile(getattr(bad, behave)) as server, client(server, most_bytes=2**20) as http:
        seconds, error = bad.decision_seconds(lambda: http.post(server.url, content=b"x", timeout=5))
        assert server.sent < 32 * 2**20  # what the kernel's buffers took
    assert isinstance(error, httpx.TransportError) and seconds < 4


def test_a_request_that_is_read_slowly_ends_too(bad):
    def slow_reader(server, connection):
        while not server.stopped.wait(0.02):
            if not connection.recv(512):
                return

    with bad.hostile(slow_reader) as server, client(server) as http:
        seconds, error = bad.decision_seconds(lambda: http.post(server.url, content=b"x" * 2**26, timeout=0.4))
    assert isinstance(error, httpx.TimeoutException) and seconds < 2


def test_an_honest_server_is_read_as_before_on_one_connection(bad):
    body = b"[1, 2, 3]"

    def honest(server, connection):
        while (asked := connection.recv(65536)) and not server.stopped.is_set():
            assert b"accept-encoding: identity" in asked.lower()
            server.send(connection, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    with bad.hostile(honest) as server, client(server) as http:
        answers = [http.get(server.url, timeout=2).content for _ in range(5)]
        assert server.held == 1
    assert answers == [body] * 5


def test_every_thread_has_a_deadline_of_its_own(bad):
    with bad.hostile(bad.silent) as server, client(server) as http:
        took = {}

        def ask(timeout):
            took[timeout] = bad.decision_seconds(lambda: http.get(server.url, timeout=timeout))[0]

        threads = [threading.Thread(target=ask, args=(t,)) for t in (0.2, 0.6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert took[0.2] < took[0.6] < 3
