"""benchmarks/reach.py on the miniature platform: what it measures, and that nothing is done twice."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from corewrite.cycle import read_catalogue, read_labels, read_window
from corewrite.deployment.deployment import embedded_deployment
from corewrite.fusion import default_spec
from corewrite.registry import Registry
from corewrite.relevance import LateInteraction, TreeJudge
from corewrite.rewriter import load_rewriter
from corewrite.search import top_overlap
from corewrite.simulation.traffic import simulate_week
from corewrite.simulation.world import make_world
from corewrite.studies.engine import NoRewriter
from corewrite.studies.quickstart.config import miniature
from corewrite.training import TrainingConfig

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import reach
from setting import Platform

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def found(run):
    registry, config = Registry(run.folder / "registry"), miniature()
    triple = registry.decisions()[0].candidate
    model = LateInteraction.load(registry.path(registry.artifact("relevance", triple.relevance)))
    deployment = embedded_deployment(read_catalogue(run.folder / "documents.parquet"), model, default_spec())
    window = read_window(run.folder / "logs" / "week-1.ndjson.gz", overlap=top_overlap(deployment.cascade))
    judge = TreeJudge(deployment.catalogue)
    judge.fit(read_labels(run.folder / "labels.parquet", deployment.catalogue), seed=0)
    world = make_world(config.seeded_world)
    week = simulate_week(world, config.traffic, NoRewriter(deployment.cascade), week=2, sessions=100)
    policy = load_rewriter(registry.path(registry.artifact("policy", triple.policy)))
    instances = window.instances(deployment.catalogue, seed=0)
    return Platform(config, world, deployment, judge, instances, instances[:60], week, policy)


def test_the_share_that_reaches_finerank_is_that_of_the_cascades_own_candidates(found):
    rewrites = [x.query.context.queries[-1] if x.query.context.queries else None for x in found.for_gate]
    shares = reach.share_reached(found.deployment, found.for_gate, rewrites)
    for name, texts in (("reached", rewrites), ("reached_without", [None] * len(rewrites))):
        each = []
        for x, text in zip(found.for_gate, texts, strict=True):
            rows = found.deployment.cascade.trace([x.query.text], [text]).finerank.rows[0]
            ids = {found.deployment.catalogue.ids[row] for row in rows if row >= 0}
            each.append(np.average([d in ids for d in x.positives], weights=x.gains))
        assert shares[name] == pytest.approx(np.mean(each))
    assert shares["reached"] >= shares["reached_without"] > 0


def test_trainings_and_launches_are_kept_and_written(found, run, tmp_path, monkeypatch):
    platforms, out, results = tmp_path / "platforms", tmp_path / "out", tmp_path / "reach.json"
    platforms.mkdir()
    (platforms / "seed-0").symlink_to(run.folder, target_is_directory=True)
    monkeypatch.setattr(reach, "platform", lambda seed, folder: found)
    monkeypatch.setattr(reach, "RESULTS", results)
    monkeypatch.setattr(reach, "PROBED", 50)
    small = TrainingConfig(phases=1, instances_per_phase=80, num_generations=6)
    monkeypatch.setattr(reach, "TrainingConfig", lambda: small)
    arguments = ["--seeds", "0", "--weights", "0", "5", "--sessions", "300", "--platforms", str(platforms), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["reach.py", *arguments])
    before = found.warm.policy_hash
    reach.main()
    assert found.warm.policy_hash == before, "every training has its own copy"
    written = json.loads(results.read_text())
    assert [t["reach_weight"] for t in written["trainings"]] == [0, 5]
    assert [launch["reach_weight"] for launch in written["launches"]] == [0, 5]
    assert [launch["seeds"] for launch in written["launches"]] == [["seed-0"], ["seed-0"]]
    (difference,) = written["differences"]
    mean, low, high = difference["ndcg10_against_0"]
    truths = [np.load(out / f"seed-0-reach-{w}.npy") for w in (0, 5)]
    assert low <= mean <= high and mean == pytest.approx((truths[1] - truths[0]).mean())
    assert mean == pytest.approx(written["trainings"][1]["ndcg10_all"] - written["trainings"][0]["ndcg10_all"])

    def again(*_):
        raise AssertionError("done again")

    monkeypatch.setattr(reach, "train", again)
    monkeypatch.setattr(reach, "run_launch", again)
    results.unlink()
    reach.main()
    assert json.loads(results.read_text()) == written
