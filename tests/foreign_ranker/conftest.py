"""The miniature platform and the ranker trained on its week 0, once a session."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from foreign_ranker.export import export_onnx
from foreign_ranker.ranker import ForeignRanker
from foreign_ranker.train import TrainingReport, train_ranker

from corewrite.cycle import LogWindow, read_window
from corewrite.deployment.deployment import Deployment, embedded_deployment
from corewrite.domain import Catalogue
from corewrite.fusion import default_spec
from corewrite.relevance import cold_start
from corewrite.search import top_overlap
from corewrite.simulation.traffic import simulate_week
from corewrite.simulation.week import Week
from corewrite.simulation.world import World, make_world
from corewrite.studies.engine import NoRewriter
from corewrite.studies.platform import log_week
from corewrite.studies.quickstart.config import miniature


@dataclass(frozen=True, eq=False)
class Platform:
    """A week's log under a cold start, and searches of a fresh week."""

    world: World
    cold: Deployment
    window: LogWindow
    fresh: Week

    @property
    def catalogue(self) -> Catalogue:
        return self.world.catalogue


@pytest.fixture(scope="session")
def platform(tmp_path_factory) -> Platform:
    config = miniature()
    world = make_world(config.seeded_world)
    cold = embedded_deployment(world.catalogue, cold_start(world.catalogue, seed=0), default_spec())
    engine = NoRewriter(cold.cascade)
    folder = tmp_path_factory.mktemp("logs")
    _, log = log_week(world, config.traffic, engine, 0, config.sessions, folder, lambda done, total: None)
    fresh = simulate_week(world, config.traffic, engine, week=2, sessions=config.held_out_sessions)
    return Platform(world, cold, read_window(log, overlap=top_overlap(cold.cascade)), fresh)


@pytest.fixture(scope="session")
def trained(platform) -> tuple[ForeignRanker, TrainingReport]:
    return train_ranker(platform.catalogue, platform.window.impressions(platform.catalogue), seed=0)


@pytest.fixture(scope="session")
def ranker(trained) -> ForeignRanker:
    return trained[0]


@pytest.fixture(scope="session")
def folder(ranker, tmp_path_factory) -> Path:
    return export_onnx(ranker, tmp_path_factory.mktemp("onnx") / "1")


@pytest.fixture(scope="session")
def pairs(platform) -> tuple[list[str], np.ndarray]:
    """Texts as they come, good and bad, each with documents that match it and such that do not."""
    rng = np.random.default_rng(0)
    texts = [q.text for q in platform.fresh.queries[:60]]
    texts += ["", " ", "never-seen ünïcode 猫 \U0001f600", "football " * 40, " ".join(platform.catalogue.titles[:12])]
    recalled = platform.cold.cascade.search(texts, [None] * len(texts)).rows[:, :5]
    chance = rng.integers(0, len(platform.catalogue), (len(texts), 3))
    return texts, np.concatenate([recalled, chance], 1)
