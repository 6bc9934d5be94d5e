"""The gate on a candidate by itself, and margins from retrains, on a finished week; through the command line."""

import json
import shutil

import pytest
import yaml
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.cycle import gate_run, training_run
from corewrite.cycle.gate_run import _Bench, calibrate_margins
from corewrite.cycle.mined_week import frequencies
from corewrite.cycle.run import run_cycle
from corewrite.cycle.weeks import CycleError
from corewrite.gate import GateConfig
from corewrite.gate.calibrate import MINIMUM_RETRAINS
from corewrite.registry import Candidate, Registry
from corewrite.storage.journal import Journal
from corewrite.studies.ungated import UngatedPromotion


def call(*args):
    result = CliRunner().invoke(app, ["gate", "run", *map(str, args)], catch_exceptions=False)
    return result.exit_code, result.stdout


def test_a_finished_week_s_gate_again(settings, steps, tmp_path, monkeypatch):
    config = settings()
    # What was trained, and is called the champion whatever the gate said.
    record = run_cycle(config, "w1", steps=steps, promotion=UngatedPromotion())
    registry = Registry(config.run / "registry")
    champion = registry.champion()
    file, out = tmp_path / "corewrite.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(json.loads(config.model_dump_json(exclude_defaults=True))))
    asked = []
    evaluate = gate_run.evaluate
    monkeypatch.setattr(gate_run, "evaluate", lambda *args, **kwargs: asked.append((args, kwargs)) or evaluate(*args, **kwargs))

    # The champion against itself is held; table, JSON and page.
    code, table = call(champion.policy[:8], "-c", file, "--out", out)
    found = json.loads((out / "gate.json").read_text("utf-8"))
    assert (code, found["verdict"], found["week"], found["champion"]) == (3, "hold", "w1", champion.policy)
    assert "judge_ndcg" in table and "judge_ndcg" in (out / "gate.html").read_text("utf-8")
    # The slices are the cycle's: what is head, and what is new, by all weeks it mined.
    everything, before = frequencies([gate_run.MinedWindow(config.run / "windows" / w) for w in ("w0", "w1")])
    searches = asked[0][0][2]
    assert searches.frequency == everything and searches.before == before != everything
    reasons = {c["name"]: c["reason"] for c in found["checks"] if c["verdict"] == "skipped"}
    assert reasons["judge_ndcg_vs_recent"].startswith("not applicable: there is no champion of the last weeks but")
    assert reasons["kl_lineage"].startswith("not applicable: the champion is the first one")
    assert "not given" in reasons.pop("latency") and "not given" not in str(reasons), "a cycle feeds all else"

    # Once another policy is the champion, the one before is a bar, and where the lineage began.
    other = registry.save(
        "policy",
        lambda folder: shutil.copytree(config.run / "cycles" / "w1" / "start", folder, dirs_exist_ok=True) and None,
        {},
    )
    triple = Candidate(other.hash, champion.relevance, champion.spec)
    registry.promote(triple, expected=champion.version, reason="a test needs another", evidence={})
    code, text = call(champion.policy, "-c", file, "--json", "--out", out)
    checks = {c["name"]: c["verdict"] for c in json.loads(text)["checks"]}
    compared = {checks[name] for name in ("judge_ndcg_vs_recent", "kl_lineage", "kl_reference")}
    assert code in (0, 3, 4) and compared.isdisjoint({"skipped", "error"})

    # A folder that is no rewriter is rejected, a hash that is none is an error.
    (tmp_path / "broken").mkdir()
    code, text = call(tmp_path / "broken", "-c", file, "--json")
    assert (code, json.loads(text)["failed"]) == (4, ["integrity"])
    assert call("123456", "-c", file)[0] == 1

    # Margins come from the training that made the champion, as it was; not from the last one.
    with pytest.raises(CycleError, match=r"no finished week of .* made its champion"):
        calibrate_margins(config, MINIMUM_RETRAINS, None, steps=steps)
    registry.rollback(expected=registry.champion().version, reason="back to what the week made")
    Journal(config.run / "cycles" / "w9").once(
        "record", lambda: {**record, "week": "w9", "verdict": "reject", "candidate": "x"}
    )
    (journal := config.run / "cycles" / "w1" / "train.json").write_text(
        journal.read_text().replace('"beta": 0.2', '"beta": 0.7')
    )
    trained, gated = [], []
    monkeypatch.setattr(
        training_run, "train", lambda policy, *args, **kwargs: trained.append((policy, args[2].beta, kwargs["seed"]))
    )
    monkeypatch.setattr(_Bench, "gate", lambda self, policy, *_, reference, lineage: gated.append((policy, self.week)))
    monkeypatch.setattr(gate_run, "calibrate", lambda results, business: business)
    assert calibrate_margins(config, 2, None, steps=steps) == GateConfig().margins
    assert [week for _, week in gated] == ["w1", "w1"]
    assert [beta for _, beta, _ in trained] == [0.7, 0.7] and len({seed for *_, seed in trained}) == 2
