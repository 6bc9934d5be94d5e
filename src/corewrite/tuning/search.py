"""Clips, exponents and eps of a stage: the largest gain whose loss under the worst broken rewriter stays in a budget.

Settings come from a grid that does not look at the requests, each is measured once for all of them with the ranker's own
formula (`evaluate_stage`), and what is kept are sums per user or conversation. Choosing, cross-validation, intervals and the
curve of trade-offs are then arithmetic on those sums.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from corewrite.fusion.evaluate import evaluate_stage
from corewrite.fusion.spec import StageSpec
from corewrite.tuning.bootstrap import GroupSums
from corewrite.tuning.data import TuningRequests
from corewrite.tuning.grid import Grid, build_stages
from corewrite.tuning.outcome import TradeOff, Tuning
from corewrite.tuning.quality import Quality, ndcg10

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

BUDGETS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
"""Budgets of the trade-off curve."""


def tune(
    stage: StageSpec,
    requests: TuningRequests,
    *,
    budget: float = 0.02,
    grid: Grid | None = None,
    folds: int = 5,
    limit: int = 3_000,
    resamples: int = 1_000,
    seed: int = 0,
    quality: Quality = ndcg10,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tuning:
    """Choose lo, hi, exponent and eps of every rewrite signal of a stage.

    A setting may be chosen where the upper end of the 95 % interval of its largest loss, on the requests it is chosen on, is
    within the budget: with few users or conversations that is much stricter than the loss itself. Of those, the one with the
    largest gain under the champion; of equals, the one that can move documents least. No rewriter at all is always one of
    them.

    Args:
        stage: Its original factors stay, its rewrite signals are tuned; `relative_to` and `n` stay.
        requests: To choose on.
        budget: Largest relative loss under any broken kind, 0.02 is 2 %.
        grid: Values to try; default: `Grid()`.
        folds: Of the cross-validation, over whole users or conversations.
        limit: Stages tried where there are several rewrite signals.
        resamples: Of the bootstrap (Poisson) over users or conversations.
        seed: Of folds, resamples and sampled settings.
        quality: Of rankings.
        progress: Called with (stages tried, stages in all).

    Raises:
        ValueError: the budget is negative, there are fewer groups than folds, a signal of the stage is missing, or there is
            no relevant document.
    """
    if not budget >= 0:
        raise ValueError(f"budget {budget} must be at least 0: it is the largest loss allowed, 0.02 for 2 %")
    names, group = np.unique(np.asarray(requests.group, dtype=str), return_inverse=True)
    if not 2 <= folds <= len(names):
        raise ValueError(f"{folds} folds need at least 2 folds and as many users or conversations, there are {len(names)}")
    _check_signals(stage, requests)
    stages = build_stages(stage, grid or Grid(), limit, seed)
    sums = _group_sums(stages, requests, group, quality, progress)
    if not sums[0, 0].sum():
        raise ValueError("no request has a relevant document among its candidates: there is nothing to gain or lose")
    rng = np.random.default_rng(seed)
    fold = rng.permutation(np.arange(len(names)) % folds)
    sample = GroupSums(stages, requests.kinds, sums, rng.poisson(1.0, (resamples, len(names))).astype(np.float64))
    parts = [sample.bounds(fold != k) for k in range(folds)]
    whole = sample.bounds(np.ones(len(names), np.bool_))
    curve = []
    for allowed in sorted({*BUDGETS, budget}):
        chosen = sample.choose(whole, allowed)
        by_fold = [sample.choose(part, allowed) for part in parts]
        stitched = np.where(fold == 0, sums[by_fold[0]], 0.0)
        for k in range(1, folds):
            stitched = np.where(fold == k, sums[by_fold[k]], stitched)
        curve.append(
            TradeOff(
                allowed,
                stages[chosen],
                sample.outcome(sums[chosen]),
                sample.outcome(stitched),
                tuple(stages[i] for i in by_fold),
            )
        )
    tuned = next(t for t in curve if t.budget == budget)
    return Tuning(
        tuned,
        sample.outcome(sums[stages.index(stage)]),
        tuple(curve),
        float(sums[0, 0].sum() / len(group)),
        len(group),
        len(names),
        len(stages),
    )


def _check_signals(stage: StageSpec, requests: TuningRequests) -> None:
    """A signal that is missing would be taken as absent, and its factor found harmless."""
    wanted = {i.signal for i in stage.original} | {j.signal for j in stage.rewrite}
    missing = [f"query.{name}" for name in sorted(wanted - set(requests.under_query))]
    for kind in requests.kinds:
        under = requests.under_rewrite[kind]
        missing += [f"rewrite.{kind}.{j.signal}" for j in stage.rewrite if j.signal not in under]
    if missing:
        raise ValueError(f"signal(s) {', '.join(missing)} of the stage are not among those of the requests")


def _group_sums(
    stages: Sequence[StageSpec],
    requests: TuningRequests,
    group: IntArray,
    quality: Quality,
    progress: Callable[[int, int], None],
) -> FloatArray:
    """Summed quality, [stages, kinds, groups]."""
    kinds, shape = requests.kinds, requests.relevance.shape
    under_rewrite = {j.signal: np.stack([requests.under_rewrite[kind][j.signal] for kind in kinds]) for j in stages[0].rewrite}
    valid = np.broadcast_to(requests.valid, (len(kinds), *shape))
    relevance = np.where(requests.valid, requests.relevance, 0.0)
    found = np.empty((len(stages), len(kinds), int(group.max(initial=0)) + 1))
    for i, stage in enumerate(stages):
        scores = evaluate_stage(stage, requests.under_query, under_rewrite, valid=valid).log_score
        found[i] = [np.bincount(group, row, found.shape[2]) for row in quality(scores, relevance)]
        progress(i + 1, len(stages))
    return found
