"""User Behavior Insights 1.3.0: what is written validates, and a published log is read as it is."""

import gzip
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from corewrite.logs import UbiWriter, find_outcomes, read_log

UBI = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "ubi"
needs_data = pytest.mark.skipif(not UBI.is_dir(), reason="the UBI schemas and sample are not there (../shared/data/ubi)")


def write(path: Path) -> None:
    attributes = {
        "session_id": "s1",
        "context_titles": ["früher"],
        "locale": "de",
        "arm": "control",
        "impacted": True,
    }
    with UbiWriter(path) as out:
        out.query(
            query_id="q1", client_id="u1", user_query="löwe 🦁", timestamp=1_700_000_000.25, hit_ids=["a", "b"],
            attributes=attributes,
        )  # fmt: skip
        place = {"query_id": "q1", "client_id": "u1", "session_id": "s1"}
        out.event("impression", **place, timestamp=1_700_000_000.5, object_id="a", ordinal=1)
        out.event(
            "watch",
            **place,
            timestamp=1_700_000_030.0,
            object_id="b",
            ordinal=2,
            watch_seconds=12.5,
            duration_seconds=20.0,
        )


@needs_data
def test_what_is_written_validates(tmp_path: Path) -> None:
    validators = {
        kind: Draft202012Validator(json.loads((UBI / f"{kind}.schema.json").read_text()), format_checker=FormatChecker())
        for kind in ("query.request", "event")
    }
    assert "date-time" in FormatChecker.checkers  # without it a bad timestamp would pass
    path = tmp_path / "log.ndjson"
    write(path)
    documents = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert len(documents) == 3
    for document in documents:
        kind = "event" if "action_name" in document else "query.request"
        # The schema's oneOf lists every common name beside "any text", so that a listed name matches twice and fails:
        # an error of that kind, which names no branch that failed, is the schema's own.
        errors = [e for e in validators[kind].iter_errors(document) if e.validator != "oneOf" or e.context]
        assert not errors


@pytest.mark.parametrize("name", ["log.ndjson", "log.ndjson.gz"])
def test_what_is_written_is_read_back(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / name
    write(path)
    log = read_log(path)
    assert log.report.rejected == 0
    (search,) = log.searches.to_pyarrow().to_pylist()
    assert search == {
        "query_id": "q1", "user_id": "u1", "session_id": "s1", "timestamp": 1_700_000_000.25,
        "query": "löwe 🦁", "hit_ids": ["a", "b"], "context_titles": ["früher"], "locale": "de", "arm": "control",
        "bucket": None, "impacted": True, "pair": None, "rewritten": None, "texts": None, "line": 1,
    }  # fmt: skip
    events = log.events.to_pyarrow().to_pylist()
    assert [(e["action"], e["document_id"], e["position"], e["watch_seconds"]) for e in events] == [
        ("impression", "a", 1, None),
        ("watch", "b", 2, 12.5),
    ]
    assert events[1]["duration_seconds"] == 20.0


def test_compressed_logs_have_the_same_bytes_every_time(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "x.gz", tmp_path / "b" / "y.gz"]
    for path in paths:
        write(path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].read_bytes()[4:8] == bytes(4)  # no time in the header
    write(tmp_path / "plain")
    assert gzip.decompress(paths[0].read_bytes()) == (tmp_path / "plain").read_bytes()


@needs_data
def test_a_published_log_is_read_as_it_is(tmp_path: Path) -> None:
    path = UBI / "esci_ubi_sample.ndjson.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        documents = [json.loads(line) for line in lines]
    documents = [d for d in documents if not {"index", "create"} & d.keys()]
    queries = [d for d in documents if "action_name" not in d]
    texts = {d["query_id"]: d["user_query"] for d in reversed(queries)}  # the first of each id stays
    ids = texts.keys()
    actions = Counter(d["action_name"] for d in documents if "action_name" in d)
    rejects = tmp_path / "rejects"

    log = read_log(path, rejects_path=rejects)
    report = log.report
    assert (report.rejected, rejects.exists()) == (0, False)
    assert report.lines == len(documents) > 3000
    assert (report.queries, report.folded) == (len(ids), len(queries) - len(ids))
    assert report.actions == dict(actions)
    assert report.unique_queries == len(set(texts.values()))
    assert report.clients == len({d["client_id"] for d in queries})
    assert report.orphans == sum(d["query_id"] not in ids for d in documents if "action_name" in d)
    stamps = [d["timestamp"] for d in documents]
    assert {type(s) for s in stamps} == {str, int}  # ISO 8601 and milliseconds
    times = [datetime.fromisoformat(s) if isinstance(s, str) else datetime.fromtimestamp(s / 1000, UTC) for s in stamps]
    assert datetime.fromisoformat(report.first) == min(times)
    assert datetime.fromisoformat(report.last) == max(times)

    found = find_outcomes(log)
    places: dict[str, dict[str, int]] = {}
    for d in documents:
        if d.get("action_name") == "impression":
            ordinal = d["event_attributes"]["position"]["ordinal"]
            seen = places.setdefault(d["query_id"], {})
            document = d["event_attributes"]["object"]["object_id"]
            seen[document] = min(ordinal, seen.get(document, ordinal))
    logged = {d["query_id"]: d.get("query_response_hit_ids") for d in reversed(queries)}
    for query_id, hits in zip(found.query_id, found.hit_ids, strict=True):
        if logged[query_id]:
            assert list(hits) == list(dict.fromkeys(logged[query_id]))
            continue
        seen = places.get(query_id, {})
        assert sorted(hits) == sorted(seen)
        assert [seen[d] for d in hits] == sorted(seen.values())
    assert found.rule == "conversion"
    bought = {d["query_id"] for d in documents if d.get("action_name") in ("purchase", "add_to_cart")}
    assert {q for q, s in zip(found.query_id, found.satisfied, strict=True) if s} == ids & bought
