"""Searches of several worlds or seeds, read as one launch."""

from collections import Counter
from collections.abc import Mapping
from itertools import combinations

import pyarrow as pa
import pyarrow.compute as pc
import scipy.stats

from corewrite.experiment.ab.searches import check_searches

_ONE_COIN_P = 1e-6
"""Two worlds' arms that agree this far beyond chance were not drawn apart; so small, since every pair of worlds is asked."""


def pool_tables(tables: Mapping[str, pa.Table]) -> pa.Table:
    """Join the searches of several worlds or seeds, to be read as one launch.

    Every user id is prefixed by its world's name, so that equal ids of two worlds stay two users. All worlds
    must have been split with the same treatment share, or differences between worlds would pass for an effect
    of the treatment, and each with a salt of its own: under one salt equal ids fall into equal arms, and a coin
    tossed once would be counted in every world as if it were another. Sample-ratio tests, and all intervals
    where equal ids are alike, would then be of more users than there are; such worlds are refused.

    Args:
        tables: A table of searches (see `check_searches`) by name of the world.

    Returns:
        All searches in `SEARCH_SCHEMA`, world after world.

    Raises:
        ValueError: no table, a name with "/" in it, a table that `check_searches` refuses, or two worlds whose
            shared user ids fall into the same arms.
    """
    if not tables:
        raise ValueError("there is no table to pool")
    pooled = []
    arms: dict[str, dict[str, str]] = {}
    for name, table in tables.items():
        if "/" in name:
            raise ValueError(f"name {name!r} must not hold '/': it parts the name from the user id")
        try:
            checked = check_searches(table)
        except ValueError as error:
            raise ValueError(f"table {name!r}: {error}") from error
        arms[name] = dict(zip(checked["user_id"].to_pylist(), checked["arm"].to_pylist(), strict=True))
        prefixed = pc.binary_join_element_wise(name, checked["user_id"], "/")
        pooled.append(checked.set_column(0, "user_id", prefixed))
    for one, other in combinations(arms, 2):
        _refuse_one_coin(one, arms[one], other, arms[other])
    return pa.concat_tables(pooled)


def _refuse_one_coin(one: str, arms: Mapping[str, str], other: str, other_arms: Mapping[str, str]) -> None:
    """Refuse two worlds whose shared ids fall into the same arms, or into opposite ones, beyond chance."""
    shared = arms.keys() & other_arms.keys()
    if not shared:
        return
    alike = sum(arms[user] == other_arms[user] for user in shared)
    of_one, of_other = (Counter(split[user] for user in shared) for split in (arms, other_arms))
    by_chance = sum(of_one[arm] * of_other[arm] for arm in of_one) / len(shared) ** 2
    if scipy.stats.binomtest(alike, len(shared), by_chance).pvalue < _ONE_COIN_P:
        raise ValueError(
            f"tables {one!r} and {other!r} share {len(shared)} user ids, of which {alike} are in the same arm of both, "
            f"{by_chance * len(shared):.0f} would be by chance: their users were split by the same salt, so that one coin "
            "would be counted twice; split every world with a salt of its own"
        )
