"""A team with a ranker of its own: a multimodal cross-encoder in ONNX Runtime, in three versions."""

import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from corewrite.cycle import PipelineConfig, WarmStartConfig, read_window
from corewrite.cycle.config import RefreshConfig
from corewrite.deployment.deployment import embedded_deployment
from corewrite.deployment.settings import RankerSettings
from corewrite.experiment import RolloutConfig
from corewrite.fusion import default_spec
from corewrite.gate import GateConfig
from corewrite.gate.config import Margins
from corewrite.relevance import cold_start
from corewrite.relevance.backends import folder_hash
from corewrite.simulation.config import TrafficConfig, WorldConfig
from corewrite.simulation.export import write_log
from corewrite.simulation.traffic import simulate_week
from corewrite.simulation.world import make_world
from corewrite.studies.engine import NoRewriter
from corewrite.studies.production.loop import Loop, LoopSize, Team, run_loop
from corewrite.training import TrainingConfig

sys.path.insert(0, str(Path(__file__).parents[2]))

SPEC = """
version: 2
recall: {original_candidates: 15, rewrite_candidates: 10}
rawrank:
  original: [{signal: dense, eps: 0.01}, {signal: prior, eps: 0.05, exponent: 0.3}]
  rewrite: [{signal: dense}]
finerank:
  original: [{signal: relevance, eps: 0.001}, {signal: prior, eps: 0.05, exponent: 0.3}]
  rewrite: [{signal: relevance}]
depths: {finerank: 20, protected: 20}
"""


WIDE = {"judge_ndcg": 0.2, "judge_ndcg_vs_no_rewriter": 0.2, "worst_slice": 0.5}


class Quiet:
    @contextmanager
    def step(self, title):
        yield lambda done, total: None


def miniature_size() -> LoopSize:
    pipeline = PipelineConfig(
        warm_start=WarmStartConfig(examples=8_000),
        training=TrainingConfig(phases=1, instances_per_phase=60, num_generations=6),
        # Wide margins: of so few searches the judge can tell a broken ranker, not a champion that is a little worse.
        gate=GateConfig(resamples=100, subsamples=50, minimum_users=20, margins=Margins(**WIDE)),
        gate_queries=120, watched_queries=50,
        probe_instances=60,
    )  # fmt: skip
    limits = {"errors": {"plus": 0.2}, "give_up": {"times_control": 2.0, "plus": 0.3}}
    rollout = RolloutConfig.model_validate({"stages": [{"share": 0.5, "minimum_users": 30, "limits": limits}]})
    refresh = RefreshConfig(relevance_every=0, examples=2_000)
    return LoopSize(500, 150, pipeline, pipeline, refresh, 40, rollout, gated=False)


@pytest.fixture(scope="session")
def world():
    return make_world(WorldConfig(seed=5, videos=700, entities=25))


@pytest.fixture(scope="session")
def repository(world, tmp_path_factory) -> Path:
    """The ranker's versions, trained on a week of its log: 1 mistakes pictures, 2 is sound, 3 pays for repeated words."""
    pytest.importorskip("onnx")
    from benchmarks.foreign_ranker.broken import break_ranker
    from benchmarks.foreign_ranker.export import export_versions
    from benchmarks.foreign_ranker.train import TrainingConfig as RankerTraining
    from benchmarks.foreign_ranker.train import train_ranker

    folder = tmp_path_factory.mktemp("ranker")
    cold = embedded_deployment(world.catalogue, cold_start(world.catalogue, seed=0), default_spec())
    week = simulate_week(world, TrafficConfig(), NoRewriter(cold.cascade), week=0, sessions=1_200)
    write_log(week, world.catalogue, folder / "log.ndjson")
    impressions = read_window(folder / "log.ndjson").impressions(world.catalogue)
    sound = train_ranker(world.catalogue, impressions, seed=2, config=RankerTraining(clozes=20_000, epochs=2))[0]
    versions = {"1": break_ranker(sound, "pictures"), "2": sound, "3": break_ranker(sound, "repeats")}
    return export_versions(versions, folder / "versions")


@pytest.fixture(scope="session")
def rankers(repository) -> dict[str, RankerSettings]:
    def onnx(version):
        signal = {
            "kind": "onnx", "folder": repository / version, "pin": folder_hash(repository / version), "max_tokens": 64,
            "inputs": {"picture": "document.visual"},
        }  # fmt: skip
        return RankerSettings.model_validate({"signals": {"relevance": signal}})

    return {"1": onnx("1"), "2": onnx("2"), "broken": onnx("3")}


@pytest.fixture(scope="session")
def loop(world, rankers, tmp_path_factory) -> Loop:
    folder = tmp_path_factory.mktemp("production")
    (folder / "fusion.yaml").write_text(SPEC)
    return run_loop(Team(folder, world, rankers, folder / "fusion.yaml", miniature_size(), Quiet()))
