"""One small platform with two weeks of searches, served by a fitted model."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from corewrite.deployment.deployment import embedded_deployment
from corewrite.fusion import default_spec
from corewrite.relevance import cold_start
from corewrite.simulation.config import TrafficConfig, WorldConfig
from corewrite.simulation.traffic import simulate_week
from corewrite.simulation.week import Week
from corewrite.simulation.world import World, make_world
from corewrite.studies.engine import NoRewriter


@dataclass(frozen=True)
class Platform:
    world: World
    engine: NoRewriter
    week: Week
    folder: Path


@pytest.fixture(scope="session")
def platform(tmp_path_factory) -> Platform:
    world = make_world(WorldConfig(seed=5, videos=1_500, entities=40))
    deployment = embedded_deployment(world.catalogue, cold_start(world.catalogue), default_spec())
    engine = NoRewriter(deployment.cascade)
    week = simulate_week(world, TrafficConfig(), engine, week=0, sessions=1_500)
    return Platform(world, engine, week, tmp_path_factory.mktemp("platform"))
