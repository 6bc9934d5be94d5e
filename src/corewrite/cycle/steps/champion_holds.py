"""Is the champion as good as it was under a new relevance model or fusion spec?"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from corewrite.deployment.deployment import Deployment
from corewrite.deployment.served import fused_lists, served_rewrites
from corewrite.domain import TrainingInstance
from corewrite.evaluation.searches import build_slices
from corewrite.gate import CHECKS, Evaluation, GateConfig, PolicyOutputs, Resampling
from corewrite.relevance import Judge
from corewrite.rewriter import Rewriter

_AGAINST_NONE = ("judge_ndcg_vs_no_rewriter",)
_CHECKS = ("judge_ndcg", *_AGAINST_NONE, "worst_slice")


def champion_holds(
    champion: Rewriter,
    instances: Sequence[TrainingInstance],
    now: Deployment | None,
    new: Deployment,
    judge: Judge,
    gate: GateConfig,
    *,
    max_new_tokens: int,
) -> list[str]:
    """What speaks against a new relevance model or spec under the champion; nothing: it holds.

    The lists of the champion's rewrites under the new model and spec are compared with those under the present ones, by the
    judge: they must not be worse by the gate's margins, and not worse than the new lists without a rewriter.

    Args:
        champion: The policy in production.
        instances: Searches of gate users.
        now: What ranks at present; None: it is gone, and the new lists are compared with those without a rewriter alone.
        new: What is proposed.
        judge: Grades the lists.
        gate: Margins.
        max_new_tokens: Length limit of a rewrite.
    """
    queries_of = Counter(x.user_id for x in instances)
    if few := gate.too_few(np.array(list(queries_of.values()), np.float64)):
        return [f"too few users can say whether the champion holds: {few}"]
    queries = [x.query for x in instances]
    rewrites = served_rewrites(champion, queries, max_new_tokens=max_new_tokens)
    none: list[str | None] = [None] * len(queries)
    asked = [(new, none), (new, rewrites), *([(now, rewrites)] if now is not None else [])]
    original, after, *before = judge.ndcg10(queries, [fused_lists(deployment, queries, texts) for deployment, texts in asked])
    texts = [r or "" for r in rewrites]
    evaluation = Evaluation(
        [x.user_id for x in instances],
        queries,
        build_slices(queries, {}),
        PolicyOutputs(texts, None, after),
        PolicyOutputs(texts, None, before[0] if before else original),
        original,
    )
    resampling = Resampling.draw(evaluation.user_ids, resamples=gate.resamples, subsamples=gate.subsamples, seed=gate.seed)
    problems = []
    for check in (CHECKS[name](gate) for name in (_CHECKS if before else _AGAINST_NONE)):
        found = check.compute(evaluation, resampling)
        low, high = found.bounds.low, found.bounds.high
        if low <= -check.margin:
            problems.append(f"{check.name}: {found.difference:+.4f} in [{low:+.4f}, {high:+.4f}], margin {check.margin:g}")
    return problems
