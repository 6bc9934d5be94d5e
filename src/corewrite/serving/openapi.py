"""The OpenAPI of a server: its own limits in it, and the shape of its errors."""

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI

from corewrite.serving.problems import problem_responses
from corewrite.serving.schemas import Problem
from corewrite.serving.settings import Limits


def describe_responses(model: type, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """A successful response of a model, and problems with these statuses."""
    return {200: {"model": model}, **problem_responses(*statuses)}


def describe_limits(app: FastAPI, limits: Limits) -> None:
    """Write this server's limits, and the shape of its errors, into its OpenAPI."""
    generate = app.openapi

    def with_limits() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            schemas = document["components"]["schemas"]
            schemas["Problem"] = Problem.model_json_schema()
            for name in [n for n in schemas if n in ("HTTPValidationError", "ValidationError")]:
                del schemas[name]
            for texts in _properties(schemas, ("query", "rewrite")):
                texts["maxLength"] = limits.query_characters
            for items in _properties(schemas, ("queries", "titles")):
                items["maxItems"] = limits.context_items
                items["items"]["maxLength"] = limits.query_characters
            for batch in _properties(schemas, ("batch",)):
                batch["maxItems"] = limits.batch
            for depth in _properties(schemas, ("depth",)):
                depth["maximum"] = limits.depth
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = with_limits  # type: ignore[method-assign]


def _properties(schemas: dict[str, Any], names: tuple[str, ...]) -> Iterable[dict[str, Any]]:
    for schema in schemas.values():
        for name, value in schema.get("properties", {}).items():
            if name in names and schema.get("additionalProperties") is False:
                yield from (v for v in value.get("anyOf", [value]) if v.get("type") != "null")
