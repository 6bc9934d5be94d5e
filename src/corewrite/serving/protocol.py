"""HTTP/1.1 by uvicorn, with the bounds on clients that uvicorn has not: time for heads, bodies and answers, and how many."""

import asyncio
import resource
import sys
import time
from typing import Any, TypedDict

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from corewrite.serving.connections import RESERVED_FILES, Connections, WaitingFor, affordable_connections
from corewrite.serving.settings import Limits
from corewrite.serving.shedding import Shedding, answer

KEEP_ALIVE_SECONDS = 75
"""An idle connection is kept: longer than the usual proxy keeps it, or the proxy would meet a closed one."""
BACKLOG = 256
"""Connections that the kernel accepts before the server does; as many may be accepted in one go."""
_SWEEP_SECONDS = 0.25
_GRACE_SECONDS = 0.5


class ListenerState(TypedDict):
    """What a listener's connections share: the lifespan's state, of which uvicorn gives each of them a view."""

    connections: "Connections[GuardedProtocol]"
    shedding: Shedding | None


class GuardedProtocol(H11Protocol):
    """uvicorn's protocol, whose client may take only so long for each thing that is waited for.

    The listener's `Connections` are in the lifespan's state under `connections`, by which `watch` closes what is late. The
    state that a request's scope starts with has `received`, when its head was read, by `time.monotonic`.
    """

    _listener: "Connections[GuardedProtocol]"
    _shedding: Shedding | None
    _served: bool

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._listener, self._shedding = self.app_state["connections"], self.app_state["shedding"]
        self._served = False
        victim = self._listener.opened(self, time.monotonic())
        if victim is not None:
            victim.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._listener.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self.transport.is_closing():
            return  # it made way, or is late: nothing of it is begun any more
        if self._shedding is not None and self._is_idle() and self._shedding.refuses(data):
            self._refuse()
            return
        super().data_received(data)
        self._account()

    def handle_events(self) -> None:
        """Understand what was received."""
        # Copied into the scope of a request whose head is complete.
        self.app_state["received"] = time.monotonic()
        super().handle_events()

    def on_response_complete(self) -> None:
        """Go on to the next request; not where the body of this one is still to come, which no handler would read."""
        if self.conn.their_state is h11.SEND_BODY:
            self.transport.close()
        super().on_response_complete()
        self._account()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`: what was answered is not read, and the rest of an answer waits for that."""
        super().pause_writing()
        self._account()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().resume_writing()
        self._account()

    def late(self, what: WaitingFor) -> None:
        """What was waited for did not come in time."""
        if what is WaitingFor.READING and not self.transport.is_closing() and not self.transport.get_write_buffer_size():
            self._account()
            return
        # Not `close`, which would wait for the client to read what is left.
        self.transport.abort()

    def _is_idle(self) -> bool:
        """Whether what comes next begins a request, and nothing of it has come."""
        done = self.cycle is None or self.cycle.response_complete
        return done and self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0] and not self.flow.write_paused

    def _refuse(self) -> None:
        """Answer a search that was read whole, without h11, which has seen nothing of it."""
        self.transport.write(answer(self.server_state.default_headers))
        self._served = True
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        self._listener.works(self)
        self._account()

    def _account(self) -> None:
        """Say what the connection waits for now."""
        what = self._waiting_for()
        if what is None:
            self._listener.works(self)
        else:
            self._listener.waits(self, what, time.monotonic())

    def _waiting_for(self) -> WaitingFor | None:
        if self.transport.is_closing() or self.flow.write_paused:
            return WaitingFor.READING
        if self.cycle is not None and not self.cycle.response_complete:
            return WaitingFor.BODY if self.conn.their_state is h11.SEND_BODY else None
        if self.transport.get_write_buffer_size():
            return WaitingFor.READING
        fresh = self.cycle is None and not self._served
        return WaitingFor.HEAD if fresh or self.conn.trailing_data[0] else WaitingFor.NEXT


def listener_state(most: int, limits: Limits, shedding: Shedding | None = None) -> ListenerState:
    """The state of a listener that keeps at most `most` connections open; with `shedding`, of one that searches flood."""
    # A body that the application waits for is late there first, which answers 408. An answer is given the time of a body: both
    # are a matter of what a client's line can carry. `NEXT` is uvicorn's to end.
    seconds = {
        WaitingFor.HEAD: limits.header_seconds,
        WaitingFor.BODY: limits.body_seconds + 1,
        WaitingFor.READING: limits.body_seconds,
    }
    return {"connections": Connections(most, seconds, 0.0 if shedding is None else _GRACE_SECONDS), "shedding": shedding}


async def watch(*listeners: ListenerState) -> None:
    """Close the connections of clients that are late, until cancelled."""
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        for listener in listeners:
            for connection, what in listener["connections"].overdue(time.monotonic()):
                connection.late(what)


def most_connections(limits: Limits) -> int:
    """How many connections a worker keeps open: those of the settings, or what the limit on open files leaves.

    Raises:
        ValueError: it leaves too few.
    """
    return affordable_connections(limits.connections, _open_files(), backlog())


def backlog() -> int:
    """`listen`'s backlog, no more than an eighth of the files that may be open: all of it may be accepted at once."""
    return min(BACKLOG, max(8, _open_files() // 8))


def _open_files() -> int:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def allow_open_files(limits: Limits) -> None:
    """Raise the soft limit on open files to what the settings need, as far as the hard one lets.

    Raises:
        ValueError: it leaves too few for a server.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = limits.connections + BACKLOG + RESERVED_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    most_connections(limits)


def uvicorn_options() -> dict[str, Any]:
    """What every listener of the service says to uvicorn."""
    return {
        "http": "corewrite.serving.protocol:GuardedProtocol",
        "ws": "none",
        "access_log": False,
        "server_header": False,
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        "backlog": backlog(),
    }
