"""`corewrite eval` as a user meets it."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from corewrite.cli.main import app

sys.path.insert(0, str(Path(__file__).parents[1]))
from small_conversations import write_small_set

pytest.importorskip("bm25s")


@pytest.fixture
def files(tmp_path):
    return write_small_set(tmp_path)


def call(*args):
    return CliRunner().invoke(app, ["eval", *map(str, args)], catch_exceptions=False, env={"COLUMNS": "200"})


def measure(files, tmp_path, *options):
    out = tmp_path / "out" / "conversations.json"
    return call("conversations", "--turns", files[0], "--passages", files[1], "--out", out, *options), out


def test_figures_are_printed_and_written(files, tmp_path):
    result, out = measure(files, tmp_path)
    assert result.exit_code == 0, result.output
    for said in ("5 turns of 3 conversations over 30 passages", "3 turns passed over", "raw_first_last", "human", str(out)):
        assert said in result.output
    found = json.loads(out.read_text())
    rows = {(r["collection"], r["system"], r["mode"], r["metric"]): r for r in found["rows"]}
    keys = "collection ranker system mode metric value low high turns conversations"
    assert all(list(r) == keys.split() for r in found["rows"])
    assert len(rows) == 3 * 5 * 2 * 3
    human = rows["all", "human", "alone", "mrr"]
    assert human["value"] == 1 and (human["turns"], human["conversations"], human["ranker"]) == (5, 3, "bm25")
    assert rows["all", "raw", "alone", "mrr"]["value"] < 1
    assert rows["all", "raw", "fused", "mrr"]["value"] == rows["all", "raw", "alone", "mrr"]["value"]
    assert found["share_warm_start"] is None and found["share_champion"] is None
    assert 0 < found["share_best_baseline"]["value"] <= 1
    shares = {(s["collection"], s["system"], s["mode"]) for s in found["shares"]}
    assert ("all", "best_baseline", "fused") in shares and ("other", "rm3", "alone") in shares


def test_json_is_the_file_and_the_same_again(files, tmp_path):
    result, out = measure(files, tmp_path, "--json")
    assert result.exit_code == 0 and json.loads(result.stdout) == json.loads(out.read_text())
    again, _ = measure(files, tmp_path, "--json")
    assert again.stdout == result.stdout
    other, _ = measure(files, tmp_path, "--json", "--seed", "1")
    assert json.loads(other.stdout)["data_hash"] == json.loads(result.stdout)["data_hash"] and other.stdout != result.stdout
    less, _ = measure(files, tmp_path, "--json", "--limit", "2")
    assert json.loads(less.stdout)["turns"] == 2


def test_a_bad_line_ends_it_with_its_place(files, tmp_path):
    files[0].write_text(files[0].read_text() + '{"collection": "made"}\n')
    result, out = measure(files, tmp_path)
    assert result.exit_code == 1 and not out.exists()
    assert f"error: {files[0]}:9: conversation is missing" in result.output.replace("\n", " ")


def test_a_missing_file_is_named(files, tmp_path):
    result, _ = measure((tmp_path / "none.jsonl", files[1]), tmp_path)
    assert result.exit_code == 1 and "none.jsonl" in result.output
