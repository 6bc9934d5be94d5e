"""Connections of redis-py that keep to the present budget; needs redis."""

import socket
from typing import Any
from urllib.parse import urlsplit

from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection

from corewrite.remote.budget import present_budget

_PIECE = 2**14
"""Bytes written at once: few enough that a server which takes a byte at a time is asked for the time often."""


def bounded_connection(url: str) -> type[Connection] | type[UnixDomainSocketConnection]:
    """The class of connections for `Redis.from_url(url, connection_class=...)`.

    Inside `spending(budget)` all reads and writes of a command, or of a pipeline, together end in its time and size: the
    client's own time-outs are of one wait, and a server that trickles is never late by them. Failures are redis-py's own.

    Args:
        url: Of the server.
    """
    return {"rediss": _Tls, "unix": _Unix}.get(urlsplit(url).scheme, _Plain)


class _Socket:
    """A connected socket whose waits are those of the present budget."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket, self._timeout = connected, connected.gettimeout()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def settimeout(self, timeout: float | None) -> None:
        self._timeout = timeout

    def gettimeout(self) -> float | None:
        return self._timeout

    def recv(self, size: int, flags: int = 0) -> bytes:
        self._wait()
        data = self._socket.recv(size, flags)
        present_budget().read(len(data))
        return data

    def recv_into(self, buffer: Any, num_bytes: int = 0, flags: int = 0) -> int:
        self._wait()
        done = self._socket.recv_into(buffer, num_bytes, flags)
        present_budget().read(done)
        return done

    def sendall(self, data: Any, flags: int = 0) -> None:
        whole = memoryview(data)
        for start in range(0, len(whole), _PIECE):
            self._wait()
            self._socket.sendall(whole[start : start + _PIECE], flags)

    def _wait(self) -> None:
        self._socket.settimeout(present_budget().wait(self._timeout))


# redis-py has no other place for it; tests/remote would notice if another version connected elsewhere.
class _Plain(Connection):
    def _connect(self) -> Any:
        return _Socket(super()._connect())  # type: ignore[no-untyped-call]


class _Tls(SSLConnection):
    def _connect(self) -> Any:
        return _Socket(super()._connect())  # type: ignore[no-untyped-call]


class _Unix(UnixDomainSocketConnection):
    def _connect(self) -> Any:
        return _Socket(super()._connect())  # type: ignore[no-untyped-call]
