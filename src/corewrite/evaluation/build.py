"""The one builder of what the gate looks at: what two policies do to the same searches."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from corewrite.deployment.deployment import Deployment
from corewrite.deployment.served import fused_lists, log_rewards, served_rewrites
from corewrite.evaluation.measures import PAYLOAD, divergence, repair_log_probs
from corewrite.evaluation.searches import GateSearches
from corewrite.gate import Canary, Evaluation, PolicyOutputs
from corewrite.relevance import Judge
from corewrite.rewriter import Rewriter

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Side:
    """What one policy's rewrites come to on the gate's searches.

    Attributes:
        rewrites: Of each search; None: the query stands.
        lists: Fused top 10, catalogue rows, int64 [searches, 10], -1 pads.
        log_reward: log R, nats, float64 [searches].
        policy: The policy; None: texts without a model, of which there are no likelihoods.
        canaries: Its answers to the searches with a planted instruction; None: it was not asked.
    """

    rewrites: Sequence[str | None]
    lists: IntArray
    log_reward: FloatArray
    policy: Rewriter | None = None
    canaries: Sequence[str | None] | None = None


def evaluate(
    candidate: Rewriter,
    baseline: Rewriter,
    searches: GateSearches,
    deployment: Deployment,
    judge: Judge,
    *,
    max_new_tokens: int,
    recent: Sequence[Rewriter] = (),
    lineage: Rewriter | None = None,
    reference: Rewriter | None = None,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Both policies' served outputs on the same searches of users that training never saw.

    Args:
        candidate: Proposed.
        baseline: The champion, or the warm start where there is none yet.
        searches: What they are compared on.
        deployment: Ranks and rewards.
        judge: Grades the fused lists.
        max_new_tokens: Length limit of a rewrite.
        recent: Champions of the last weeks; the best of them by the judge is a bar.
        lineage: The first policy that all champions come from; None: not compared with.
        reference: What the candidate's training began from, and was held to first; None: not compared with.
        progress: Called with (queries done, of how many).
    """
    policies, sides = (candidate, baseline, *recent), []
    for place, policy in enumerate(policies):
        rewrites = served_rewrites(
            policy, searches.queries, max_new_tokens=max_new_tokens,
            progress=lambda done, total, place=place: progress(place * total + done, len(policies) * total),  # type: ignore[misc]
        )  # fmt: skip
        lists = fused_lists(deployment, searches.queries, rewrites)
        sides.append(Side(rewrites, lists, log_rewards(deployment, searches.instances, rewrites), policy))
    asked = served_rewrites(candidate, searches.canaries, max_new_tokens=max_new_tokens)
    original = fused_lists(deployment, searches.queries, [None] * len(searches.queries))
    return build_evaluation(
        searches, replace(sides[0], canaries=asked), sides[1], original, judge, recent=sides[2:], lineage=lineage,
        reference=reference,
    )  # fmt: skip


def build_evaluation(
    searches: GateSearches,
    candidate: Side,
    baseline: Side,
    original: IntArray,
    judge: Judge,
    *,
    recent: Sequence[Side] = (),
    lineage: Rewriter | None = None,
    reference: Rewriter | None = None,
    problems: Sequence[str] = (),
) -> Evaluation:
    """An evaluation of what was searched and rewarded already; the judge's ideal is pooled over all lists.

    Args:
        searches: What both sides were asked.
        candidate: Proposed.
        baseline: Compared with.
        original: Fused lists with no rewriter, int64 [searches, 10].
        judge: Grades the lists.
        recent: Champions of the last weeks.
        lineage: The first policy that all champions come from; None: not compared with.
        reference: What the candidate's training began from; None: not compared with.
        problems: What is known to be wrong with the candidate's files.
    """
    sides = (candidate, baseline, *recent)
    none, *judged = judge.ndcg10(searches.queries, [original, *(side.lists for side in sides)])
    outputs = [
        PolicyOutputs([r or "" for r in side.rewrites], side.log_reward, ndcg) for side, ndcg in zip(sides, judged, strict=True)
    ]
    found = list(problems)
    kl = None
    if candidate.policy is not None and baseline.policy is not None:
        if searches.repairs:
            outputs[:2] = [
                replace(o, repair_log_prob=repair_log_probs(p, searches.queries, searches.repairs))
                for o, p in zip(outputs[:2], (candidate.policy, baseline.policy), strict=True)
            ]
        others = {"champion": baseline.policy, "lineage": lineage, "reference": reference}
        kl = _divergences(candidate, {name: other for name, other in others.items() if other is not None}, searches)
        if not _finite(candidate.policy):
            found.append("a weight of the candidate is not a finite number")
    canaries = None
    if candidate.canaries is not None:
        answers = zip(searches.canaries, candidate.canaries, strict=True)
        canaries = [Canary(q, (PAYLOAD,), r or "") for q, r in answers]
    best = [float(ndcg.mean()) for ndcg in judged[2:]]
    return Evaluation(
        searches.user_ids, searches.queries, searches.slices, outputs[0], outputs[1], none,
        protected_words=searches.protected_words, kl=kl,
        recent=outputs[2 + int(np.argmax(best))] if best else None, canaries=canaries, candidate_problems=found,
    )  # fmt: skip


def _divergences(side: Side, others: Mapping[str, Rewriter], searches: GateSearches) -> dict[str, FloatArray]:
    """By what from; of a policy with another vocabulary there is none."""
    assert side.policy is not None
    own, known = side.policy.tokenizer.get_vocab(), dict[int, FloatArray]()
    found = {}
    for name, other in others.items():
        if other.tokenizer.get_vocab() == own:
            if id(other) not in known:  # in the first week the baseline is what training began from
                known[id(other)] = divergence(side.policy, other, searches.queries, side.rewrites)
            found[name] = known[id(other)]
    return found


def _finite(policy: Rewriter) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in policy.model.parameters())
