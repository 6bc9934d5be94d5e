"""A sampling server that lies, trickles, is silent or never ends: one kind of error, within time and memory."""

import json
import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corewrite.training.samplers import server_client
from corewrite.training.samplers.server_answers import read_completions
from corewrite.training.samplers.server_client import SamplingServerError, ServerClient

pytest.importorskip("httpx")
SECONDS = 0.3


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(server_client, "_FIRST_WAIT", 0.001)
    monkeypatch.delenv("COREWRITE_SERVER_KEY", raising=False)


def asked(url: str, timeout: float = SECONDS) -> object:
    http = ServerClient(url, 2, timeout)
    try:
        return http.json("POST", "/v1/completions", {"prompt": [1]})
    finally:
        http.close()


@pytest.mark.parametrize("behave", ["silent", "trickled_headers", "trickled_body"])
def test_a_request_ends_in_its_time(bad, behave):
    """A trickled body had outlasted the time-out 40-fold and more."""
    with bad.hostile(getattr(bad, behave)) as server:
        seconds, error = bad.decision_seconds(lambda: asked(server.url))
        assert isinstance(error, SamplingServerError) and "tried 5 times: no answer" in str(error)
        assert seconds < 5 * SECONDS + 2


@pytest.mark.parametrize("behave", ["gigabyte", "bomb"])
def test_an_answer_has_its_size(bad, behave):
    """A megabyte of gzip had taken 5.7 GB."""
    with bad.hostile(getattr(bad, behave)) as server:
        _, error = bad.decision_seconds(lambda: asked(server.url, timeout=20.0))
        assert isinstance(error, SamplingServerError), repr(error)
        assert server.sent < 64 * 2**20


def says(head: bytes, body: bytes = b"", length: bool = True):
    def behave(server, connection):
        connection.recv(65536)
        size = b"Content-Length: %d\r\n" % len(body) if length else b""
        server.send(connection, head + b"\r\n" + size + b"\r\n" + body)

    return behave


OK = b"HTTP/1.1 200 OK"
ANSWERS = {
    "deep lists": says(OK, b"[" * 100_000),
    "deep mappings": says(OK, b'{"a":' * 100_000),
    "a number of a megabyte": says(OK, b"9" * 2**20),
    "half a character": says(OK, b'"\xff"'),
    "a codec that unpacks": says(OK + b"\r\nContent-Type: application/json; charset=zlib_codec", b"x"),
    "a codec of bytes": says(OK + b"\r\nContent-Type: text/plain; charset=hex", b"zz"),
    "an encoding nobody asked for": says(OK + b"\r\nContent-Encoding: gzip", b"no gzip"),
    "another protocol": says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade", b"", False),
    "no HTTP": says(b"\x16\x03\x01", b"", False),
    "an early end": says(OK + b"\r\nContent-Length: 1000", b"{}", False),
    "broken chunks": says(OK + b"\r\nTransfer-Encoding: chunked", b"zz\r\n", False),
    "a redirect": says(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/"),
    "nothing": says(b"HTTP/1.1 204 No Content"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_whatever_is_answered_is_one_error(bad, name):
    with bad.hostile(ANSWERS[name]) as server:
        _, error = bad.decision_seconds(lambda: asked(server.url, timeout=5.0))
        assert isinstance(error, SamplingServerError), repr(error)
        assert server.url in str(error) and len(str(error)) < 600


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", OK + b"\r\n\r\n", OK + b"\r\nTransfer-Encoding: chunked\r\n\r\n"]))
def test_bytes_of_any_kind_are_one_error(bad, content, head):
    def behave(server, connection):
        connection.recv(65536)
        server.send(connection, head + content)

    with bad.hostile(behave) as server, suppress(SamplingServerError):
        asked(server.url, timeout=5.0)


TOKENS = {"token_ids": [5, 1], "logprobs": {"token_logprobs": [-1.0, -1.0]}, "index": 0}
WRONG = {
    "a prompt that is a number": {"prompt_token_ids": 5},
    "a probability beyond floats": {"logprobs": {"token_logprobs": [-1, -(10**400)]}},
    "a token of a thousand digits": {"token_ids": [10**1000, 1]},
    "a token beyond printing": {"token_ids": [10**5000, 1]},
    "a long reason": {"token_ids": [5], "logprobs": {"token_logprobs": [-1]}, "finish_reason": "x" * 10**6},
    "many probabilities": {"logprobs": {"token_logprobs": ["x" * 1000] * 2}},
    "a list for an index": {"index": [0]},
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_read_is_a_value_error(name):
    with pytest.raises(ValueError) as caught:
        read_completions({"choices": [TOKENS | WRONG[name]]}, [3], 1, 4, 100, 1)
    assert len(str(caught.value)) < 600


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from([*TOKENS, "choices"]), inside, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(JSON, JSON, st.sampled_from([*TOKENS, "prompt_token_ids", "finish_reason"]))
def test_answers_of_any_kind_are_read_or_refused(answer, value, key):
    for one in (answer, {"choices": [answer]}, {"choices": [TOKENS | {key: value}]}):
        with suppress(ValueError):
            assert len(read_completions(json.loads(json.dumps(one)), [3], 1, 4, 100, 1)) == 1


def test_time_is_not_lost_to_a_good_server(bad):
    with bad.hostile(says(OK, b'{"a": "\xc3\xa4"}')) as server:
        began = time.monotonic()
        assert asked(server.url, timeout=20.0) == {"a": "ä"}
        assert time.monotonic() - began < 5
