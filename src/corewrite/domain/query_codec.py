"""Queries as JSON and as columns of a table: the one place that takes a `Query` apart and puts it together again.

JSON is the form of a request over HTTP: {"query": "bts", "context": {"queries": [], "titles": [], "locale": ""}}. A row has
the columns `query`, `context_queries`, `context_titles` and `locale`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from corewrite.domain.query import Context, Query

if TYPE_CHECKING:
    import pyarrow as pa


def query_to_json(query: Query) -> dict[str, Any]:
    """A query as JSON."""
    c = query.context
    return {"query": query.text, "context": {"queries": list(c.queries), "titles": list(c.titles), "locale": c.locale}}


def query_from_json(value: Mapping[str, Any]) -> Query:
    """Read what `query_to_json` wrote; a part of the context that is missing or null is empty.

    Raises:
        KeyError, TypeError: it is something else.
    """
    c = value.get("context") or {}
    return _query(value["query"], c.get("queries"), c.get("titles"), c.get("locale"))


def query_to_row(query: Query) -> dict[str, Any]:
    """A query as a row of a table."""
    c = query.context
    return {
        "query": query.text,
        "context_queries": list(c.queries),
        "context_titles": list(c.titles),
        "locale": c.locale,
    }


def query_from_row(row: Mapping[str, Any]) -> Query:
    """Read a row as `query_to_row` makes it; a column of the context that is missing or null is empty.

    Raises:
        KeyError, TypeError: it is something else.
    """
    return _query(row["query"], row.get("context_queries"), row.get("context_titles"), row.get("locale"))


def query_columns(queries: Sequence[Query]) -> "dict[str, pa.Array]":
    """Columns of a table with a row a query, each of its type even where all are empty."""
    import pyarrow as pa  # not needed by a server

    text, texts = pa.string(), pa.list_(pa.string())
    types = {"query": text, "context_queries": texts, "context_titles": texts, "locale": text}
    rows = [query_to_row(q) for q in queries]
    return {name: pa.array([row[name] for row in rows], kind) for name, kind in types.items()}


def _query(text: Any, queries: Any, titles: Any, locale: Any) -> Query:
    return Query(_text(text), Context(tuple(map(_text, queries or ())), tuple(map(_text, titles or ())), _text(locale or "")))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} in a query or its context is no text")
    return value
