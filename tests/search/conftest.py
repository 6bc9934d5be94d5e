import pytest

from corewrite.deployment.deployment import embedded_deployment
from corewrite.fusion import default_spec
from corewrite.relevance import cold_start
from corewrite.simulation.config import WorldConfig
from corewrite.simulation.world import make_world


@pytest.fixture(scope="session")
def deployment():
    world = make_world(WorldConfig(seed=2, videos=1_200, entities=30))
    return embedded_deployment(world.catalogue, cold_start(world.catalogue), default_spec())


@pytest.fixture(scope="session")
def queries(deployment):
    """Words of titles, two of them at a time, some unknown to the catalogue."""
    titles = [t.split() for t in deployment.catalogue.titles[:400:9]]
    return [" ".join(t[:2]) for t in titles] + ["nothingknown", "video zzzz"]
