"""Clips, exponents and eps of a stage: the largest gain whose loss under the worst broken rewriter stays in a budget.

Settings come from a grid that does not look at the requests, each is measured once for all of them with the ranker's own
formula (`evaluate_stage`), and what is kept are sums per user or conversation. Choosing, cross-validation, intervals and the
curve of trade-offs are then arithmetic on those sums.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corewrite.domain import ndcg
from corewrite.fusion.evaluate import evaluate_stage, swap_bound
from corewrite.fusion.spec import RewriteSignal, StageSpec

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

Quality = Callable[[FloatArray, FloatArray], FloatArray]
"""Quality of rankings, [..., requests], from log scores [..., requests, documents] (-inf pads) and relevance."""

CHAMPION = "champion"
"""The rewriter to gain by; every other kind of rewrite is taken as broken."""
BUDGETS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
"""Budgets of the trade-off curve."""
_TAIL = 2.5


@dataclass(frozen=True, eq=False)
class TuningRequests:
    """Logged or simulated requests with the signals of their candidates.

    Attributes:
        group: User or conversation of each request, [requests].
        relevance: Graded relevance, at least 0, float64 [requests, documents].
        valid: Which documents are there, bool [requests, documents]. Equal scores rank in the order of the columns.
        under_query: Each signal of the stage under the query, name -> float64 [requests, documents].
        under_rewrite: Each rewrite signal under the rewrite, kind -> name -> float64 [requests, documents]; NaN on a document
            of a request: that kind has no rewrite for it.
    """

    group: tuple[str, ...]
    relevance: FloatArray
    valid: BoolArray
    under_query: Mapping[str, FloatArray]
    under_rewrite: Mapping[str, Mapping[str, FloatArray]]

    def __post_init__(self) -> None:
        shape = self.relevance.shape
        if CHAMPION not in self.under_rewrite or len(self.under_rewrite) < 2:
            raise ValueError(
                f"tuning needs rewrites of the kind {CHAMPION!r} and of at least one broken kind, "
                f"there are {sorted(self.under_rewrite)}"
            )
        arrays = {"valid": self.valid, **self.under_query}
        arrays |= {f"{kind}.{name}": x for kind, signals in self.under_rewrite.items() for name, x in signals.items()}
        for name, values in arrays.items():
            if values.shape != shape:
                raise ValueError(f"{name!r} has the shape {values.shape}, the relevance has {shape}")
        if len(self.group) != shape[0]:
            raise ValueError(f"{len(self.group)} groups for {shape[0]} requests")
        graded = np.where(self.valid, self.relevance, 0.0)
        if not (np.isfinite(graded).all() and (graded >= 0).all()):
            raise ValueError("a relevance is negative or no number: grades are 0 for what is not relevant, and more")

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of rewrites: the champion, then the broken ones."""
        return (CHAMPION, *(k for k in self.under_rewrite if k != CHAMPION))


@dataclass(frozen=True)
class Grid:
    """Values tried for every rewrite signal.

    Attributes:
        lo: Lowest factors before the exponent.
        hi: Highest factors before the exponent.
        share: Exponents as shares of the original's exponent (of 1 for a signal that is not among the originals).
        eps: Multiples of the eps of the stage tuned.
    """

    lo: tuple[float, ...] = (0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0)
    hi: tuple[float, ...] = (1.0, 1.1, 1.25, 1.5, 2.0, 4.0, 8.0)
    share: tuple[float, ...] = (0.1, 0.2, 0.35, 0.5)
    eps: tuple[float, ...] = (1 / 3, 1.0, 3.0, 10.0)


@dataclass(frozen=True)
class StageEstimate:
    """A figure with its 95 % interval: percentiles of a bootstrap over users or conversations."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class TuningOutcome:
    """What a stage does to the quality of the rankings, relative to no rewriter.

    Attributes:
        gain: Relative gain under the champion.
        loss: Relative loss by broken kind, negative where even that rewriter helps.
        worst: Largest of the losses. Its interval is that of the largest loss in each resample, which is not the same
            kind in all of them: its upper end lies a little above the truth, on the safe side.
    """

    gain: StageEstimate
    loss: dict[str, StageEstimate]
    worst: StageEstimate


@dataclass(frozen=True)
class TradeOff:
    """One budget.

    Attributes:
        budget: Largest loss allowed.
        stage: Chosen on all requests.
        chosen: Its outcome on the requests it was chosen on.
        held_out: Each fold's requests under the stage chosen without them.
        fold_stages: The stages chosen without each fold.
    """

    budget: float
    stage: StageSpec
    chosen: TuningOutcome
    held_out: TuningOutcome
    fold_stages: tuple[StageSpec, ...]


@dataclass(frozen=True)
class Tuning:
    """A tuned stage.

    Attributes:
        tuned: At the budget asked for.
        base: Outcome of the stage as it was before.
        curve: By budget, ascending, the one asked for among them.
        quality_without: Mean quality with no rewriter.
        requests: Number of requests.
        groups: Number of users or conversations.
        settings: Stages tried.
    """

    tuned: TradeOff
    base: TuningOutcome
    curve: tuple[TradeOff, ...]
    quality_without: float
    requests: int
    groups: int
    settings: int


def ndcg10(log_score: FloatArray, relevance: FloatArray) -> FloatArray:
    """nDCG@10 with linear gains; the ideal ranks the request's own documents (Järvelin & Kekäläinen 2002).

    Args:
        log_score: [..., requests, documents], -inf for documents that are not there.
        relevance: [requests, documents], 0 for documents that are not there.

    Returns:
        [..., requests]; 0 for a request without a relevant document.
    """
    top = _top(log_score, min(ndcg.DEPTH, relevance.shape[-1]))
    found = np.take_along_axis(np.broadcast_to(relevance, log_score.shape), top, -1)
    return ndcg.ndcg10(found, ndcg.ideal_dcg10(relevance))


def reciprocal_rank(log_score: FloatArray, relevance: FloatArray) -> FloatArray:
    """One over the rank of the first relevant document, 0 where there is none; shapes as in `ndcg10`."""
    hits = np.where(relevance > 0, log_score, -np.inf)
    column = hits.argmax(-1)[..., None]
    best = np.take_along_axis(hits, column, -1)
    earlier = np.arange(log_score.shape[-1]) < column
    ahead = ((log_score > best) | ((log_score == best) & earlier)).sum(-1)
    return np.where(best[..., 0] > -np.inf, 1 / (ahead + 1.0), 0.0)


def _top(log_score: FloatArray, depth: int) -> IntArray:
    """Columns of the best documents, best first, equal scores in the order of the columns; [..., depth]."""
    order = np.argsort(-log_score, axis=-1)[..., : depth + 1]
    found = np.take_along_axis(log_score, order, -1)
    # A stable sort takes several times as long; only rows with equal scores around their head need it.
    tied = (found[..., 1:] == found[..., :-1]).any(-1)
    order[tied] = np.argsort(-log_score[tied], axis=-1, kind="stable")[..., : depth + 1]
    return order[..., :depth]


def build_stages(stage: StageSpec, grid: Grid, limit: int, seed: int) -> list[StageSpec]:
    """Stages to try: no rewriter at all, the stage as it is, and the grid.

    With one rewrite signal the grid is tried whole. With several, where their product is larger than `limit`, it is sampled
    (random search, Bergstra & Bengio 2012), each signal left out in some of the draws.

    Raises:
        ValueError: the stage has no rewrite signal, or the grid a value that no spec allows.
    """
    if not stage.rewrite:
        raise ValueError("the stage has no rewrite signal to tune: name one under `rewrite`")
    exponents = {s.signal: s.exponent for s in stage.original}
    choices = [_signal_settings(j, exponents.get(j.signal, 1.0), grid) for j in stage.rewrite]
    neutral = tuple(c[0] for c in choices)
    if len(choices) == 1 or np.prod([float(len(c)) for c in choices]) <= limit:
        picks = list(itertools.product(*choices))
    else:
        rng = np.random.default_rng(seed)
        out = rng.random((limit, len(choices))) < 1 / (len(choices) + 1)
        place = np.stack([np.where(out[:, k], 0, rng.integers(1, len(c), limit)) for k, c in enumerate(choices)], 1)
        picks = [tuple(c[p] for c, p in zip(choices, row, strict=True)) for row in place]
    return [StageSpec(original=stage.original, rewrite=r) for r in dict.fromkeys([neutral, stage.rewrite, *picks])]


def _signal_settings(j: RewriteSignal, a: float, grid: Grid) -> list[RewriteSignal]:
    """Neutral first, then the grid."""
    values = itertools.product(grid.lo, grid.hi, grid.share, grid.eps)
    # model_validate and not model_copy: every setting passes the checks of a spec.
    made = [
        RewriteSignal.model_validate(
            j.model_dump() | {"lo": lo, "hi": hi, "exponent": share * a, "eps": float(f"{scale * j.eps:.4g}")}
        )
        for lo, hi, share, scale in values
        if lo < hi
    ]
    return [RewriteSignal.model_validate(j.model_dump() | {"exponent": 0.0}), *made]


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
    sample = _Sample(stages, requests.kinds, sums, rng.poisson(1.0, (resamples, len(names))).astype(np.float64))
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


@dataclass(frozen=True, eq=False)
class _Bounds:
    """Of every stage on a part of the groups: gain and the upper bound of its largest loss, both [stages]."""

    gain: FloatArray
    worst: FloatArray


@dataclass(frozen=True, eq=False)
class _Sample:
    """Summed quality of every stage, kind and group, [stages, kinds, groups]; stage 0 is no rewriter at all."""

    stages: Sequence[StageSpec]
    kinds: tuple[str, ...]
    sums: FloatArray
    weights: FloatArray

    def bounds(self, part: BoolArray) -> _Bounds:
        """Gains and bounds on the groups of `part`, bool [groups]."""
        gain, worst = np.empty(len(self.sums)), np.empty(len(self.sums))
        none, weights = self.sums[0, 0, part], self.weights[:, part]
        for i, sums in enumerate(self.sums[:, :, part]):
            gain[i] = (sums[0] - none).sum() / none.sum()
            worst[i] = _percentile(_losses(sums[1:], none, weights).max(0), 100 - _TAIL)
        return _Bounds(gain, worst)

    def choose(self, bounds: _Bounds, budget: float) -> int:
        """The stage with the largest gain within the budget."""
        inside = np.flatnonzero(bounds.worst <= budget).tolist()
        # Rounded, so that sums in another order do not tell equals apart.
        gain = bounds.gain.round(12).tolist()
        return int(min(inside, key=lambda i: (-gain[i], swap_bound(self.stages[i]), i)))

    def outcome(self, sums: FloatArray) -> TuningOutcome:
        """Figures of [kinds, groups] against no rewriter."""
        none = self.sums[0, 0]
        value, drawn = (none - sums).sum(1) / none.sum(), _losses(sums, none, self.weights)
        return TuningOutcome(
            _estimate(-float(value[0]), -drawn[0]),
            {kind: _estimate(float(value[k]), drawn[k]) for k, kind in enumerate(self.kinds) if k},
            _estimate(float(value[1:].max()), drawn[1:].max(0)),
        )


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


def _losses(sums: FloatArray, none: FloatArray, weights: FloatArray) -> FloatArray:
    """Relative losses in every resample, [kinds, resamples]; a resample that drew nothing relevant says nothing."""
    # Differences are summed, not sums subtracted: a rewriter that changes nothing then loses exactly nothing.
    lost, base = (none - sums) @ weights.T, weights @ none
    return np.asarray(np.divide(lost, base, out=np.zeros(lost.shape), where=base > 0))


def _percentile(values: FloatArray, q: float) -> float:
    return float(np.percentile(values, q))


def _estimate(value: float, drawn: FloatArray) -> StageEstimate:
    low, high = np.percentile(drawn, [_TAIL, 100 - _TAIL])
    return StageEstimate(value + 0.0, float(low) + 0.0, float(high) + 0.0)  # no negative zeros
