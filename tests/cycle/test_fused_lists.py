"""Lists of many searches, of which equal ones are fused once."""

import numpy as np

from corewrite.deployment.deployment import embedded_deployment
from corewrite.deployment.served import fused_lists
from corewrite.domain import Context, Query
from corewrite.fusion import default_spec
from corewrite.relevance import cold_start
from corewrite.simulation.config import WorldConfig
from corewrite.simulation.world import make_world


def test_lists_are_those_of_each_search_alone():
    catalogue = make_world(WorldConfig(seed=3, videos=500, entities=20)).catalogue
    deployment = embedded_deployment(catalogue, cold_start(catalogue, seed=3), default_spec())
    a, b = catalogue.titles[0], catalogue.titles[1]
    queries = [Query(a), Query(b), Query(a, Context(queries=(b,))), Query(a), Query(b)]
    rewrites = [b, None, b, None, a]
    found = fused_lists(deployment, queries, rewrites)
    alone = [deployment.cascade.search([q.text], [r]).rows[0] for q, r in zip(queries, rewrites, strict=True)]
    np.testing.assert_array_equal(found, alone)
    assert len({tuple(row) for row in found.tolist()}) > 2
    assert len(fused_lists(deployment, [], [])) == 0
