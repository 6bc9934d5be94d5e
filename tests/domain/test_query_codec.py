"""A query goes through JSON and tables whole, its locale among it."""

import json
from dataclasses import fields

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewrite.domain import Context, Query, query_columns, query_from_json, query_from_row, query_to_json, query_to_row

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
QUERIES = st.builds(
    Query,
    TEXTS,
    st.builds(Context, st.lists(TEXTS, max_size=3).map(tuple), st.lists(TEXTS, max_size=3).map(tuple), TEXTS),
)
FULL = Query("bts", Context(("kpop", "idol"), ("A video",), "ko-KR"))


def test_the_examples_differ_from_the_defaults_in_every_field() -> None:
    """What the tests below would not notice, were a field forgotten."""
    assert [f.name for f in fields(Context)] == ["queries", "titles", "locale"] and [f.name for f in fields(Query)] == [
        "text",
        "context",
    ]
    assert all(getattr(FULL.context, f.name) != getattr(Context(), f.name) for f in fields(Context))


@given(QUERIES)
def test_json_round_trip(query: Query) -> None:
    assert query_from_json(json.loads(json.dumps(query_to_json(query)))) == query


@given(QUERIES)
def test_row_round_trip(query: Query) -> None:
    assert query_from_row(json.loads(json.dumps(query_to_row(query)))) == query


@given(st.lists(QUERIES, max_size=5))
def test_table_round_trip(queries: list[Query]) -> None:
    out = pa.BufferOutputStream()
    pq.write_table(pa.table(query_columns(queries)), out)
    table = pq.read_table(pa.BufferReader(out.getvalue()))
    assert [query_from_row(row) for row in table.to_pylist()] == queries
    assert [str(t) for t in table.schema.types] == ["string", "list<element: string>", "list<element: string>", "string"]


def test_golden() -> None:
    """Files and peers of other versions read these."""
    context = {"queries": ["kpop", "idol"], "titles": ["A video"], "locale": "ko-KR"}
    assert query_to_json(FULL) == {"query": "bts", "context": context}
    columns = {"context_queries": ["kpop", "idol"], "context_titles": ["A video"], "locale": "ko-KR"}
    assert query_to_row(FULL) == {"query": "bts", **columns}


def test_what_is_missing_of_a_context_is_empty() -> None:
    assert query_from_json({"query": "a"}) == query_from_json({"query": "a", "context": None}) == Query("a")
    assert query_from_json({"query": "a", "context": {"locale": None, "titles": ["t"]}}) == Query("a", Context((), ("t",)))
    assert query_from_row({"query": "a", "context_queries": None, "grade": 3.0}) == Query("a")


@pytest.mark.parametrize("bad", [{"query": 7}, {"query": "a", "context_titles": [7]}, {"query": "a", "locale": 7}])
def test_what_is_no_text_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="7 in a query or its context is no text"):
        query_from_row(bad)
