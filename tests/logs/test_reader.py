"""The reader: layouts, times, what is folded, what is rejected and why."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corewrite.logs import LogError, SearchLog, parse_time, read_log
from corewrite.logs import files as files_module
from corewrite.logs import parsing as parsing_module
from corewrite.logs import reader as reader_module

T0 = 1_733_788_889.5
ISO = "2024-12-10T00:01:29.500Z"


def query(query_id: str = "q1", **fields) -> dict:
    return {"query_id": query_id, "client_id": "u1", "user_query": "lion", "timestamp": T0} | fields


def event(query_id: str = "q1", action: str = "click", document: str = "d1", **fields) -> dict:
    attributes = {"object": {"object_id": document}, "position": {"ordinal": 1}} | fields.pop("attributes", {})
    base = {"action_name": action, "query_id": query_id, "client_id": "u1", "timestamp": T0}
    return base | {"event_attributes": attributes} | fields


def ndjson(*documents: dict | str | bytes) -> bytes:
    lines = [d if isinstance(d, bytes) else (d if isinstance(d, str) else json.dumps(d)).encode() for d in documents]
    return b"\n".join(lines) + b"\n"


def read(folder: Path, content: bytes, name: str = "log.ndjson", **options) -> SearchLog:
    path = folder / name
    path.write_bytes(content)
    return read_log(path, **options)


def rows(table) -> list[dict]:
    return table.to_pyarrow().to_pylist()


BULK = ndjson(
    {"index": {"_index": "ubi_queries", "_id": "1"}}, query(),
    {"create": {"_index": "ubi_events"}}, event(),
    {"index": {"_index": "ubi_events"}}, event(action="impression"),
)  # fmt: skip
PLAIN = ndjson(query(), event(), event(action="impression"))


@pytest.mark.parametrize("content", [BULK, PLAIN, BULK.replace(b"\n", b"\r\n"), PLAIN.replace(b"\n", b"\n\n")])
@pytest.mark.parametrize("zipped", [False, True])
def test_layouts(tmp_path: Path, content: bytes, zipped: bool) -> None:
    # Compression is told by content, not by name.
    log = read(tmp_path, gzip.compress(content) if zipped else content)
    (search,) = rows(log.searches)
    assert (search["query_id"], search["user_id"], search["query"], search["timestamp"]) == (
        "q1",
        "u1",
        "lion",
        T0,
    )
    assert [(e["action"], e["document_id"], e["position"]) for e in rows(log.events)] == [
        ("click", "d1", 1),
        ("impression", "d1", 1),
    ]
    report = log.report
    assert (report.lines, report.rejected, report.queries, report.actions) == (
        3,
        0,
        1,
        {"click": 1, "impression": 1},
    )
    assert (report.first, report.last, report.clients, report.orphans) == (ISO, ISO, 1, 0)


def test_columns(tmp_path: Path) -> None:
    attributes = {
        "session_id": "s", "context_titles": ["old"], "locale": "en", "arm": "b", "impacted": True, "bucket": 17, "page": 2,
    }  # fmt: skip
    content = ndjson(
        query(query_response_hit_ids=["a", 7], query_attributes=attributes, client_id=12),
        event(attributes={"watch_seconds": 3, "duration_seconds": 9.5}, client_id=None, user_id="u9"),
        event(action="watch", query_id="elsewhere", attributes={"object": {}, "position": {}}),
    )
    log = read(tmp_path, content)
    assert rows(log.searches) == [
        {
            "query_id": "q1", "user_id": "12", "session_id": "s", "timestamp": T0, "query": "lion",
            "hit_ids": ["a", "7"], "context_titles": ["old"], "locale": "en", "arm": "b", "bucket": 17,
            "impacted": True, "pair": None, "rewritten": None, "texts": None, "line": 1,
        }
    ]  # fmt: skip
    first, second = rows(log.events)
    assert (first["user_id"], first["watch_seconds"], first["duration_seconds"]) == ("u9", 3.0, 9.5)
    assert (second["document_id"], second["position"], second["watch_seconds"]) == ("", None, None)
    assert log.report.orphans == 1
    assert any("belong to no search" in w for w in log.report.warnings)


def test_several_files_are_one_log_and_repeated_queries_are_folded(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b.gz"
    a.write_bytes(ndjson(query("q1"), query("q1", user_query="other"), event()))
    b.write_bytes(gzip.compress(ndjson(query("q1"), query("q2", client_id="u2"), event("q2", client_id=""))))
    log = read_log([a, b])
    assert {s["query_id"]: s["query"] for s in rows(log.searches)} == {"q1": "lion", "q2": "lion"}
    report = log.report
    assert (report.files, report.lines, report.queries, report.folded) == (("a", "b.gz"), 6, 2, 2)
    assert (report.unique_queries, report.clients) == (1, 2)
    assert report.largest_client_share == 0.5  # an event counts for the client of its search


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (ISO, T0),
        ("2024-12-10T01:01:29.5+01:00", T0),
        ("2024-12-10T00:01:29.5", T0),
        ("2024-12-10", datetime(2024, 12, 10, tzinfo=UTC).timestamp()),
        (T0, T0),
        (int(T0), int(T0)),
        (T0 * 1000, T0),
        (str(int(T0 * 1000)), T0),
        (str(T0), T0),
        (0, 0.0),
    ],
)
def test_times(value: object, seconds: float) -> None:
    assert parse_time(value) == seconds


@given(st.datetimes(datetime(1970, 1, 2), datetime(2096, 1, 1)), st.integers(-14, 14))
def test_times_agree_with_each_other(moment: datetime, hours: int) -> None:
    seconds = (moment - datetime(1970, 1, 1)).total_seconds()
    assert parse_time(moment.isoformat()) == parse_time(moment.isoformat() + "Z") == seconds
    offset = f"{'-' if hours < 0 else '+'}{abs(hours):02}:00"
    assert parse_time(moment.isoformat() + offset) == pytest.approx(seconds - 3600 * hours) or seconds < 3600 * hours


@pytest.mark.parametrize(
    "value",
    [
        None, "", "soon", True, [], "nan", "1e999", 10**400, -1, 5e9,
        "1900-01-01T00:00:00Z", "9999-01-01", "2024-13-01",
    ],
)  # fmt: skip
def test_times_refused(value: object) -> None:
    with pytest.raises(ValueError, match="timestamp"):
        parse_time(value)


LONG = b'{"query_id": "' + b"x" * 5_000_000 + b'"}'
BAD = {
    "not JSON": (b"{", "Expecting"),
    "not an object": (b"[1]", "not a JSON object but a list"),
    "not UTF-8": (b'{"query_id": "\xff"}', "utf-8"),
    "neither": (b'{"a": 1}', "neither a query"),
    "lone surrogate": (json.dumps(query(user_query="\ud800x")).encode(), "lone surrogate"),
    "lone surrogate in an id": (json.dumps(event(document="\udfff")).encode(), "lone surrogate"),
    "deep": (b'{"user_query": ' + b"[" * 100_000, "recursion"),
    "long": (LONG, "line over the limit of 4194304 bytes"),
    "no query id": (query(""), "query without query_id"),
    "no user": (query(client_id=None), "query without client_id"),
    "long id": (query("q" * 101), "query_id of 101 characters"),
    "text that is none": (query(user_query=["a"]), r"\['a'\] is not text"),
    "null text": (query(user_query=None), "None is not text"),
    "impacted": (query(query_attributes={"impacted": "false"}), "impacted 'false' is neither true nor false: leave it out"),
    "bucket of another kind": (query(query_attributes={"bucket": "B"}), "bucket 'B' is no whole number from 0 to 9999"),
    "bucket beyond the last": (query(query_attributes={"bucket": 10_000}), "bucket 10000 is no whole number"),
    "true is no bucket": (query(query_attributes={"bucket": True}), "bucket True is no whole number"),
    "texts": (query(query_attributes={"served": {"texts": "rot13"}}), "served.texts 'rot13' is none of plain, hashed, sealed"),
    "attributes": (query(query_attributes=3), "query_attributes is not an object"),
    "hits": (query(query_response_hit_ids="abc"), "query_response_hit_ids is not a list"),
    "too many hits": (
        query(query_response_hit_ids=["a"] * 10_001),
        "query_response_hit_ids is not a list of at most",
    ),
    "titles": (query(query_attributes={"context_titles": {"a": 1}}), "context_titles is not a list"),
    "no time": (query(timestamp=None), "timestamp None"),
    "huge time": (json.dumps(query()).replace(str(T0), "9" * 400).encode(), "timestamp 9999"),
    "action": (event(action=""), "event without action_name"),
    "action type": (event(action=3), "event without action_name"),
    "object": (event(attributes={"object": "d1"}), "object or .position is not an object"),
    "event attributes": (event(event_attributes=[1]), "event_attributes is not an object"),
    "position": (
        event(attributes={"position": {"ordinal": "first"}}),
        "position.ordinal 'first' is not a position",
    ),
    "negative position": (event(attributes={"position": {"ordinal": -1}}), "position.ordinal -1"),
    "watch time": (event(attributes={"watch_seconds": -1}), "-1 is not a duration"),
    "NaN watch time": (event(attributes={"watch_seconds": float("nan")}), "nan is not a duration"),
    "huge watch time": (event(attributes={"watch_seconds": 10**400}), "is not a duration"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_line_is_rejected_with_its_number_and_reason_and_the_others_kept(tmp_path: Path, case: str) -> None:
    line, reason = BAD[case]
    content = ndjson(query("q1"), "", line, query("q2"), event("q2"))
    log = read(tmp_path, content, rejects_path=tmp_path / "deep" / "rejects.ndjson")
    assert [s["query_id"] for s in rows(log.searches)] == ["q1", "q2"]
    assert log.report.actions == {"click": 1}
    assert (log.report.lines, log.report.rejected) == (4, 1)
    assert log.report.rejects_path == str(tmp_path / "deep" / "rejects.ndjson")
    (reject,) = map(json.loads, Path(log.report.rejects_path).read_text().splitlines())
    assert (reject["file"], reject["line"]) == ("log.ndjson", 3)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(reject["reason"])
    written = line if isinstance(line, bytes) else json.dumps(line).encode()
    assert written.decode("utf-8", "replace").startswith(reject["text"][:490])


def test_an_event_of_a_bulk_log_needs_an_action(tmp_path: Path) -> None:
    content = ndjson(query(), {"index": {"_index": "ubi_events"}}, query("q2"), query("q3"))
    log = read(tmp_path, content)
    assert [s["query_id"] for s in rows(log.searches)] == ["q1", "q3"]
    assert log.report.rejected == 1


def test_a_line_larger_than_memory_is_never_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (files_module, parsing_module):
        monkeypatch.setattr(module, "LINE_LIMIT", 1000)
    held = []
    monkeypatch.setattr(reader_module, "_shown", lambda raw: held.append(len(raw)) or "")
    log = read(tmp_path, gzip.compress(ndjson(query("q1"), b"x" * 10**6, query("q2")) + b"y" * 10**6))
    assert [s["query_id"] for s in rows(log.searches)] == ["q1", "q2"]
    assert held == [1001, 1001]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no usable query in 0 lines$"),
        (b"\n \n", "no usable query in 0 lines$"),
        (ndjson(event()), "no usable query in 1 lines$"),
        (ndjson("{", query("")), "no usable query in 2 lines; the first reason: line 1: no JSON"),
        (b"\x1f\x8b", "cannot read the log"),
        (gzip.compress(PLAIN, mtime=0)[:-4], "cannot read the log"),
        (gzip.compress(PLAIN, mtime=0)[:20] + b"\xff" * 20, "cannot read the log"),
    ],
)
def test_a_log_without_queries_is_an_error(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(LogError, match=reason):
        read(tmp_path, content)


def test_a_log_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(LogError, match="cannot read the log"):
            read_log(path)


def check(folder: Path, content: bytes) -> None:
    """Nothing is lost: a log error, or every line kept, rejected or folded."""
    try:
        report = read(folder, content, rejects_path=folder / "rejects").report
    except LogError:
        return
    assert report.lines == report.queries + sum(report.actions.values()) + report.rejected + report.folded
    if report.rejected:
        assert len((folder / "rejects").read_text().splitlines()) == report.rejected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8) | st.just(10**500),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from([*query(), *event(), "query_response_hit_ids", "query_attributes", "session_id"])


@given(st.lists(st.binary(max_size=40) | st.sampled_from(PLAIN.splitlines()), max_size=6), st.booleans())
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], zipped: bool) -> None:
    content = b"\n".join(lines)
    check(tmp_path_factory.getbasetemp(), gzip.compress(content, 1) if zipped else content)


@given(st.binary(max_size=60), st.integers(0, 200), st.integers(0, 5))
def test_any_damaged_gzip(tmp_path_factory: pytest.TempPathFactory, noise: bytes, start: int, cut: int) -> None:
    whole = gzip.compress(PLAIN, mtime=0)
    check(tmp_path_factory.getbasetemp(), whole[:start] + noise + whole[start + cut :])


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from([query, event]), st.dictionaries(FIELDS, JSON, max_size=3)), max_size=5))
def test_any_documents(tmp_path_factory: pytest.TempPathFactory, documents: list) -> None:
    lines = [json.dumps(make() | fields) for make, fields in documents]
    check(tmp_path_factory.getbasetemp(), ndjson(query("good"), *lines))


@pytest.mark.parametrize("name", ["query_response_hit_ids", "query_response_object_ids", "query_response_objects_ids"])
def test_what_was_displayed_is_read_under_every_name_it_had(tmp_path: Path, name: str) -> None:
    log = read(tmp_path, ndjson(query(**{name: ["d2", "d1"]})))
    assert rows(log.searches)[0]["hit_ids"] == ["d2", "d1"]
    assert not any("displayed" in w for w in log.report.warnings)


@pytest.mark.parametrize("name", ["click", "click_through", "item_click"])
def test_a_click_is_a_click_under_every_name_it_had(tmp_path: Path, name: str) -> None:
    log = read(tmp_path, ndjson(query(), event(action=name)))
    assert [e["action"] for e in rows(log.events)] == ["click"]
    assert (log.report.actions, log.report.unknown_actions) == ({name: 1}, {})
    assert any(f"1 {name!r} as 'click'" in w for w in log.report.warnings) == (name != "click")


def test_events_of_the_first_forms_keep_document_position_and_user(tmp_path: Path) -> None:
    first = {"data": {"data_id": "d7"}, "position": {"ordinal": {"index": 3}}, "object": None}
    log = read(tmp_path, ndjson(query(client_id=None, user_id="ada"), event(attributes=first, client_id=None, user_id="ada")))
    (found,) = rows(log.events)
    assert (found["document_id"], found["position"], found["user_id"]) == ("d7", 3, "ada")
    assert rows(log.searches)[0]["user_id"] == "ada"


def test_actions_that_nothing_reads_are_counted_by_name(tmp_path: Path) -> None:
    log = read(tmp_path, ndjson(query(), event(), *[event(action="product_hover")] * 2, event(action="on_search")))
    assert log.report.unknown_actions == {"on_search": 1, "product_hover": 2}
    assert log.report.actions == {"click": 1, "on_search": 1, "product_hover": 2}
    (warning,) = [w for w in log.report.warnings if "product_hover" in w]
    assert "2 'product_hover', 1 'on_search'" in warning and "add_to_cart" in warning


WRAPPED = [
    {"_index": "ubi_queries", "_id": "1", "_score": 1, "_source": query(query_attributes={"locale": "de"})},
    {"_index": "ubi_events", "_type": "_doc", "_id": "2", "_source": event()},
    {"sort": [1], "_source": event(action="impression"), "_index": "ubi_events"},
]


@pytest.mark.parametrize(
    "content",
    [
        ndjson(*WRAPPED),
        ndjson({"index": {}}, query(query_attributes={"locale": "de"}), {"index": {}}, event(), event(action="impression")),
        b'{  "index" : { "_index" : "ubi_queries" } }\n' + ndjson(*WRAPPED),
    ],
)  # fmt: skip
def test_exports_of_an_engine_are_read(tmp_path: Path, content: bytes) -> None:
    log = read(tmp_path, content)
    assert [(s["query_id"], s["locale"]) for s in rows(log.searches)] == [("q1", "de")]
    assert (log.report.rejected, log.report.actions) == (0, {"click": 1, "impression": 1})


def test_a_query_about_sources_is_no_export(tmp_path: Path) -> None:
    log = read(tmp_path, ndjson(query(user_query='"_source"', _source={"user_query": "other"})))
    assert rows(log.searches)[0]["query"] == '"_source"'


@pytest.mark.parametrize("start", ["ubi_queries ", "[", "<html>"])
def test_a_line_that_is_no_json_is_named_with_what_would_be_read(tmp_path: Path, start: str) -> None:
    with pytest.raises(LogError) as error:
        read(tmp_path, b"\n" + (start + json.dumps(query()) + "\n").encode())
    said = str(error.value)
    assert "line 2" in said and repr(start)[1:-1] in said
    assert all(word in said for word in ("NDJSON", "bulk", "_source", "corewrite log pack"))


def test_clients_are_those_of_the_searches(tmp_path: Path) -> None:
    searches = [query(f"q{i}", client_id=f"hash{i % 2}") for i in range(4)]
    events = [event(f"q{i}", client_id=f"raw{i % 2}") for i in range(4)]
    log = read(tmp_path, ndjson(*searches, *events))
    assert (log.report.clients, log.report.largest_client_share) == (2, 0.5)
    (warning,) = [w for w in log.report.warnings if "another client" in w]
    assert warning.startswith("4 events")
    same = read(tmp_path, ndjson(*searches, *[event(f"q{i}", client_id=f"hash{i % 2}") for i in range(4)]))
    assert same.report.clients == 2 and not any("another client" in w for w in same.report.warnings)


def test_clients_of_events_without_a_search_cannot_be_counted_and_that_is_said(tmp_path: Path) -> None:
    log = read(tmp_path, ndjson(query(), event("elsewhere", client_id="raw")))
    assert log.report.clients == 1
    assert any("1 events belong to no search of the log" in w and "client" in w for w in log.report.warnings)
