"""Before anything of a request is understood: its size, its pace, how many there are at a time, and how long each took."""

import asyncio
import re
import time
from typing import Any

from fastapi.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from corewrite.serving.metrics import Metrics
from corewrite.serving.problems import problem
from corewrite.serving.settings import Limits

_BODY_SECONDS = 10.0
_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})


class Edge:
    """ASGI middleware: bodies are read whole, within a limit of bytes and of time, before the application sees them."""

    def __init__(
        self, app: ASGIApp, limits: Limits, metrics: Metrics, routes: frozenset[str], hosts: frozenset[str] = frozenset()
    ) -> None:
        """Guard `app`; only paths in `routes` are counted by name, and only `hosts` served, in small letters; none: all."""
        self._app, self._limits, self._metrics, self._routes, self._hosts = app, limits, metrics, routes, hosts
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        scope.setdefault("state", {})["arrived"] = began
        route = scope["path"] if scope["path"] in self._routes else "other"
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        if self._hosts and route not in _PROBES and _host_of(scope) not in self._hosts:
            await problem(400, "the Host of the request is none that this server goes by")(scope, receive, noted)
            self._metrics.requests.labels(route, str(status)).inc()
            return
        limited = route.startswith("/v1/") and not route.startswith("/v1/admin/")
        if limited and self._in_flight >= self._limits.in_flight:
            answer = problem(429, f"{self._in_flight} requests are worked on already", headers={"Retry-After": "1"})
            await answer(scope, receive, noted)
            self._metrics.requests.labels(route, str(status)).inc()
            return
        self._in_flight += limited
        self._metrics.in_flight.set(self._in_flight)
        try:
            body = await self._body(scope, receive)
            if isinstance(body, Response):
                await body(scope, receive, noted)
            elif body is not None:
                await self._app(scope, _replayed(body, receive), noted)
            else:
                status = 499  # as nginx counts them: the client went away, which is no fault of the server
        finally:
            self._in_flight -= limited
            self._metrics.in_flight.set(self._in_flight)
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.monotonic() - began)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | Response | None:
        """The body; the answer where it is refused; None where the client went away."""
        limit = self._limits.body_bytes
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope["headers"]}:
            # Two ends of one body: a proxy in front may go by the other one (RFC 9112, section 6.3).
            return problem(400, "Content-Length and Transfer-Encoding exclude each other", headers={"Connection": "close"})
        too_large = f"a body of at most {limit} bytes is taken"
        for name, value in scope["headers"]:
            if name == b"content-length" and (not value.isdigit() or int(value[:20]) > limit):
                return problem(413, too_large, headers={"Connection": "close"})
        parts: list[bytes] = []
        size, more = 0, True
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        return problem(413, too_large, headers={"Connection": "close"})
                    more = message.get("more_body", False)
        except TimeoutError:
            return problem(408, f"the body did not come within {_BODY_SECONDS:g} s", headers={"Connection": "close"})
        return b"".join(parts)


def _host_of(scope: Scope) -> str:
    """The name by which a request calls the server, without the port; empty where it is none."""
    named = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"host"]
    if len(named) != 1:
        return ""
    found = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^:\[\]@/]+?)\.?(:\d{1,5})?", named[0])
    return found[1] if found else ""


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def once() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return once
