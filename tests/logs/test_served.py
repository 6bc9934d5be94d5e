"""The line of `corewrite serve`: read as it was written, in all formats, and refused where it is damaged."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from corewrite.logs import read_log
from corewrite.logs.served import (
    Attributes,
    LogPlace,
    RolloutPlace,
    ServedLine,
    ServedSearch,
    ShadowAnswer,
    count_lost,
    read_served,
)

HERE = Path(__file__).parent
FORMAT_1 = HERE / "data" / "served-format-1.ndjson"
"""Written by the server of commit ed437fb: three arms with texts, one with hashes, and in the shadow stage of a rollout."""
UBI = HERE.parents[1] / ".." / "shared" / "data" / "ubi"

ANSWER = {
    "version": 3, "policy": "aa", "relevance": "bb", "spec": "cc", "spec_hash": "dd",
    "signal_status": {"finerank.relevance": "ok"}, "rewrite": "ok", "rewrites": ("löwe baby",), "used_at": ("finerank",),
}  # fmt: skip


def line(**served) -> ServedLine:
    """A line in which everything is there."""
    known = {
        **ANSWER, "texts": "plain", "context_queries": ("tiere",), "ramp": RolloutPlace(arm="control", champion=4, share=0.1),
        "backends": {"relevance": {"kind": "onnx", "batch": 16}}, "factors": {"original.prior": (0.5, 0.25)},
        "scores": (0.5, 0.25), "pair": (3, 4), "lists": (("a", "b"), ("b", "a")),
        "shadow": ShadowAnswer(**ANSWER, hit_ids=("b",)), "log": LogPlace(writer="w", sequence=7),
    }  # fmt: skip
    attributes = Attributes(
        session_id="s", context_titles=("früher",), locale="de", arm="all_stages", bucket=9_999, impacted=True,
        served=ServedSearch(**{**known, **served}),
    )  # fmt: skip
    return ServedLine(
        application="corewrite", query_id="q1", client_id="c1", user_query="löwe 🦁", timestamp="2024-01-01T00:00:00.000Z",
        query_response_id="q1", query_response_hit_ids=("a", "b"), query_attributes=attributes,
    )  # fmt: skip


NOTHING = dict.fromkeys(("ramp", "backends", "pair", "lists", "shadow"))


@pytest.mark.parametrize("served", [{}, NOTHING, {"pair": ("none", "all_stages")}, {"texts": "hashed"}, {"texts": "sealed"}])
def test_what_is_written_is_read_back(served):
    written = line(**served)
    assert read_served(written.encoded()) == written
    assert json.loads(written.encoded())["query_attributes"]["served"]["format"] == 3


@given(st.text(st.characters(codec="utf-8")), st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_every_text_and_number_is_read_back(text, numbers):
    written = line(rewrites=(text,), backends={text: numbers})
    assert written.encoded().count(b"\n") == 1 and read_served(written.encoded()) == written


def test_half_a_character_costs_itself_and_not_the_line():
    # Nothing that comes in or from a policy can hold one; this is what keeps the writer's thread alive if it did.
    written = line()
    broken = written.model_copy(update={"user_query": "x\ud800"})
    assert read_served(broken.encoded()).user_query == "x?"


@pytest.mark.skipif(not UBI.is_dir(), reason="the UBI schemas are not there (../shared/data/ubi)")
@pytest.mark.parametrize("served", [{}, NOTHING])
def test_a_line_validates_as_ubi(served):
    schema = json.loads((UBI / "query.request.schema.json").read_text())
    validator = Draft202012Validator(schema, format_checker=FormatChecker())
    document = json.loads(line(**served).encoded())
    # See tests/logs/test_ubi.py: the schema's own oneOf fails on names it lists itself.
    assert not [e for e in validator.iter_errors(document) if e.validator != "oneOf" or e.context]


def test_lines_of_format_1_are_read():
    raw = FORMAT_1.read_bytes().splitlines(keepends=True)
    found = [read_served(one) for one in raw]
    assert [x.query_attributes.arm for x in found] == ["none", "finerank_only", "all_stages", "none", "all_stages"]
    assert [x.served.texts for x in found] == ["plain", "plain", "plain", "hashed", "plain"]
    for one, x in zip(raw, found, strict=True):
        value = json.loads(one)
        served = value["query_attributes"]["served"]
        assert (x.served.format, x.served.log, x.query_attributes.bucket, x.served.pair) == (1, None, None, None)
        # It told of no pair of arms, and what is not known is not false.
        assert "impacted" in value["query_attributes"] and x.query_attributes.impacted is None
        assert list(x.query_response_hit_ids) == value["query_response_hit_ids"] and x.user_query == value["user_query"]
        assert {n: list(v) for n, v in x.served.factors.items()} == served["factors"]
        for name in ("version", "policy", "relevance", "spec", "spec_hash", "signal_status", "rewrite", "backends"):
            assert getattr(x.served, name) == served[name]
        assert (list(x.served.rewrites), list(x.served.used_at)) == (served["rewrites"], served["used_at"])
    assert found[-1].served.ramp == RolloutPlace(arm="control", champion=2, share=0.0)
    assert found[-1].served.shadow.version == 2 and len(found[-1].served.shadow.hit_ids) == 3
    # The first servers knew no rollouts and no foreign backends.
    value = json.loads(raw[2])
    for name in ("ramp", "backends", "shadow"):
        del value["query_attributes"]["served"][name]
    oldest = read_served(json.dumps(value).encode())
    assert oldest.served == found[2].served.model_copy(update={"backends": None})


@pytest.mark.parametrize("pair", [["none", "launch_1"], ["launch_1", "launch_2"], [3, 4], None])
def test_lines_of_format_2_are_read_with_the_names_of_arms_of_today(pair, tmp_path):
    """They differ from today's in the names of two arms alone."""
    names = {"launch_1": "finerank_only", "launch_2": "all_stages"}
    now = line(format=2, pair=pair and tuple(names.get(side, side) for side in pair))
    value = now.model_dump()
    value["query_attributes"]["arm"] = "launch_2"
    value["query_attributes"]["served"]["pair"] = pair
    written = json.dumps(value).encode()
    assert read_served(written) == now
    for name, text in (("before", written), ("now", line(pair=now.served.pair).encoded())):
        (tmp_path / name).write_bytes(text)
    before, today = (read_log(tmp_path / name).searches.to_pyarrow() for name in ("before", "now"))
    assert before == today and before["arm"].to_pylist() == ["all_stages"]


def test_an_arm_of_another_server_keeps_its_name(tmp_path):
    """Applications log the arms that the HTTP API told them, or arms of their own."""
    (tmp_path / "log").write_text(
        json.dumps(
            {"query_id": "q", "client_id": "u", "user_query": "a", "timestamp": 1, "query_attributes": {"arm": "launch_2"}}
        )
    )
    assert read_log(tmp_path / "log").searches.to_pyarrow()["arm"].to_pylist() == ["launch_2"]


def test_the_log_reader_takes_from_both_formats_what_it_may(tmp_path):
    path = tmp_path / "log.ndjson"
    path.write_bytes(FORMAT_1.read_bytes() + line().encoded() + line(texts="hashed").encoded().replace(b'"q1"', b'"q2"'))
    log = read_log(path)
    assert log.report.rejected == 0 and any("2 of 7 searches hold no text" in w for w in log.report.warnings)
    rows = log.searches.to_pyarrow().to_pylist()
    assert [r["texts"] for r in rows] == ["plain", "plain", "plain", "hashed", "plain", "plain", "hashed"]
    assert [(r["bucket"], r["impacted"], r["pair"]) for r in rows] == [
        *[(None, None, None)] * 5,
        *[(9_999, True, ["3", "4"])] * 2,
    ]
    used = [read_served(x).served.used_at for x in FORMAT_1.read_bytes().splitlines(keepends=True)]
    assert [r["rewritten"] for r in rows] == [*map(bool, used), True, True] and {True, False} <= {r["rewritten"] for r in rows}


def damaged(**changes):
    value = json.loads(line().encoded())
    value["query_attributes"]["served"] |= changes
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"{", "no search of `corewrite serve`"),
        (b"[]", "no search of `corewrite serve`"),
        ({"action_name": "click"}, "no search of `corewrite serve`"),
        (damaged(format=4), "served.format is 4, known up to 3"),
        (damaged(format=True), "served.format is True"),
        (damaged(texts="rot13"), "query_attributes.served.texts: Input should be"),
        (damaged(version="3"), "query_attributes.served.version: Input should be a valid integer"),
        (damaged(scores=["0.5"]), "query_attributes.served.scores.0: Input should be a valid number"),
        (damaged(pair=["none", 4]), "query_attributes.served.pair"),
        (damaged(scores=[0.5]), "scores has another length"),
        (damaged(factors={"original.prior": []}), "original.prior has another length"),
        (damaged(lists=[["a"]]), "query_attributes.served.lists"),
        (damaged(log={"writer": "w", "sequence": -1}), "greater than or equal to 0"),
        (b'{"query_attributes": {"served": ' + b"[" * 100_000, "no search of `corewrite serve`"),
    ],
)
def test_what_is_no_line_of_ours_is_refused_with_the_reason(value, words):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    with pytest.raises(ValueError, match=words.replace(".", r"\.")):
        read_served(raw)


def test_fields_of_a_later_server_are_passed_over():
    assert read_served(json.dumps(damaged(weather="fine")).encode()) == line()


@pytest.mark.parametrize(
    ("places", "lost"),
    [
        ([], 0),
        ([("a", 5)], 0),
        ([("a", 5), ("a", 4), ("a", 6)], 0),
        ([("a", 0), ("a", 3)], 2),
        ([("a", 0), ("b", 9), ("a", 3), ("b", 11), ("b", 11)], 3),
    ],
)
def test_lost_lines_are_the_gaps_of_each_writer(places, lost):
    assert count_lost(LogPlace(writer=w, sequence=n) for w, n in places) == lost


def test_the_reader_tells_of_lost_lines(tmp_path):
    path = tmp_path / "log.ndjson"
    places = [{"log": LogPlace(writer="w", sequence=n)} for n in (3, 4, 8)]
    path.write_bytes(b"".join(line(**p).encoded().replace(b'"q1"', b'"q%d"' % i) for i, p in enumerate(places)))
    report = read_log(path).report
    assert report.lost == 3 and report.as_dict()["lost"] == 3
    assert any("3 searches were not logged" in w for w in report.warnings)
