"""`corewrite eval` as a user meets it."""

import json
import sys
from pathlib import Path

import ir_measures
import pytest
from ir_measures import RR, R, nDCG
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.cycle.kept_start import keep_start
from corewrite.deployment.served import served_rewrites
from corewrite.evaluation.conversations.bm25 import Bm25Ranker
from corewrite.evaluation.conversations.fused import DEFAULT_STAGE
from corewrite.evaluation.conversations.measure import Measured, collect_ranks, score_turns
from corewrite.evaluation.conversations.metrics import reciprocal_rank
from corewrite.evaluation.conversations.reader import read_conversations
from corewrite.registry import Candidate, Registry
from corewrite.rewriter import new_small_decoder
from corewrite.storage.run_layout import RunLayout

sys.path.insert(0, str(Path(__file__).parents[1]))
from small_conversations import tiny_encoder, write_small_set

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


# Policies of a run


@pytest.fixture
def small():
    return new_small_decoder(["symptoms of throat cancer", "is it treated"] * 9, seed=0, vocabulary=300, width=32, heads=2)


@pytest.fixture
def other():
    return new_small_decoder(["symptoms of throat cancer", "is it treated"] * 9, seed=1, vocabulary=300, width=32, heads=2)


def promote(run, policy):
    registry = Registry(RunLayout(run).registry)
    saved = registry.save("policy", policy.save, {}).hash
    (relevance, spec) = (
        registry.save(kind, lambda f: (f / "x.json").write_text("{}"), {}).hash for kind in ("relevance", "spec")
    )
    registry.promote(Candidate(saved, relevance, spec), expected=None, reason="test", evidence={})


def by_system(found, collection="all", mode="alone", metric="mrr"):
    want = (collection, mode, metric)
    return {r["system"]: r["value"] for r in found["rows"] if (r["collection"], r["mode"], r["metric"]) == want}


def test_a_runs_champion_and_warm_start_are_measured(files, tmp_path, small, other):
    run = tmp_path / "run"
    keep_start(small, RunLayout(run).start)
    promote(run, other)
    result = call("conversations", "--turns", files[0], "--passages", files[1], "--run", run, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads((run / "conversations.json").read_text())
    assert found["policies"] == {"warm_start": small.policy_hash, "champion": other.policy_hash}
    assert found["notes"] == ["MiniLM is not measured: name its folder with --minilm"]
    assert list(by_system(found)) == ["raw", "raw_last", "raw_first_last", "rm3", "warm_start", "champion", "human"]
    # What is measured is what the policy serves.
    data = read_conversations([files[0]], [files[1]])
    said = served_rewrites(other, data.queries, max_new_tokens=64)
    ranks = collect_ranks(
        data, score_turns(data, {"x": said}, [Bm25Ranker([p.text for p in data.passages])], DEFAULT_STAGE)
    )  # fmt: skip
    assert by_system(found)["champion"] == pytest.approx(reciprocal_rank(ranks[Measured("bm25", "x", "alone")]).mean())
    share = (by_system(found)["champion"] - by_system(found)["raw"]) / (1 - by_system(found)["raw"])
    assert found["share_champion"]["value"] == pytest.approx(share)


def test_a_run_without_a_champion_says_so_and_one_without_anything_is_refused(files, tmp_path, small):
    run = tmp_path / "run"
    Registry(RunLayout(run).registry)
    missing = call("conversations", "--turns", files[0], "--passages", files[1], "--run", run)
    assert missing.exit_code == 1 and "keeps no warm start" in missing.output and "has no champion" in missing.output
    small.save(tmp_path / "warm")
    result = call("conversations", "--turns", files[0], "--passages", files[1], "--run", run, "--warm-start", tmp_path / "warm")
    assert result.exit_code == 0 and "note: " in result.output and "has no champion: nothing was promoted yet" in result.output
    found = json.loads((run / "conversations.json").read_text())
    assert found["share_champion"] is None and found["share_warm_start"] is not None
    no_run = call("conversations", "--turns", files[0], "--passages", files[1], "--run", tmp_path / "none")
    assert no_run.exit_code == 1 and "holds no registry" in no_run.output


# Rankers, fusion and exports


@pytest.mark.parametrize("mode", ["alone", "fused"])
def test_exported_files_give_the_figures(files, tmp_path, mode):
    folder = tmp_path / "trec"
    result, out = measure(files, tmp_path, "--export", folder)
    assert result.exit_code == 0, result.output
    found, names = json.loads(out.read_text()), {"mrr": RR, "ndcg@10": nDCG @ 10, "recall@10": R @ 10}
    qrels = list(ir_measures.read_trec_qrels(str(folder / "qrels.txt")))
    assert [(q.query_id, q.doc_id) for q in qrels][:2] == [("c/1/2", "p/2"), ("c/1/3", "p/3")]
    for system in found["systems"]:
        run = list(ir_measures.read_trec_run(str(folder / f"bm25.{system}.{mode}.run")))
        want = ir_measures.calc_aggregate(list(names.values()), qrels, run)
        for name, measured in names.items():
            assert by_system(found, mode=mode, metric=name)[system] == pytest.approx(want[measured], abs=1e-6), (system, name)
    rewrites = [json.loads(line) for line in (folder / "rewrites.jsonl").read_text().splitlines()]
    assert rewrites[0]["turn"] == "c/1/2" and rewrites[0]["human"] == "symptoms of throat cancer"
    assert rewrites[2]["human"] == rewrites[2]["query"] == rewrites[2]["raw"]
    assert not [p for p in folder.iterdir() if p.name.startswith(".")] and len(list(folder.iterdir())) == 2 + 2 * 5
    call("conversations", "--turns", files[0], "--passages", files[1], "--out", out, "--export", folder, "--export-depth", 1)
    assert len((folder / "bm25.human.alone.run").read_text().splitlines()) == 5


def test_a_second_ranker_is_an_encoder(files, tmp_path):
    pytest.importorskip("transformers")
    folder = tiny_encoder(tmp_path / "encoder")
    result, out = measure(files, tmp_path, "--minilm", folder)
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    assert (
        [r["name"] for r in found["rankers"]] == ["bm25", "minilm"] == list(dict.fromkeys(r["ranker"] for r in found["rows"]))
    )
    assert found["notes"] == [] and {s["ranker"] for s in found["shares"]} == {"bm25", "minilm"}
    without, out = measure(files, tmp_path)
    assert "note: MiniLM is not measured: name its folder with --minilm" in without.output
    alone = json.loads(out.read_text())
    assert [r for r in found["rows"] if r["ranker"] == "bm25"] == alone["rows"]
    refused, _ = measure(files, tmp_path, "--minilm", tmp_path / "none")
    assert refused.exit_code == 1 and "is no folder: name the folder of a sentence encoder" in " ".join(refused.output.split())


def test_fusion_is_by_the_runs_calibration_and_the_spec(files, tmp_path, small):
    run = tmp_path / "run"
    keep_start(small, RunLayout(run).start)
    Registry(RunLayout(run).registry)
    inputs = ("--turns", files[0], "--passages", files[1])
    before = json.loads(call("conversations", *inputs, "--run", run, "--json").stdout)
    fitted = json.loads(call("calibrate", *inputs, "--run", run, "--json").stdout)
    after = json.loads(call("conversations", *inputs, "--run", run, "--json").stdout)
    assert before["rankers"][0]["calibration"] == {"slope": 0.42, "offset": -6.5}
    assert after["rankers"][0]["calibration"] == fitted["calibrations"]["bm25"] != before["rankers"][0]["calibration"]
    assert by_system(after) == by_system(before)
    spec = tmp_path / "fusion.yaml"
    stage = (
        "{original: [{signal: relevance, eps: 0.000001}], rewrite: [{signal: relevance, eps: 0.000001, exponent: 0, lo: 1}]}"
    )
    spec.write_text(f"version: 2\nrawrank: {stage}\nfinerank: {stage}\n")
    off = json.loads(
        call("conversations", *inputs, "--spec", spec, "--limit", 1, "--out", tmp_path / "x.json", "--json").stdout
    )
    fused = by_system(off, mode="fused")
    assert fused["human"] == fused["raw"] and off["fusion"]["rewrite"][0]["exponent"] == 0
    assert call("calibrate", *inputs).exit_code == 2 and call("conversations", *inputs, "--warm-start", run).exit_code == 2
    (run / "conversation-calibration.json").write_text("{}x")
    damaged = call("conversations", *inputs, "--run", run)
    assert damaged.exit_code == 1 and "conversation-calibration.json" in damaged.output
