"""Writes docs/reference/http.md: the calls of `corewrite serve`, from the OpenAPI description of its application."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from page_tables import table

from corewrite.domain import Catalogue
from corewrite.search.documents import write_catalogue
from corewrite.serving.app import build_app
from corewrite.serving.settings import ServeConfig

PAGE = "reference/http.md"
HEAD = """\
# HTTP API

Made by `python tools/reference.py` from the OpenAPI description, which a running server gives as `GET /openapi.json`. Bodies
are JSON; a key that is not known is refused. Errors are RFC 9457 problem details (`application/problem+json`). Where
`serve.api_key_env` is set, every call but the probes needs the header `X-API-Key`. With `serve.health_port` the probes have a
listener of their own. How to run the server: [Serve](../how-to/serve.md); what stands in its log:
[File schemas](files.md#served-log).

"""
STATUSES = """\
## Statuses

| status | when |
| --- | --- |
| 200 | answered, also where no rewrite came: `signal_status` says so |
| 400 | a `Host` that `serve.hosts` does not name, or a body that is no JSON |
| 401, 403 | no API key, or a wrong one |
| 408 | the body did not come in `limits.body_seconds` |
| 409 | the server writes no log, so that events have no place |
| 413 | the body is longer than `limits.body_bytes` |
| 422 | a field is missing, unknown or out of range; `errors` names it |
| 429 | more searches than can be answered in time; `Retry-After` says when to come again |
| 503 | no champion is loaded, or nothing could be recalled by the deadline |
"""


def page() -> str:
    """The page."""
    described = _described()
    calls = [(path, method, call) for path, methods in described["paths"].items() for method, call in methods.items()]
    index = table(
        ("call", "what it does"), ((f"`{m.upper()} {p}`", _text(c.get("description") or c["summary"])) for p, m, c in calls)
    )
    schemas = described["components"]["schemas"]
    parts = [HEAD, "## Calls\n\n", index, "\n", STATUSES]
    for path, method, call in calls:
        parts += _call(path, method, call)
    shown = sorted(name for name in schemas if name not in ("HTTPValidationError", "ValidationError"))
    parts += ["\n## Bodies\n", *(part for name in shown for part in _schema(name, schemas[name]))]
    return "".join(parts)


def _described() -> dict[str, Any]:
    """OpenAPI of the application, which wants documents: one will do."""
    one = np.ones(1)
    catalogue = Catalogue(("d",), ("title",), ("",), np.ones((1, 1), np.float32), one, one)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "documents.parquet"
        write_catalogue(catalogue, file)
        return build_app(ServeConfig(documents=file, registry=Path(folder) / "registry")).openapi()


def _call(path: str, method: str, call: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n### {method.upper()} {path}\n\n{_text(call.get('description') or call['summary'])}\n"
    body = call.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body is not None:
        yield f"\nRequest: {_kind(body)}.\n"
    answer = call["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("schema")
    if answer:
        yield f"\nAnswer: {_kind(answer)}.\n"
    if others := [status for status in call["responses"] if status != "200"]:
        yield f"\nErrors: {', '.join(others)}.\n"


def _schema(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n### {name}\n\n{_text(schema.get('description', ''))}\n\n"
    needed = schema.get("required", ())
    rows = []
    for field, one in schema.get("properties", {}).items():
        default = "required" if field in needed else f"`{json.dumps(one['default'])}`" if "default" in one else ""
        rows.append((f"`{field}`", _kind(one), default, _text(one.get("description", ""))))
    yield table(("field", "type", "default", "meaning"), rows)
    for example in schema.get("examples", ()):
        yield f"\n```json\n{json.dumps(example, ensure_ascii=False)}\n```\n"


def _kind(one: Mapping[str, Any]) -> str:
    """A type in words, with its bounds."""
    if "$ref" in one:
        name = one["$ref"].rpartition("/")[2]
        return f"[`{name}`](#{name.lower()})"
    if several := one.get("anyOf") or one.get("oneOf"):
        return " or ".join(_kind(s) for s in several)
    kind = str(one.get("type", "any"))
    if kind == "array":
        return f"list of {_kind(one['items'])}" if one.get("items") else "list"
    if kind == "object":
        more = one.get("additionalProperties")
        return f"object of {_kind(more)}" if isinstance(more, dict) and more else "object"
    names = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "maxLength": "longest"}
    return ", ".join((kind, *(f"{word} {one[key]:g}" for key, word in names.items() if key in one)))


def _text(text: str) -> str:
    return " ".join(text.split())
