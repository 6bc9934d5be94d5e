"""What the gate looks at: what two policies do to the same searches."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch

from corewrite.deployment.deployment import Deployment
from corewrite.deployment.served import fused_lists, log_rewards, served_rewrites
from corewrite.domain import Query, TrainingInstance, normalise, words
from corewrite.evaluation.measures import PAYLOAD, canary_queries, divergence, repair_log_probs, repairs_by_query
from corewrite.gate import Canary, Evaluation, PolicyOutputs
from corewrite.logs import Reformulation
from corewrite.relevance import Judge
from corewrite.rewriter import Rewriter

FloatArray = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]
_CANARIES = 100


def evaluate(
    candidate: Rewriter,
    baseline: Rewriter,
    instances: Sequence[TrainingInstance],
    deployment: Deployment,
    judge: Judge,
    frequency: Mapping[str, int],
    *,
    max_new_tokens: int,
    frozen: Sequence[TrainingInstance] = (),
    before: Mapping[str, int] = MappingProxyType({}),
    repaired: Sequence[Reformulation] = (),
    recent: Sequence[Rewriter] = (),
    lineage: Rewriter | None = None,
    reference: Rewriter | None = None,
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
        frozen: Searches of the set that never changes: a slice of their own.
        before: The same frequencies in earlier weeks, for the slice of what is new; empty: there is none.
        repaired: Gate users' own repairs.
        recent: Champions of the last weeks; the best of them by the judge is a bar.
        lineage: The first policy that all champions come from; None: not compared with.
        reference: What the candidate's training began from, and was held to first; None: not compared with.
        progress: Called with (queries done, of how many).
    """
    everything = [*instances, *frozen]
    queries = [x.query for x in everything]
    policies = (candidate, baseline, *recent)
    served = []
    for place, policy in enumerate(policies):
        served.append(
            served_rewrites(
                policy, queries, max_new_tokens=max_new_tokens,
                progress=lambda done, total, place=place: progress(place * total + done, len(policies) * total),  # type: ignore[misc]
            )
        )  # fmt: skip
    original, outputs = outputs_of(served, everything, deployment, judge)
    if repaired:
        repairs = repairs_by_query(repaired)
        outputs[:2] = [
            replace(o, repair_log_prob=repair_log_probs(p, queries, repairs))
            for o, p in zip(outputs[:2], policies[:2], strict=True)
        ]
    others = {"champion": baseline, "lineage": lineage, "reference": reference}
    kl = {name: divergence(candidate, other, queries, served[0]) for name, other in others.items() if other is not None}
    planted = canary_queries([x.query for x in instances], _CANARIES)
    answers = served_rewrites(candidate, planted, max_new_tokens=max_new_tokens)
    judged = [float(np.asarray(o.judge_ndcg).mean()) for o in outputs[2:]]
    return Evaluation(
        # A user of the frozen week who is one of this week's too is resampled as one.
        [x.user_id for x in everything], queries, gate_slices(queries, len(instances), frequency, before), outputs[0],
        outputs[1], original, kl=kl, recent=outputs[2 + int(np.argmax(judged))] if judged else None,
        canaries=[Canary(q, (PAYLOAD,), r or "") for q, r in zip(planted, answers, strict=True)],
        candidate_problems=[] if _finite(candidate) else ["a weight of the candidate is not a finite number"],
    )  # fmt: skip


def outputs_of(
    served: Sequence[Sequence[str | None]], instances: Sequence[TrainingInstance], deployment: Deployment, judge: Judge
) -> tuple[FloatArray, list[PolicyOutputs]]:
    """Judge nDCG@10 with no rewriter, and what each of several policies' rewrites comes to.

    The judge's ideal is pooled over all lists, those without a rewriter included.

    Args:
        served: Rewrites of every search, by policy.
        instances: The searches.
        deployment: Ranks and rewards.
        judge: Grades the fused lists.
    """
    queries = [x.query for x in instances]
    systems: list[Sequence[str | None]] = [[None] * len(queries), *served]
    original, *judged = judge.ndcg10(queries, [fused_lists(deployment, queries, rewrites) for rewrites in systems])
    outputs = [
        PolicyOutputs([r or "" for r in rewrites], log_rewards(deployment, instances, rewrites), ndcg)
        for rewrites, ndcg in zip(served, judged, strict=True)
    ]
    return original, outputs


def gate_slices(
    queries: Sequence[Query], fresh: int, frequency: Mapping[str, int], before: Mapping[str, int]
) -> dict[str, npt.NDArray[np.bool_]]:
    """Slices of the first `fresh` queries, which are this week's, and one of the others, which are the frozen set's."""
    fixed = np.arange(len(queries)) >= fresh
    slices = {name: inside & ~fixed for name, inside in slices_of(queries, frequency).items()}
    if fixed.any():
        slices["frozen"] = fixed
    if before:
        slices["new"] = _new(queries, frequency, before) & ~fixed
    return slices


def _finite(policy: Rewriter) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in policy.model.parameters())


def _new(queries: Sequence[Query], frequency: Mapping[str, int], before: Mapping[str, int]) -> npt.NDArray[np.bool_]:
    """Searches with a word that earlier weeks did not hold and this one holds in three searches or more: no mere slip."""
    old = {w for text in before for w in words(text)}
    counts = Counter[str]()
    for text, n in frequency.items():
        for word in set(words(text)) - old:
            counts[word] += n
    fresh = {w for w, n in counts.items() if n >= 3}
    return np.array([not fresh.isdisjoint(words(q.text)) for q in queries], np.bool_)


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
