"""What two policies do to the gate's searches, and the gate's verdict on it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from corewrite.domain import Query, TrainingInstance, normalise
from corewrite.gate import Evaluation, PolicyOutputs
from corewrite.pipeline.deployment import Deployment
from corewrite.relevance import Judge
from corewrite.rewriter import Rewriter, greedy

FloatArray = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]


def served_rewrites(
    policy: Rewriter, queries: Sequence[Query], *, max_new_tokens: int, progress: Progress = lambda done, total: None
) -> list[str | None]:
    """The served form of a policy: greedy, cleaned; None where nothing usable came out."""
    return [
        r.text or None for r in greedy(policy, queries, max_new_tokens=max_new_tokens, progress=progress)
    ]  # fmt: skip


def fused_lists(deployment: Deployment, queries: Sequence[Query], rewrites: Sequence[str | None]) -> npt.NDArray[np.int64]:
    """Top 10 catalogue rows of the fused ranking, int64 [queries, 10], -1 pads."""
    return deployment.cascade.search([q.text for q in queries], rewrites).rows


def log_rewards(deployment: Deployment, instances: Sequence[TrainingInstance], rewrites: Sequence[str | None]) -> FloatArray:
    """log R of one rewrite per instance; no rewrite stands for the query itself."""
    texts = [[r or x.query.text] for x, r in zip(instances, rewrites, strict=True)]
    return np.array([row[0] for row in deployment.reward(instances, texts)])


def evaluate(
    candidate: Rewriter,
    baseline: Rewriter,
    instances: Sequence[TrainingInstance],
    deployment: Deployment,
    judge: Judge,
    frequency: Mapping[str, int],
    *,
    max_new_tokens: int,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Both policies' served outputs on the same searches of users that training never saw.

    Args:
        candidate: Proposed.
        baseline: The champion, or the warm start where there is none yet.
        instances: Searches of gate users with D+ and D-.
        deployment: Ranks and rewards.
        judge: Grades the fused lists.
        frequency: How often each normalised query stood in the training log, for head, torso and tail.
        max_new_tokens: Length limit of a rewrite.
        progress: Called with (queries done, of how many).
    """
    queries = [x.query for x in instances]
    served = []
    for place, policy in enumerate((candidate, baseline)):
        served.append(
            served_rewrites(
                policy, queries, max_new_tokens=max_new_tokens,
                progress=lambda done, total, place=place: progress(place * total + done, 2 * total),  # type: ignore[misc]
            )
        )  # fmt: skip
    systems: list[Sequence[str | None]] = [[None] * len(queries), *served]
    lists = [fused_lists(deployment, queries, rewrites) for rewrites in systems]
    original, *judged = judge.ndcg10(queries, lists)
    outputs = [
        PolicyOutputs([r or "" for r in rewrites], log_rewards(deployment, instances, rewrites), ndcg)
        for rewrites, ndcg in zip(served, judged, strict=True)
    ]
    return Evaluation([x.user_id for x in instances], queries, slices_of(queries, frequency), outputs[0], outputs[1], original)


def slices_of(queries: Sequence[Query], frequency: Mapping[str, int]) -> dict[str, npt.NDArray[np.bool_]]:
    """Head, torso and tail by training-log frequency (at least 20, at least 3, below), and by what the context holds."""
    count = np.array([frequency.get(normalise(q.text), 0) for q in queries])
    follows = np.array([bool(q.context.queries) for q in queries])
    watched = np.array([bool(q.context.titles) for q in queries])
    return {
        "head": count >= 20,
        "torso": (count >= 3) & (count < 20),
        "tail": count < 3,
        "after a query": follows,
        "after a video only": watched & ~follows,
        "no context": ~watched & ~follows,
    }


def query_frequency(texts: Sequence[str]) -> Counter[str]:
    """Occurrences of each normalised query."""
    return Counter(map(normalise, texts))
