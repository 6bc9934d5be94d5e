"""HTTP by httpx under limits that hold for a whole exchange; needs httpx."""

import ssl
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from corewrite.remote.budget import Budget, present_budget, spending

MOST_BYTES = 64 * 2**20
"""Default size of an answer at most, with its head."""
_PIECE = 2**14
"""Bytes written at once: few enough that a server which takes a byte at a time is asked for the time often."""


class BoundedTransport(httpx.HTTPTransport):  # type: ignore[misc]
    """A transport whose requests end in time and size: `httpx.Client(transport=BoundedTransport(url))`.

    The largest of a request's timeouts (`timeout=` of the client or the call) is that of the whole exchange, from the first
    packet to the end of the body, and no longer of one wait: a server that trickles is late like any other. Nothing is
    unpacked: `Accept-Encoding` is `identity`, and what comes compressed all the same is refused, since a small answer may
    unpack to any size. Looking up a name is not bounded (`corewrite.remote.Patience` is).

    Failures are `httpx.TransportError`, as they always are.

    Args:
        url: Of the server; a proxy that the environment names for it is used, as httpx would.
        most_bytes: Size of an answer at most, with its head.
        limits: Of connections, as httpx takes them; None: its defaults.
    """

    def __init__(self, url: str, *, most_bytes: int = MOST_BYTES, limits: httpx.Limits | None = None) -> None:
        given: dict[str, Any] = {} if limits is None else {"limits": limits}
        super().__init__(proxy=_load_proxy(url), **given)
        self._most_bytes = most_bytes
        # httpx has no parameter for it; tests/remote would notice if another version kept it elsewhere.
        self._pool._network_backend = _Backend(self._pool._network_backend)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx."""
        timeouts = [t for t in request.extensions.get("timeout", {}).values() if t is not None]
        budget = Budget(max(timeouts, default=None), self._most_bytes)
        request.headers["Accept-Encoding"] = "identity"
        with spending(budget):
            response = super().handle_request(request)
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            with spending(budget):
                response.close()
            raise httpx.RemoteProtocolError("the answer is compressed, which was not asked for", request=request)
        assert isinstance(response.stream, httpx.SyncByteStream)
        response.stream = _Body(response.stream, budget)
        return response


class _Body(httpx.SyncByteStream):  # type: ignore[misc]
    """A body that is read under the budget of its request."""

    def __init__(self, stream: httpx.SyncByteStream, budget: Budget) -> None:
        self._stream, self._budget = stream, budget

    def __iter__(self) -> Iterator[bytes]:
        parts = iter(self._stream)
        while True:
            with spending(self._budget):  # not around `yield`: what the reader does meanwhile is no part of it
                part = next(parts, None)
            if part is None:
                return
            yield part

    def close(self) -> None:
        self._stream.close()


class _Stream(httpcore.NetworkStream):
    """A connection whose waits are those of the present budget."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        budget = present_budget()
        data = self._stream.read(max_bytes, _wait(budget, timeout, httpcore.ReadTimeout))
        try:
            budget.read(len(data))
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        budget = present_budget()
        for start in range(0, len(buffer), _PIECE):
            self._stream.write(buffer[start : start + _PIECE], _wait(budget, timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        wait = _wait(present_budget(), timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, wait))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore.NetworkBackend):
    """Opens connections that keep to the present budget."""

    def __init__(self, backend: httpcore.NetworkBackend) -> None:
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        wait = _wait(present_budget(), timeout, httpcore.ConnectTimeout)
        return _Stream(self._backend.connect_tcp(host, port, wait, local_address, socket_options))

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None
    ) -> httpcore.NetworkStream:
        wait = _wait(present_budget(), timeout, httpcore.ConnectTimeout)
        return _Stream(self._backend.connect_unix_socket(path, wait, socket_options))

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


def _wait(budget: Budget, timeout: float | None, late: type[Exception]) -> float | None:
    try:
        return budget.wait(timeout)
    except TimeoutError as error:
        raise late(str(error)) from error


def _load_proxy(url: str) -> str | None:
    """The proxy that the environment names for an address."""
    address, proxies = urlsplit(url), getproxies()
    if not address.hostname or proxy_bypass(address.hostname):
        return None
    found = proxies.get(address.scheme) or proxies.get("all")
    return found if found is None or "://" in found else f"http://{found}"
