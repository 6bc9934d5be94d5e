"""Refusing without h11: only what h11 takes for one whole search, and what is refused is heard and counted."""

import asyncio
import json
import socket
import threading
import time

import h11
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import Counter

from corewrite.serving.admission import Admission
from corewrite.serving.shedding import Shedding, answer, is_one_search

BODY = b'{"query": "lion"}'
GOOD = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n" + BODY
PIECES = (
    b"POST /v1/search HTTP/1.1\r\n", b"POST /v1/explain HTTP/1.1\r\n", b"POST /v1/events HTTP/1.1\r\n",
    b"GET /v1/search HTTP/1.1\r\n",
    b"Host: x\r\n", b"Host : x\r\n", b"Content-Length: 17\r\n", b"content-length:17 \r\n", b"Content-Length: 18\r\n",
    b"Content-Length: 0\r\n", b"Content-Length: +17\r\n", b"Content-Length: 17, 17\r\n", b" Content-Length: 17\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\n",
    b"X: a\n", b"X: a\r", b"X: \xff\r\n", b"X: \x00\r\n", b"\r\n", b"\n", b"\r", BODY, BODY[:9], b"junk", b"X: y\r\n",
)  # fmt: skip
requests = st.lists(st.sampled_from(PIECES), max_size=9).map(b"".join) | st.builds(
    lambda at, byte: GOOD[:at] + byte + GOOD[at + 1 :], st.integers(0, len(GOOD)), st.binary(max_size=2)
)


@given(data=requests)
@example(data=GOOD)
@example(data=GOOD + b"x")
@example(data=GOOD.replace(b"Host: x\r\n", b"Host: x\n\n"))
def test_what_is_one_search_is_one_for_h11(data):
    if not is_one_search(data):
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    try:
        request = connection.next_event()
    except h11.RemoteProtocolError:
        return  # 400 or 429, it is refused as one request
    assert isinstance(request, h11.Request)
    assert request.method == b"POST" and request.target in (b"/v1/search", b"/v1/explain")
    length, event = 0, connection.next_event()
    while isinstance(event, h11.Data):
        length, event = length + len(event.data), connection.next_event()
    assert isinstance(event, h11.EndOfMessage) and length == len(data.partition(b"\r\n\r\n")[2])
    assert connection.trailing_data == (b"", False) and connection.their_state is h11.DONE


def test_a_plain_search_is_one():
    assert is_one_search(GOOD) and is_one_search(GOOD.replace(b"search", b"explain"))
    assert not any(map(is_one_search, (GOOD[:-1], GOOD + b"x", GOOD + GOOD, b"", GOOD.replace(b"/v1/search", b"/v1/rewrite"))))


def test_the_answer_is_a_response():
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/v1/search", headers=[("Host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(answer([(b"date", b"today")]))
    response = connection.next_event()
    headers = dict(response.headers)
    assert response.status_code == 429 and headers[b"retry-after"] == b"1" and headers[b"date"] == b"today"
    assert json.loads(connection.next_event().data)["status"] == 429
    assert isinstance(connection.next_event(), h11.EndOfMessage) and connection.their_state is h11.DONE


def test_only_a_full_service_refuses_and_it_counts():
    admission, requests = Admission(0.01, 512), Counter("r", "", ("route", "status"), registry=None)
    shedding = Shedding(admission, requests)
    assert not shedding.refuses(GOOD)
    while admission.admit(0.0):
        pass
    assert shedding.refuses(GOOD) and not shedding.refuses(GOOD[:-1])
    assert requests.labels("/v1/search", "429")._value.get() == 1


def status_of(one):
    """Status of a whole response."""
    data = b""
    while True:
        data += one.recv(2**16)
        head, found, body = data.partition(b"\r\n\r\n")
        if found and len(body) >= int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]):
            return int(data[9:12])


def test_refused_connections_go_on(listening):
    release = threading.Event()

    async def stuck(queries, n):
        while not release.is_set():
            await asyncio.sleep(0.02)
        return [["x"]] * len(queries)

    deadlines = {"recall": 20_000, "rawrank": 20_000, "finerank": 20_000, "search": 30_000}
    with listening(stuck, limits={"header_seconds": 0.4, "in_flight": 8}, deadlines=deadlines) as port:
        ones = []
        for _ in range(40):
            ones.append(socket.create_connection(("127.0.0.1", port), timeout=20))
            ones[-1].sendall(GOOD)
        threading.Event().wait(1)  # all of them are read
        last = socket.create_connection(("127.0.0.1", port), timeout=20)
        for _ in range(3):  # the same connection, refused for longer than a head may take to come
            last.sendall(GOOD)
            assert status_of(last) == 429
            threading.Event().wait(0.3)
        last.sendall(GOOD[:60])
        threading.Event().wait(0.1)
        last.sendall(GOOD[60:])  # in two pieces: the usual way
        assert status_of(last) == 429
        release.set()
        statuses = list(map(status_of, ones))
        assert set(statuses) == {200, 429} and statuses.count(200) == 8
        last.sendall(GOOD)
        assert status_of(last) == 200


def test_the_service_tells_how_long_searches_wait(made, kit, monkeypatch):
    async def check():
        async with kit.running(made.config(limits={"queue_ms": 1}), kit.as_title(made.catalogue)) as client:
            cascade = type(client.service.versions.present.cascades["all_stages"])
            rawrank = cascade.rawrank

            def slow(self, *arguments):
                time.sleep(0.01)
                return rawrank(self, *arguments)

            monkeypatch.setattr(cascade, "rawrank", slow)
            admission, limits = client.service.admission, [client.service.admission.limit]

            async def asks(k):
                for i in range(15):
                    answer = await client.http.post("/v1/search", json={"query": f"q{k} {i}"})
                    assert answer.status_code in (200, 429)
                    limits.append(admission.limit)

            await asyncio.gather(*map(asks, range(24)))
            assert min(limits) < limits[0] and admission.in_flight == 0

    asyncio.run(check())
