"""The recoverable oracle: the rewrite that is best in expectation over what a search may be after, given all that can be known.

A mind reader's rewrite is no fair goal: much of what users want is in no word of their query or its context. This oracle knows
the platform's program and its public world (names, popularity, aspects, videos, fashion) and reads the query, its context and
the week, as a perfect rewriter could; never the intent of the search at hand. It is therefore given queries, not a `Week`.
"""

from collections.abc import Sequence

import numpy as np

from corewrite.deployment.deployment import Deployment
from corewrite.deployment.served import fused_lists
from corewrite.domain import Query
from corewrite.simulation.config import TrafficConfig
from corewrite.simulation.possible import PossibleIntents, expected_ndcg10
from corewrite.simulation.posterior import IntentPosterior
from corewrite.simulation.world import World

_SHARE, _MOST = 0.99, 30
"""Intents that candidates are weighed under: those that hold this share of the probability, and how many at most."""
_WORDED, _WORTH = 4, 0.01
"""Intents that a candidate says alone: the most probable ones, from this probability on."""


def recoverable_rewrites(
    world: World, traffic: TrafficConfig, week: int, queries: Sequence[Query], deployment: Deployment
) -> list[str | None]:
    """The rewrite with the highest expected nDCG@10 of the fused ranking; None where the query alone does as well.

    Candidates are no rewrite, the four most probable intents, the first two subjects alone, the union of the two most probable
    intents, the most probable subject with all of its aspects among the four, and the most probable intent with the usual other
    words for its aspect, with its category, and with both.

    Args:
        world: The platform.
        traffic: Habits of its users.
        week: In which the searches were made.
        queries: With their contexts. Earlier queries are taken to have been answered by `deployment` without a rewriter.
        deployment: Ranks.

    Raises:
        ValueError: a query that no user of the platform types.
    """
    posterior = IntentPosterior(world, traffic, week, lambda texts: deployment.cascade.search(texts, [None] * len(texts)).rows)
    # Equal searches have equal answers.
    distinct = {_key(q): q for q in queries}
    asked = list(distinct.values())
    possible = [p.head(_SHARE, _MOST) for p in posterior(asked)]
    best = best_rewrites(world, asked, [candidate_rewrites(world, p) for p in possible], possible, deployment)
    chosen = dict(zip(distinct, best, strict=True))
    return [chosen[_key(q)] for q in queries]


def best_rewrites(
    world: World,
    queries: Sequence[Query],
    candidates: Sequence[Sequence[str | None]],
    possible: Sequence[PossibleIntents],
    deployment: Deployment,
) -> list[str | None]:
    """Of the candidates of each search, the one with the highest expected nDCG@10; the first among equals.

    Args:
        world: The platform.
        queries: The searches.
        candidates: Rewrites to choose from, at least one for each.
        possible: What each may be after.
        deployment: Ranks.
    """
    search = np.repeat(np.arange(len(possible)), [len(c) for c in candidates])
    texts = [text for some in candidates for text in some]
    lists = fused_lists(deployment, [queries[int(i)] for i in search], texts)
    worth = expected_ndcg10(world, [possible[int(i)] for i in search], lists).round(12)
    order = np.lexsort((np.arange(len(search)), -worth, search))
    first = np.searchsorted(search, np.arange(len(possible)))  # `search` ascends, and so it does in this order
    return [texts[order[place]] for place in first]


def _key(query: Query) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    return query.text, query.context.queries, query.context.titles


def candidate_rewrites(world: World, possible: PossibleIntents) -> list[str | None]:
    """The rewrites that are weighed for a search, no rewrite first, without repeats."""
    worded = possible.worded(world)
    likely = [w for w, p in zip(worded[:_WORDED], possible.probability, strict=False) if p >= _WORTH]
    subjects = dict.fromkeys(subject for subject, _ in likely)
    first = likely[0][0]
    usual, category = possible.other_words(world)[0]
    whole = " ".join(likely[0])
    mixed = [
        " ".join(text for pair in likely[:2] for text in pair),
        " ".join([first, *(aspect for subject, aspect in likely if subject == first)]),
        *(f"{whole} {more}" for more in (usual, category, f"{usual} {category}")),
    ]
    texts = [*(" ".join(parts) for parts in likely), *list(subjects)[:2], *mixed]
    # Every word once, and every text.
    return [None, *dict.fromkeys(" ".join(dict.fromkeys(text.split())) for text in texts)]
