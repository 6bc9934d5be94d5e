import numpy as np
import pytest

from corewrite.domain import Catalogue
from corewrite.relevance import Impressions, cold_start
from corewrite.simulation.config import WorldConfig
from corewrite.simulation.vocabulary import ASPECTS
from corewrite.simulation.world import make_world


@pytest.fixture(scope="session")
def world():
    return make_world(WorldConfig(seed=4, videos=1_500, entities=30))


@pytest.fixture(scope="session")
def catalogue(world) -> Catalogue:
    return world.catalogue


@pytest.fixture(scope="session")
def model(catalogue):
    return cold_start(catalogue, seed=1)


@pytest.fixture(scope="session")
def impressions(world):
    """Users who ask for an entity and an aspect and are satisfied by videos that show both, seen or said."""
    rng = np.random.default_rng(0)
    n = 12_000
    asked = rng.integers(0, len(world.catalogue), n)
    shown = np.where(rng.random(n) < 0.5, asked, rng.integers(0, len(world.catalogue), n))
    near = np.array([rng.choice(np.flatnonzero(world.video_entity == world.video_entity[a])) for a in asked])
    shown = np.where(rng.random(n) < 0.4, near, shown)
    right = (world.video_entity[shown] == world.video_entity[asked]) & (world.video_aspect[shown] == world.video_aspect[asked])
    satisfied = rng.random(n) < np.where(right, 0.7, 0.1)
    texts = [f"{world.names[world.video_entity[a]]} {ASPECTS[world.video_aspect[a]][0]}" for a in asked]
    return Impressions(texts, shown, satisfied, np.ones(n), [f"u{i % 900}" for i in range(n)])
