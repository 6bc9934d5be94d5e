"""Three weeks of a tiny platform as files, and settings of a cycle on them."""

from contextlib import contextmanager
from pathlib import Path

import pytest

from corewrite.cycle import PipelineConfig, WarmStartConfig, write_catalogue, write_labels
from corewrite.cycle.config import CycleConfig, RefreshConfig
from corewrite.deployment.deployment import embedded_deployment
from corewrite.fusion import default_spec
from corewrite.gate import GateConfig
from corewrite.relevance import cold_start
from corewrite.simulation.config import TrafficConfig, WorldConfig
from corewrite.simulation.export import write_log
from corewrite.simulation.traffic import simulate_week
from corewrite.simulation.world import make_world
from corewrite.studies.engine import NoRewriter, assign_arm
from corewrite.studies.platform import ratings
from corewrite.training import TrainingConfig


class Quiet:
    """Steps that nobody watches."""

    @contextmanager
    def step(self, title):
        yield lambda done, total: None


@pytest.fixture(scope="session")
def steps():
    return Quiet()


@pytest.fixture(scope="session")
def deployment():
    """Of a small platform without a log. Not to be changed."""
    catalogue = make_world(WorldConfig(seed=3, videos=500, entities=20)).catalogue
    return embedded_deployment(catalogue, cold_start(catalogue, seed=3), default_spec())


@pytest.fixture(scope="session")
def platform(tmp_path_factory) -> Path:
    """Documents, labels and logs of four weeks. Not to be changed."""
    folder = tmp_path_factory.mktemp("platform")
    world = make_world(WorldConfig(seed=3, videos=700, entities=25))
    write_catalogue(world.catalogue, folder / "documents.parquet")
    cold = embedded_deployment(world.catalogue, cold_start(world.catalogue, seed=3), default_spec())
    (folder / "logs").mkdir()
    for week in range(4):
        happened = simulate_week(
            world, TrafficConfig(), NoRewriter(cold.cascade), week=week, sessions=500, assign_arm=assign_arm
        )
        write_log(happened, world.catalogue, folder / "logs" / f"w{week}.ndjson")
        if week == 0:
            write_labels(ratings(world, happened, cold.cascade, 80), world.catalogue, folder / "labels.parquet")
    return folder


@pytest.fixture
def settings(platform: Path, tmp_path: Path):
    """Settings of a cycle with a run folder of its own."""

    def make(name: str = "run", **changes: object) -> CycleConfig:
        return CycleConfig.model_validate(
            {
                "run": tmp_path / name, "documents": platform / "documents.parquet", "logs": platform / "logs",
                "labels": platform / "labels.parquet", "frozen": tmp_path / f"{name}-frozen.parquet",
                "refresh": RefreshConfig(relevance_every=1, relevance_windows=1, examples=200), "frozen_queries": 40,
                "pipeline": PipelineConfig(
                    warm_start=WarmStartConfig(examples=1_500, epochs=1.5),
                    training=TrainingConfig(phases=1, instances_per_phase=60, num_generations=4, minimum_gap=0.0),
                    gate=GateConfig(resamples=60, subsamples=50, minimum_effective_users=20), gate_queries=100,
                    watched_queries=50, probe_instances=60,
                ),
                **changes,
            }
        )  # fmt: skip

    return make
