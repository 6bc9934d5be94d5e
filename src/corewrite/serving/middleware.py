"""Before anything of a request is understood: its key, its size, its pace, how many there are at a time, how long each took."""

import asyncio
import hmac
import re
import time
from typing import Any

from fastapi.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from corewrite.serving.admission import Admission
from corewrite.serving.metrics import Metrics
from corewrite.serving.probes import PROBE_PATHS
from corewrite.serving.problems import problem
from corewrite.serving.settings import Limits
from corewrite.serving.shedding import FULL, SEARCH_PATHS


class Edge:
    """ASGI middleware: who may ask is settled first, then bodies are read whole, within a limit of bytes and of time, and only
    a request that is all there takes the place of one that is worked on."""

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        metrics: Metrics,
        routes: frozenset[str],
        hosts: frozenset[str] = frozenset(),
        key: str | None = None,
        admission: Admission | None = None,
    ) -> None:
        """Guard `app`.

        Args:
            app: The application.
            limits: Of requests.
            metrics: Where they are counted.
            routes: Paths that are counted by name, and may have bodies.
            hosts: Names in small letters that are served; none: all.
            key: Without it calls get 401; None: none is asked for, and admin calls are refused.
            admission: Lets searches in; None: all are.
        """
        self._app, self._limits, self._metrics, self._routes, self._hosts = app, limits, metrics, routes, hosts
        self._key = None if key is None else key.encode()
        self._admission = admission
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        state = scope.setdefault("state", {})
        state["arrived"] = state.get("received", began)
        route = scope["path"] if scope["path"] in self._routes else "other"
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            refusal = self._refusal(scope, route)
            if refusal is not None:
                await refusal(scope, receive, _last(scope, noted))
            elif not _has_body(route):
                # This route takes no body: one that came is not read.
                await self._app(scope, _replayed(b"", receive), _last(scope, noted))
            else:
                status = await self._with_body(scope, receive, noted) or status
        finally:
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.monotonic() - began)

    def _refusal(self, scope: Scope, route: str) -> Response | None:
        """What the head alone is answered; None where it is in order."""
        if self._hosts and route not in PROBE_PATHS and _parse_host(scope) not in self._hosts:
            return problem(400, "the Host of the request is none that this server goes by")
        names = [name for name, _ in scope["headers"]]
        if b"content-length" in names and b"transfer-encoding" in names:
            # Two ends of one body: a proxy in front may go by the other one (RFC 9112, section 6.3).
            return problem(400, "Content-Length and Transfer-Encoding exclude each other")
        if route.startswith("/v1/admin/") and self._key is None:
            return problem(403, "admin calls need a key: name its environment variable in api_key_env")
        if route.startswith("/v1/") and self._key is not None:
            given = [value for name, value in scope["headers"] if name == b"x-api-key"]
            if len(given) != 1 or not hmac.compare_digest(given[0], self._key):
                return problem(401, "the X-API-Key header is missing or wrong", headers={"WWW-Authenticate": "ApiKey"})
        for name, value in scope["headers"]:
            if name == b"content-length" and (not value.isdigit() or int(value[:20]) > self._limits.body_bytes):
                return self._too_large()
        return None

    async def _with_body(self, scope: Scope, receive: Receive, send: Send) -> int | None:
        """Answer a request that has a body; the status to be counted where no response was sent."""
        body = await self._body(scope, receive)
        if body is None:
            return 499  # as nginx counts them: the client went away, which is no fault of the server
        if isinstance(body, Response):
            await body(scope, receive, _last(scope, send))
            return None
        if self._in_flight >= self._limits.in_flight:
            answer = problem(429, f"{self._in_flight} requests are worked on already", headers={"Retry-After": "1"})
            await answer(scope, receive, send)
            return None
        admission = self._admission if scope["path"] in SEARCH_PATHS else None
        if admission is not None and not admission.admit(time.monotonic()):
            await FULL(scope, receive, send)
            return None
        self._in_flight += 1
        self._metrics.in_flight.set(self._in_flight)
        try:
            await self._app(scope, _replayed(body, receive), send)
        finally:
            self._in_flight -= 1
            if admission is not None:
                admission.ended()
            self._metrics.in_flight.set(self._in_flight)
        return None

    async def _body(self, scope: Scope, receive: Receive) -> bytes | Response | None:
        """The body; the answer where it is refused; None where the client went away."""
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > self._limits.body_bytes:
                        return self._too_large()
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            return problem(408, f"the body did not come within {self._limits.body_seconds:g} s")
        if len(parts) > 1:
            # A client that is slow to say what it wants has waited for nothing yet.
            scope["state"]["arrived"] = time.monotonic()
        return b"".join(parts)

    def _too_large(self) -> Response:
        return problem(413, f"a body of at most {self._limits.body_bytes} bytes is taken")


def _has_body(route: str) -> bool:
    return route.startswith("/v1/") and not route.startswith("/v1/admin/")


def _last(scope: Scope, send: Send) -> Send:
    """Where the request announces a body that is not read, its answer is the connection's last."""
    framing = {name: value for name, value in scope["headers"] if name in (b"content-length", b"transfer-encoding")}
    if framing in ({}, {b"content-length": b"0"}):
        return send

    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
        await send(message)

    return closing


def _parse_host(scope: Scope) -> str:
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
