"""Liveness, readiness and metrics, beside the other calls or on a listener of their own."""

import asyncio
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST
from uvicorn.server import ServerState

from corewrite.serving import problems
from corewrite.serving.problems import ProblemError, problem_responses, without_places
from corewrite.serving.protocol import GuardedProtocol, ListenerState, uvicorn_options
from corewrite.serving.service import Service

PROBE_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
PROBE_CONNECTIONS = 32
"""Connections that a listener for probes keeps open."""


def add_probes(app: FastAPI, service: Service) -> None:
    """Let `app` answer the calls of `PROBE_PATHS`; none asks for a key."""

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the process is alive."""
        return {"status": "alive"}

    @app.get("/readyz", responses=problem_responses(503))
    async def readyz() -> dict[str, Any]:
        """Whether a real rewrite succeeded lately, and searches do not hang."""
        if not service.ready:
            why = "a search hangs" if service.hangs else "no rewrite succeeded lately"
            raise ProblemError(503, service.versions.problem or why)
        # A champion that cannot be loaded leaves the one before in service: ready, but somebody should know.
        return {"status": "ready", "problem": without_places(service.versions.problem), **service.state()}

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """For Prometheus."""
        service.gauges()
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


class ProbeListener:
    """Answers probes in the event loop of a worker, on a port that all workers share: each call is answered by one of them."""

    def __init__(self, service: Service, state: ListenerState, host: str, port: int) -> None:
        """Listen on `host` and `port` from `open` on; the connections are those of `state`."""
        self._app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
        add_probes(self._app, service)
        problems.install(self._app)
        self._place, self._state, self._server = (host, port), state, ServerState()
        self._listening: asyncio.Server | None = None

    async def open(self) -> None:
        """Begin to listen.

        Raises:
            OSError: the port is taken.
        """
        config = uvicorn.Config(self._app, lifespan="off", proxy_headers=False, log_config=None, **uvicorn_options())
        config.load()

        def make() -> GuardedProtocol:
            return GuardedProtocol(config, self._server, dict(self._state))

        host, port = self._place
        self._listening = await asyncio.get_running_loop().create_server(
            make, host, port, backlog=PROBE_CONNECTIONS, reuse_port=True
        )

    async def close(self) -> None:
        """End it, with the connections that are open."""
        if self._listening is not None:
            self._listening.close()
            for connection in list(self._server.connections):
                connection.transport.abort()  # type: ignore[union-attr]  # they are all of `make`
            await self._listening.wait_closed()
