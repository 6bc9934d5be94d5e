"""What a policy serves under a deployment: its rewrites, the lists they lead to, and what they earn."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from corewrite.deployment.deployment import Deployment
from corewrite.domain import Query, TrainingInstance
from corewrite.rewriter import Rewriter, greedy

FloatArray = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]


def served_rewrites(
    policy: Rewriter, queries: Sequence[Query], *, max_new_tokens: int, progress: Progress = lambda done, total: None
) -> list[str | None]:
    """The served form of a policy: greedy, cleaned; None where nothing usable came out, or no prompt holds the query."""
    fitting = policy.template.fitting(queries)
    found: list[str | None] = [None] * len(queries)
    written = greedy(policy, [queries[i] for i in fitting], max_new_tokens=max_new_tokens, progress=progress)
    for i, rewrite in zip(fitting, written, strict=True):
        found[i] = rewrite.text or None
    return found


def fused_lists(deployment: Deployment, queries: Sequence[Query], rewrites: Sequence[str | None]) -> npt.NDArray[np.int64]:
    """Top 10 catalogue rows of the fused ranking, int64 [queries, 10], -1 pads."""
    pairs = [(q.text, r) for q, r in zip(queries, rewrites, strict=True)]
    places = {pair: place for place, pair in enumerate(dict.fromkeys(pairs))}  # contexts differ, searches repeat
    found = deployment.cascade.search([text for text, _ in places], [r for _, r in places]).rows
    return found[[places[pair] for pair in pairs]]


def log_rewards(deployment: Deployment, instances: Sequence[TrainingInstance], rewrites: Sequence[str | None]) -> FloatArray:
    """log R of one rewrite per instance; no rewrite stands for the query itself."""
    texts = [[r or x.query.text] for x, r in zip(instances, rewrites, strict=True)]
    return np.array([row[0] for row in deployment.reward(instances, texts)])
