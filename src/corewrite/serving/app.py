"""The HTTP application: routes, and what they answer."""

import asyncio
import gc
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Body, FastAPI, Request, Security
from fastapi.responses import JSONResponse, Response
from fastapi.security import APIKeyHeader
from pydantic import ValidationError

from corewrite.deployment.settings import keep_secrets
from corewrite.domain.traffic_split import arm_in_v1, assign_bucket
from corewrite.rewriter import clean
from corewrite.serving import problems
from corewrite.serving.events import Event
from corewrite.serving.log_limit import limit_logs
from corewrite.serving.middleware import Edge
from corewrite.serving.openapi import describe_limits, describe_responses
from corewrite.serving.probes import PROBE_CONNECTIONS, ProbeListener, add_probes
from corewrite.serving.problems import ProblemError, problem_responses
from corewrite.serving.protocol import ListenerState, listener_state, most_connections, watch
from corewrite.serving.request_limits import check_depth, check_text, read_query, refusal
from corewrite.serving.responses import build_names, show_documents, shown_reason
from corewrite.serving.schemas import (
    EventBatch,
    EventsResponse,
    ExplainRequest,
    ExplainResponse,
    RewriteBatch,
    RewriteRequest,
    RewriteResponse,
    SearchRequest,
    SearchResponse,
    Switch,
)
from corewrite.serving.service import NoLogError, Service
from corewrite.serving.settings import CONFIG_VARIABLE, ServeConfig, secret_names
from corewrite.serving.shedding import Shedding
from corewrite.serving.versions import Open
from corewrite.version import VERSION

_SWITCH_SECONDS = 0.0001
"""How long the ranking's thread may keep the interpreter while the event loop waits for it, which it does twice a request: with
the 5 ms of Python a flood of searches could not even be refused."""
_KEY = APIKeyHeader(name="X-API-Key", auto_error=False, description="Needed where the server has a key.")


def from_environment() -> FastAPI:
    """The application of the settings in COREWRITE_SERVE_CONFIG (JSON): how `corewrite serve` starts its workers."""
    limit_logs()
    config = ServeConfig.model_validate_json(os.environ.pop(CONFIG_VARIABLE))
    # The rewriter's process, which runs a model that somebody made, inherits the environment.
    keep_secrets(secret_names(config))
    app = build_app(config)
    sys.setswitchinterval(_SWITCH_SECONDS)
    # What a worker starts with stays for good. A full collection would walk through it again and again, which holds every
    # request up for a third of a second.
    gc.collect()
    gc.freeze()
    return app


def build_app(config: ServeConfig, make_rewriter: Open | None = None, clock: Callable[[], float] = time.time) -> FastAPI:
    """The application.

    Args:
        config: The settings.
        make_rewriter: Makes the rewriter of a policy; default: one with a process of its own.
        clock: Seconds since the epoch, for the log.

    Raises:
        DocumentsError: the documents cannot be read.
        ValueError: an environment variable that the settings name is not set.
    """
    service = Service(config, make_rewriter, clock)
    key = config.api_key()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        # Probes are answered while the champion is loaded, and until the last request is.
        async with _listening(service, config) as state:
            await service.open()
            try:
                yield state
            finally:
                await service.close()

    app = FastAPI(
        title="corewrite",
        version=VERSION,
        summary="Query rewriting as bounded parallel signals of a search cascade.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # the answer would hold the Host that the client sent
    )
    app.state.service = service
    problems.install(app)

    # The middleware checks the key, before it reads a body; this documents it in OpenAPI.
    guarded = [] if key is None else [Security(_KEY)]
    limits = config.limits

    @app.post(
        "/v1/rewrite", dependencies=guarded, responses=describe_responses(RewriteResponse, 400, 401, 408, 413, 422, 429, 503)
    )
    async def rewrite(body: Annotated[RewriteRequest | RewriteBatch, Body()]) -> Response:
        """Rewrite one query, or a batch; what does not come in time is remembered for the next request."""
        one = isinstance(body, RewriteRequest)
        wired = [body] if isinstance(body, RewriteRequest) else body.batch
        if len(wired) > limits.batch:
            raise refusal("body.batch", f"{len(wired)} queries, at most {limits.batch} are taken")
        queries = [read_query(w, limits, "body" if one else f"body.batch.{i}") for i, w in enumerate(wired)]
        version, arm, found = await service.rewrite(queries, body.rewrites, body.deadline_ms, client_id=body.client_id)
        bucket = assign_bucket(body.client_id) if body.client_id else None
        results = [{"rewrites": r.texts, "status": str(r.status), "reason": shown_reason(r.reason)} for r in found]
        return JSONResponse({"arm": arm and arm_in_v1(arm), "bucket": bucket, **build_names(version), "results": results})

    @app.post(
        "/v1/search", dependencies=guarded, responses=describe_responses(SearchResponse, 400, 401, 408, 413, 422, 429, 503)
    )
    async def search(body: SearchRequest, request: Request) -> Response:
        """Search the embedded cascade; the rewrite counts at the stages it is in time for."""
        query = read_query(body, limits, "body")
        query_id, found = await service.search(
            query,
            client_id=body.client_id,
            session_id=body.session_id,
            depth=check_depth(body.depth, limits),
            rewrites=body.rewrites,
            arrived=request.state.arrived,
        )
        ranked = found.ranked
        results: list[dict[str, Any]] = [
            {"rank": k + 1, **shown, "score": score}
            for k, (shown, score) in enumerate(zip(show_documents(service.documents, ranked.rows), ranked.scores, strict=True))
        ]
        if body.explain:
            results = [{**r, "factors": factors} for r, factors in zip(results, ranked.factors, strict=True)]
        return JSONResponse(
            {
                "query_id": query_id,
                "arm": arm_in_v1(found.arm),
                "ramp": None if found.rollout is None else found.rollout.arm,
                **build_names(found.version),
                "rewrites": found.texts,
                "rewrite_status": shown_reason(found.reason),
                "signal_status": ranked.status,
                "results": results,
            }
        )

    @app.post(
        "/v1/explain", dependencies=guarded, responses=describe_responses(ExplainResponse, 400, 401, 408, 413, 422, 429, 503)
    )
    async def explain(body: ExplainRequest) -> Response:
        """Search once with and once without the rewrite, with every factor of every result."""
        query, given = read_query(body, limits, "body"), None
        if body.rewrite is not None:
            check_text("body.rewrite", body.rewrite, limits)
            # What is given is treated as what a model wrote: one clean line.
            text = clean(body.rewrite).text
            given = (text,) if text else ()
        try:
            found = await service.explain(
                query, given, check_depth(body.depth, limits), body.deadline_ms, client_id=body.client_id
            )
        except ValueError as error:
            raise ProblemError(503, str(error)) from error
        return JSONResponse(found)

    @app.post(
        "/v1/events", dependencies=guarded, responses=describe_responses(EventsResponse, 400, 401, 408, 409, 413, 422, 429, 503)
    )
    async def events(body: EventBatch) -> Response:
        """Take in what users did; events that cannot be used are named, the others are in the log."""
        if len(body.events) > limits.events:
            raise refusal("body.events", f"{len(body.events)} events, at most {limits.events} are taken")
        good, rejected = [], []
        for index, value in enumerate(body.events):
            try:
                good.append(Event.model_validate(value))
            except ValidationError as error:
                first = error.errors(include_input=False, include_url=False)[0]
                place = ".".join(map(str, first["loc"]))
                rejected.append({"index": index, "problem": f"{place}: {first['msg']}" if place else first["msg"]})
        if not good:
            return JSONResponse({"accepted": 0, "rejected": rejected})
        try:
            taken = service.take_events(good)
        except NoLogError as error:
            raise ProblemError(409, str(error)) from error
        if taken < len(good):
            detail = f"the log has no room: the first {taken} usable events are taken, send the others again"
            raise ProblemError(429, detail, headers={"Retry-After": "1"})
        return JSONResponse({"accepted": taken, "rejected": rejected})

    @app.post("/v1/admin/kill", dependencies=[Security(_KEY)], responses=problem_responses(401, 403))
    async def kill() -> Switch:
        """Use no rewrite from now on; the other workers follow within a second."""
        return Switch(persisted=service.kill.kill(), killed=service.kill.on)

    @app.post("/v1/admin/resume", dependencies=[Security(_KEY)], responses=problem_responses(401, 403))
    async def resume() -> Switch:
        """Use rewrites again."""
        return Switch(persisted=service.kill.resume(), killed=service.kill.on)

    if config.health_port is None:
        add_probes(app, service)
    describe_limits(app, limits)
    routes = frozenset(route.path for route in app.routes if hasattr(route, "path"))
    app.add_middleware(
        Edge,
        limits=limits,
        metrics=service.metrics,
        routes=routes,
        hosts=frozenset(map(str.lower, config.hosts)),
        key=key,
        admission=service.admission,
    )
    return app


@asynccontextmanager
async def _listening(service: Service, config: ServeConfig) -> AsyncIterator[ListenerState]:
    """The state of the listener for requests, watched, and probes answered where they have a listener of their own."""
    shedding = Shedding(service.admission, service.metrics.requests)
    state = listener_state(most_connections(config.limits), config.limits, shedding)
    probed = listener_state(PROBE_CONNECTIONS, config.limits)
    listener = None
    if config.health_port is not None:
        listener = ProbeListener(service, probed, config.health_host or config.host, config.health_port)
        await listener.open()
    watching = asyncio.create_task(watch(state, probed))
    try:
        yield state
    finally:
        watching.cancel()
        if listener is not None:
            await listener.close()
