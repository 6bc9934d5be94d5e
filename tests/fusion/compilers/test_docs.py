"""The examples of docs/how-to/compile-spec.md are what is emitted."""

import json
import re
from pathlib import Path

import pytest

from corewrite.fusion import parse_spec
from corewrite.fusion.compilers import compile_spec

TEXT = (Path(__file__).parents[3] / "docs" / "how-to" / "compile-spec.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
SPEC = parse_spec(next(body for kind, body in BLOCKS if kind == "yaml"))


def test_the_rank_profile():
    assert ("text", compile_spec(SPEC, "vespa")) in BLOCKS


def test_the_script():
    script = compile_spec(SPEC, "opensearch")["rescore"]["query"]["rescore_query"]["script_score"]["script"]
    assert ("text", script["source"] + "\n") in BLOCKS


def test_the_formula():
    (shown,) = [json.loads(body) for kind, body in BLOCKS if kind == "json"]
    assert shown == compile_spec(SPEC, "qdrant")["query"]["formula"]["mult"][0]


def test_the_request(tmp_path, monkeypatch):
    (code,) = [body for kind, body in BLOCKS if kind == "python"]
    monkeypatch.chdir(tmp_path)
    Path("fusion.yaml").write_text(next(body for kind, body in BLOCKS if kind == "yaml"), "utf-8")
    names: dict[str, object] = {}
    exec(code, names)
    params = names["request"]["rescore"]["query"]["rescore_query"]["script_score"]["script"]["params"]
    assert params["rewrite_relevance_by_id"] == {"v2": 0.6} and params["present_relevance"] is True
    assert "${" not in json.dumps(names["request"])


def test_recall_is_repeated_as_often_as_said():
    body = json.dumps(compile_spec(SPEC, "qdrant"))
    assert "six times" in TEXT and body.count("${recall.query}") == 6


def test_unmatched_as_said():
    j = SPEC.finerank.rewrite[0]
    assert max(0.03 / 0.30, j.lo) ** j.exponent == pytest.approx(0.5)
