"""The one builder of the gate's `Evaluation`: the outputs of two policies on the same searches."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from corewrite.deployment.deployment import Deployment
from corewrite.deployment.served import fused_lists, log_rewards, served_rewrites
from corewrite.evaluation.direct_grades import GradingTask
from corewrite.evaluation.measures import PAYLOAD, divergence, repair_log_probs
from corewrite.evaluation.searches import GateSearches
from corewrite.gate import CHAMPION, Absent, Canary, Evaluation, PolicyOutputs
from corewrite.relevance import Judge
from corewrite.rewriter import Rewriter

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]
_REPAIRS = ("candidate.repair_log_prob", "champion.repair_log_prob")


@dataclass(frozen=True, eq=False)
class PolicyResult:
    """What one policy's rewrites come to on the gate's searches.

    Attributes:
        rewrites: Of each search; None: the query stands.
        lists: Fused top 10, catalogue rows, int64 [searches, 10], -1 pads.
        log_reward: log R, nats, float64 [searches].
        policy: The policy; None: texts without a model, of which there are no likelihoods.
        canaries: Its answers to the searches with a planted instruction; None: it was not asked, though it could be.
    """

    rewrites: Sequence[str | None]
    lists: IntArray
    log_reward: FloatArray
    policy: Rewriter | None = None
    canaries: Sequence[str | None] | Absent | None = None


OF_NO_LINEAGE = Absent("the champion is the first one, or the first one was removed from the registry")
"""In the place of the first champion."""


def evaluate(
    candidate: Rewriter,
    baseline: Rewriter,
    searches: GateSearches,
    deployment: Deployment,
    judge: Judge,
    *,
    max_new_tokens: int,
    recent: Sequence[Rewriter],
    lineage: Rewriter | Absent,
    reference: Rewriter | Absent,
    baseline_name: str = "champion",
    grading: GradingTask | None = None,
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
        recent: Champions of the last weeks but the present one; the best of them by the judge is a bar; empty: there is none.
        lineage: The first policy that all champions come from.
        reference: What the candidate's training began from, and was held to first.
        baseline_name: "champion", or "warm start" where there is none yet: the report's word for the baseline.
        grading: What raters are asked about the lists; None: nothing, the judge stands alone.
        progress: Called with (queries done, of how many).
    """
    policies, sides = (candidate, baseline, *recent), []
    for place, policy in enumerate(policies):
        rewrites = served_rewrites(
            policy,
            searches.queries,
            max_new_tokens=max_new_tokens,
            progress=lambda done, total, place=place: progress(place * total + done, len(policies) * total),  # type: ignore[misc]
        )
        if policy is not candidate:  # what a filter stops of theirs is not served; the candidate is refused for it
            rewrites = searches.filters.as_served(searches.queries, rewrites)
        lists = fused_lists(deployment, searches.queries, rewrites)
        sides.append(PolicyResult(rewrites, lists, log_rewards(deployment, searches.instances, rewrites), policy))
    asked = served_rewrites(candidate, searches.canaries, max_new_tokens=max_new_tokens)
    original = fused_lists(deployment, searches.queries, [None] * len(searches.queries))
    return build_evaluation(
        searches,
        replace(sides[0], canaries=asked),
        sides[1],
        original,
        judge,
        recent=sides[2:],
        lineage=lineage,
        reference=reference,
        baseline_name=baseline_name,
        grading=grading,
    )


def build_evaluation(
    searches: GateSearches,
    candidate: PolicyResult,
    baseline: PolicyResult,
    original: IntArray,
    judge: Judge,
    *,
    recent: Sequence[PolicyResult],
    lineage: Rewriter | Absent,
    reference: Rewriter | Absent,
    baseline_name: str = "champion",
    problems: Sequence[str] = (),
    grading: GradingTask | None = None,
) -> Evaluation:
    """An evaluation of what was searched and rewarded already.

    What there cannot be is absent in it, with the reason, so that the gate can tell it from what was left out by mistake.

    Args:
        searches: What both sides were asked.
        candidate: Proposed.
        baseline: Compared with.
        original: Fused lists with no rewriter, int64 [searches, 10].
        judge: Grades the lists.
        recent: Champions of the last weeks but the present one; empty: there is none.
        lineage: The first policy that all champions come from.
        reference: What the candidate's training began from.
        baseline_name: The report's word for the baseline.
        problems: What is known to be wrong with the candidate's files.
        grading: What raters are asked about the lists; None: nothing. The judge must not have been fitted on their answers.
    """
    sides = (candidate, baseline, *recent)
    none, *judged = judge.ndcg10(searches.queries, [original, *(side.lists for side in sides)])
    outputs = [
        PolicyOutputs([r or "" for r in side.rewrites], side.log_reward, ndcg) for side, ndcg in zip(sides, judged, strict=True)
    ]
    best = 2 + int(np.argmax([float(ndcg.mean()) for ndcg in judged[2:]])) if recent else None
    corrected_none = None
    if grading is not None:
        compared = [0, 1, *([] if best is None else [best])]
        corrections = _corrections(grading, judge, searches, original, [sides[k].lists for k in compared])
        if corrections is not None:
            corrected_none = none + corrections[0]
            for k, more in zip(compared, corrections[1:], strict=True):
                outputs[k] = replace(outputs[k], corrected_ndcg=judged[k] + more)
    found, absent = list(problems), {}
    if "new" not in searches.slices:
        absent["slices.new"] = "there is no earlier week"
    if not recent:
        absent["recent"] = "there is no champion of the last weeks but the present one"
    kl: dict[str, FloatArray] = {}
    if candidate.policy is None or baseline.policy is None:
        absent |= dict.fromkeys(("kl", *_REPAIRS), "texts without a policy have no likelihoods")
    else:
        if searches.repairs:
            outputs[:2] = [
                replace(o, repair_log_prob=repair_log_probs(p, searches.queries, searches.repairs))
                for o, p in zip(outputs[:2], (candidate.policy, baseline.policy), strict=True)
            ]
        else:
            given = searches.successful_reformulations
            reason = given.reason if isinstance(given, Absent) else "no user of the gate repaired a query"
            absent |= dict.fromkeys(_REPAIRS, reason)
        served: Rewriter | Absent = baseline.policy if baseline_name == CHAMPION else Absent("no champion serves yet")
        others = {"champion": served, "lineage": lineage, "reference": reference}
        kl, missing = _divergences(candidate, others, searches)
        absent |= missing
        if not _finite(candidate.policy):
            found.append("a weight of the candidate is not a finite number")
    canaries = None
    if isinstance(candidate.canaries, Absent):
        absent["canaries"] = candidate.canaries.reason
    elif candidate.canaries is not None:
        answers = zip(searches.canaries, candidate.canaries, strict=True)
        canaries = [Canary(q, (PAYLOAD,), r or "") for q, r in answers]
    return Evaluation(
        searches.user_ids,
        searches.queries,
        searches.slices,
        outputs[0],
        outputs[1],
        none,
        protected_words=searches.protected_words,
        filters=searches.filters,
        kl=kl or None,
        recent=None if best is None else outputs[best],
        canaries=canaries,
        absent=absent,
        champion_name=baseline_name,
        candidate_problems=found,
        original_corrected_ndcg=corrected_none,
    )


def _corrections(
    grading: GradingTask, judge: Judge, searches: GateSearches, original: IntArray, lists: Sequence[IntArray]
) -> list[FloatArray] | None:
    """What raters' direct grades add to the judge's nDCG@10: of the original lists, then of `lists` (candidate, baseline, and
    the best recent champion's where there is one); None where there are no grades."""
    candidate, baseline, *recent = lists
    ids = [x.instance_id for x in searches.instances]
    graded = grading.graded(ids, searches.queries, candidate, baseline, [original, *recent])
    return None if graded is None else graded.corrections(judge, [original, *lists])


def _divergences(
    side: PolicyResult, others: Mapping[str, Rewriter | Absent], searches: GateSearches
) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """By what from; and why there is none. Of a policy with another vocabulary there is none."""
    assert side.policy is not None
    own, known = side.policy.tokenizer.get_vocab(), dict[int, FloatArray]()
    found, absent = {}, {}
    for name, other in others.items():
        if isinstance(other, Absent):
            absent[f"kl.{name}"] = other.reason
        elif other.tokenizer.get_vocab() != own:
            absent[f"kl.{name}"] = f"the {name} has another vocabulary"
        else:
            if id(other) not in known:  # the champion may be what training began from
                known[id(other)] = divergence(side.policy, other, searches.queries, side.rewrites)
            found[name] = known[id(other)]
    return found, absent


def _finite(policy: Rewriter) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in policy.model.parameters())
