"""Simulated users of a real server: they search over HTTP, click, watch and leave, and what they did comes back as events.

The server is `corewrite serve`'s application in a thread of its own, on a loopback port. A week takes minutes here, so every
request says in a header what time it is for the user who sends it, and the server's log goes by that.
"""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import httpx
import numpy as np
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from corewrite.domain import Catalogue, query_to_json
from corewrite.serving.app import build_app
from corewrite.serving.protocol import uvicorn_options
from corewrite.serving.settings import ServeConfig
from corewrite.simulation.week import DISPLAYED, Asked, ShownRanking, Week

_HEADER = "X-Simulated-Time"
_now: ContextVar[float | None] = ContextVar("simulated_time", default=None)
_READY_SECONDS = 180.0


class SearchServerError(RuntimeError):
    """A server that does not come up, or does not answer a search."""


def simulated_time() -> float:
    """The time of the request that is answered; the clock's where it does not say."""
    return time.time() if (now := _now.get()) is None else now


class _SimulatedTime:
    """ASGI middleware that reads the header."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            told = dict(scope["headers"]).get(_HEADER.lower().encode())
            _now.set(None if told is None else float(told))
        await self._app(scope, receive, send)


@contextmanager
def served(config: ServeConfig) -> Iterator[str]:
    """A server with these settings; the value is its address. Left, it drains and its log is whole.

    Raises:
        ServerError: it does not become ready.
    """
    app = build_app(config, clock=simulated_time)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = int(bound.getsockname()[1])
    settings = uvicorn.Config(_SimulatedTime(app), host="127.0.0.1", port=port, log_level="warning", **uvicorn_options())
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url, thread)
        yield url
    finally:
        server.should_exit = True
        thread.join(60)


def _wait_until_ready(url: str, thread: threading.Thread) -> None:
    end, said = time.monotonic() + _READY_SECONDS, "no answer"
    while time.monotonic() < end and thread.is_alive():
        try:
            answer = httpx.get(f"{url}/readyz", timeout=5)
            if answer.status_code == 200:
                return
            said = answer.text[:300]
        except httpx.TransportError as error:
            said = str(error)
        time.sleep(0.1)
    raise SearchServerError(f"the server did not become ready within {_READY_SECONDS:.0f} s: {said}")


@dataclass
class HttpUsers:
    """Asks a server, many searches at a time (a `simulation.traffic.Engine`), and tells it what its users did.

    Attributes:
        url: Where the server listens.
        catalogue: The documents.
        at_once: Requests in flight.
        arms: Arm that the server gave each user, as its answers said.
    """

    url: str
    catalogue: Catalogue
    at_once: int = 8

    def __post_init__(self) -> None:
        self.arms: dict[str, str] = {}
        self._row_of = self.catalogue.rows_by_id
        self._http = httpx.Client(base_url=self.url, timeout=60, limits=httpx.Limits(max_connections=self.at_once))

    def rank(self, asked: Sequence[Asked]) -> ShownRanking:
        """See `simulation.traffic.Engine.rank`; whether the arms' lists differ stands in the server's log alone."""
        with ThreadPoolExecutor(self.at_once) as pool:
            answers = list(pool.map(self._search, asked))
        rows = np.full((len(asked), DISPLAYED), -1, np.int64)
        for i, (ids, _) in enumerate(answers):
            rows[i, : len(ids)] = [self._row_of[i] for i in ids]
        return ShownRanking(rows, np.zeros(len(asked), np.bool_), query_ids=tuple(query_id for _, query_id in answers))

    def tell(self, week: Week) -> int:
        """Send the events of a week; how many there were."""
        events = list(_events(week, self.catalogue))
        for start in range(0, len(events), 500):
            answer = self._http.post("/v1/events", json={"events": events[start : start + 500]})
            if answer.status_code != 200 or answer.json()["rejected"]:
                raise SearchServerError(f"events were not taken: {answer.status_code} {answer.text[:300]}")
        return len(events)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _search(self, asked: Asked) -> tuple[list[str], str]:
        body = {
            **query_to_json(asked.query),
            "client_id": asked.user_id,
            "session_id": asked.session_id,
            "depth": DISPLAYED,
        }
        answer = self._http.post("/v1/search", json=body, headers={_HEADER: repr(asked.timestamp)})
        if answer.status_code != 200:
            raise SearchServerError(f"a search failed: {answer.status_code} {answer.text[:300]}")
        found = answer.json()
        self.arms[asked.user_id] = found["arm"]
        return [r["id"] for r in found["results"]], found["query_id"]


def _events(week: Week, catalogue: Catalogue) -> Iterator[dict[str, object]]:
    """Clicks and watches as a front end would send them, in the order of time within each search."""
    for i in range(len(week)):
        for k in np.flatnonzero(week.click[i]):
            row = int(week.ranking.rows[i, k])
            at, watched = float(week.click_time[i, k]), float(week.watch_seconds[i, k])
            shared = {"query_id": week.query_ids[i], "client_id": week.user_ids[i], "session_id": week.session_ids[i]}
            about = {
                "object": {"object_id": catalogue.ids[row], "object_id_type": "video"},
                "position": {"ordinal": int(k) + 1},
            }
            yield {**shared, "action_name": "click", "timestamp": at, "event_attributes": about}
            times = {"watch_seconds": watched, "duration_seconds": float(catalogue.seconds[row])}
            yield {**shared, "action_name": "watch", "timestamp": at + watched, "event_attributes": {**about, **times}}
