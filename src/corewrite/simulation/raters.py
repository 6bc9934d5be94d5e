"""Paid raters: they know what the searcher wanted, watch a few results and give noisy grades."""

import numpy as np
import numpy.typing as npt

from corewrite.domain import Query
from corewrite.simulation.intents import grades
from corewrite.simulation.week import Week
from corewrite.simulation.world import World

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def rate(
    world: World, week: Week, pools: IntArray, searches: IntArray, *, noise: float = 0.25
) -> tuple[list[Query], IntArray, FloatArray]:
    """Grades for `pools` of documents of some searches of `week`.

    Args:
        world: Truth.
        week: Whose searches are rated.
        pools: Catalogue rows to grade per search, [searches, documents], -1 pads.
        searches: Places of the rated searches in the week, [searches].
        noise: Share of grades that are off by one; a fifth as many are made up.

    Returns:
        Query with context, catalogue row and grade of each label.
    """
    rng = np.random.default_rng([world.config.seed, week.week, 41])
    truth = grades(world, week.intents.take(searches), pools).astype(np.float64)
    off = rng.random(pools.shape) < noise
    given = np.clip(truth + off * rng.choice([-1.0, 1.0], pools.shape), 0, 3)
    made_up = rng.random(pools.shape) < noise / 5
    given = np.where(made_up, rng.integers(0, 4, pools.shape), given)
    used = pools >= 0
    queries = [week.queries[searches[i]] for i in np.repeat(np.arange(len(searches)), used.sum(1))]
    return queries, pools[used], given[used]
