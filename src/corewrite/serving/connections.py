"""Which connections wait for their clients, since when, and which of them has to go.

A connection either waits for its client (for the head of a request, its body, the client's reading of an answer, or the next
request) or is worked for. Only the first kind is bounded in time and may be closed to make room: who is slow makes way for who
is not, as nginx drains its oldest idle connections when it has no others left. This module knows no sockets and no clock.
"""

from collections.abc import Hashable, Iterator, Mapping
from enum import StrEnum
from typing import Generic, TypeVar

RESERVED_FILES = 160
"""Open files beside connections of clients: documents, registry, log, sockets of the rewriter and the backends, probes."""
LEAST_CONNECTIONS = 16
"""A server that may keep fewer open does not start."""
C = TypeVar("C", bound=Hashable)


class WaitingFor(StrEnum):
    """What a connection waits for."""

    HEAD = "head"
    BODY = "body"
    READING = "reading"
    NEXT = "next"


class Connections(Generic[C]):
    """The open connections of one listener.

    Args:
        most: Open at a time.
        seconds: How long each thing is waited for; what is not named, for ever.
        grace: How long a connection has before it makes way, seconds: on a busy server what it sent may only be unread.
    """

    def __init__(self, most: int, seconds: Mapping[WaitingFor, float], grace: float = 0.0) -> None:
        self.most, self._seconds, self._grace = most, dict(seconds), grace
        # In the order in which they began to wait.
        self._waiting: dict[C, tuple[WaitingFor, float]] = {}
        self._working: set[C] = set()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._working)

    def opened(self, connection: C, now: float) -> C | None:
        """Take a new connection in.

        Returns:
            The connection that has to be closed to make room, which is counted no more: the one that has waited longest for
            its client; the new one itself where the others are worked for or within their grace. None where there is room.
        """
        if len(self) < self.most:
            self._waiting[connection] = (WaitingFor.HEAD, now)
            return None
        oldest = next(iter(self._waiting), None)
        if oldest is None or now - self._waiting[oldest][1] < self._grace:
            return connection
        del self._waiting[oldest]
        self._waiting[connection] = (WaitingFor.HEAD, now)
        return oldest

    def waits(self, connection: C, what: WaitingFor, now: float) -> None:
        """Its client has to do something; said again of the same thing, it has been waited for since the first time."""
        if connection in self._working:
            self._working.discard(connection)
        elif connection not in self._waiting or self._waiting[connection][0] is what:
            return
        else:
            del self._waiting[connection]
        self._waiting[connection] = (what, now)

    def works(self, connection: C) -> None:
        """A whole request is there: it is the server's turn."""
        if self._waiting.pop(connection, None) is not None:
            self._working.add(connection)

    def closed(self, connection: C) -> None:
        """It is gone."""
        self._waiting.pop(connection, None)
        self._working.discard(connection)

    def overdue(self, now: float) -> Iterator[tuple[C, WaitingFor]]:
        """Connections that have waited for their clients for too long."""
        for connection, (what, since) in list(self._waiting.items()):
            if now - since > self._seconds.get(what, float("inf")):
                yield connection, what


def affordable_connections(wanted: int, open_files: int, backlog: int) -> int:
    """How many connections a process may keep open.

    Args:
        wanted: By the settings.
        open_files: What the process may open (`nofile`).
        backlog: Connections that may be accepted at once before the first of them is looked at.

    Raises:
        ValueError: too few to serve at all.
    """
    left = open_files - RESERVED_FILES - backlog
    if left < LEAST_CONNECTIONS:
        raise ValueError(
            f"this process may open {open_files} files, too few for itself and its clients: allow it at least "
            f"{RESERVED_FILES + backlog + LEAST_CONNECTIONS}, better {RESERVED_FILES + backlog + wanted} (`ulimit -n`)"
        )
    return min(wanted, left)
