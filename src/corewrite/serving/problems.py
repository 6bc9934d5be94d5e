"""Errors as RFC 9457 problem details; nothing of a request's text stands in them."""

import json
import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from corewrite.serving.search_result import RecallError
from corewrite.serving.service import NotReadyError

_log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
_SHOWN = 10


class ProblemError(Exception):
    """An answer that is an error."""

    def __init__(
        self, status: int, detail: str, *, errors: list[dict[str, Any]] | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors, self.headers = status, detail, errors, dict(headers or {})


def problem(
    status: int, detail: str, *, errors: list[dict[str, Any]] | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """A response with a problem."""
    if status == 503:
        detail = without_places(detail)
    body: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    if errors is not None:
        body["errors"] = errors
    # ASCII: what a client put into a field's name may hold anything.
    return Response(json.dumps(body).encode(), status, dict(headers or {}), MEDIA_TYPE)


def without_places(text: str) -> str:
    """A message without what it says of the machine: of a path its last part stays, of an address nothing."""
    text = re.sub(r"[A-Za-z][\w+.-]*://[^\s'\"]+", "(address)", text)
    text = re.sub(r"(['\"])[^'\"\n]*/([^'\"\n]*)\1", r"\1\2\1", text)
    return re.sub(r"[^\s'\"(,;=]*/([^\s'\",;:)]*)", r"\1", text)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI description of problems with these statuses."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {status: {"description": "Problem details.", "content": {MEDIA_TYPE: schema}} for status in statuses}


def install(app: FastAPI) -> None:
    """Let every error of `app` be a problem."""

    @app.exception_handler(ProblemError)
    async def own(request: Request, error: ProblemError) -> Response:
        return problem(error.status, error.detail, errors=error.errors, headers=error.headers)

    @app.exception_handler(NotReadyError)
    async def not_ready(request: Request, error: NotReadyError) -> Response:
        return problem(503, str(error), headers={"Retry-After": "1"})

    @app.exception_handler(RecallError)
    async def no_recall(request: Request, error: RecallError) -> Response:
        _log.error("%s failed: %s", request.url.path, error)
        _log.debug("%s failed", request.url.path, exc_info=error)  # an engine's own words may repeat the query
        return problem(503, str(error), headers={"Retry-After": "1"})

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return problem(error.status_code, str(error.detail), headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        found = error.errors()
        if any(e["type"] == "json_invalid" for e in found):
            return problem(400, "the body is not JSON")
        errors = [{"at": ".".join(_place(e)), "problem": _without_text(e)} for e in found[:_SHOWN]]
        return problem(422, f"{len(found)} field(s) are refused", errors=errors)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        _log.error("%s failed", request.url.path, exc_info=error)
        return problem(500, "something is wrong with the server; its log says more")


def _place(error: Mapping[str, Any]) -> list[str]:
    """Where it is; a name that only the client knows is not repeated."""
    place = [str(part)[:60] for part in error["loc"]]
    return [*place[:-1], "(unknown name)"] if error["type"] == "extra_forbidden" else place


def _without_text(error: Mapping[str, Any]) -> str:
    """The message; of kinds whose message repeats the input, the kind."""
    return str(error["type"] if error["type"].startswith(("value_error", "literal", "enum")) else error["msg"])[:200]
