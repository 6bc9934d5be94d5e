"""The algebra: original factors times bounded rewrite factors, in log space."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from corewrite.domain import SignalStatus
from corewrite.fusion.spec import RewriteSignal, StageSpec

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class StageFusion:
    """Scores of one stage with every factor they are made of; shapes [..., documents] unless said otherwise.

    Attributes:
        log_original: log of the product of the original factors, -inf for documents that are not valid.
        log_rewrite: log F_s, of the product of the rewrite factors; exactly 0.0 where the rewrite is absent.
        log_score: Their sum.
        original_factors: Factor by signal.
        rewrite_factors: Factor by signal; exactly 1.0 where absent.
        status: Status by rewrite signal, one per request, [...].
    """

    log_original: FloatArray
    log_rewrite: FloatArray
    log_score: FloatArray
    original_factors: dict[str, FloatArray]
    rewrite_factors: dict[str, FloatArray]
    status: dict[str, npt.NDArray[np.object_]]

    @cached_property
    def score(self) -> FloatArray:
        """The score: the product of the factors, 0 for documents that are not valid."""
        return np.asarray(np.exp(self.log_score))


def evaluate_stage(
    stage: StageSpec,
    under_query: Mapping[str, FloatArray],
    under_rewrite: Mapping[str, FloatArray] | None = None,
    available: Mapping[str, BoolArray] | None = None,
    *,
    valid: BoolArray | None = None,
) -> StageFusion:
    """Fuse the signals of one stage.

    Args:
        stage: The stage's factors.
        under_query: Each signal under the query, [..., documents].
        under_rewrite: Each rewrite signal under the rewrite, [..., documents]; None or a missing name: absent for all.
        available: Per rewrite signal whether each request has it, [...]; missing: every request has.
        valid: Which documents are there, [..., documents]; the others score -inf.

    Returns:
        Scores and factors. A rewrite signal that is absent, or not finite on any valid document of a request, is
        exactly neutral on all documents of that request, with its status saying why.

    Raises:
        KeyError: an original signal is missing.
        ValueError: an original signal is not finite on a valid document.
    """
    names = [i.signal for i in stage.original] + [j.signal for j in stage.rewrite]
    missing = sorted({n for n in names if n not in under_query})
    if missing:
        raise KeyError(f"signal(s) {missing} of the stage are not among those given under the query: {sorted(under_query)}")
    shape = np.broadcast_shapes(*(np.shape(under_query[n]) for n in names), *([np.shape(valid)] if valid is not None else []))
    there = np.ones(shape, np.bool_) if valid is None else np.broadcast_to(valid, shape)
    log_original = np.zeros(shape)
    original_factors: dict[str, FloatArray] = {}
    for i in stage.original:
        x = np.asarray(under_query[i.signal], np.float64)
        if not np.isfinite(np.where(there, x, 0.0)).all():
            raise ValueError(f"original signal {i.signal!r} is not a finite number on some document: the ranker cannot rank")
        clipped = np.clip(x, i.eps, i.top)
        original_factors[i.signal] = clipped**i.exponent
        # Not the log of the factor: a small floor under a large exponent leaves the range of doubles.
        log_original = log_original + i.exponent * np.log(clipped)
    log_rewrite = np.zeros(shape)
    rewrite_factors: dict[str, FloatArray] = {}
    status: dict[str, npt.NDArray[np.object_]] = {}
    for j in stage.rewrite:
        ratio, state = _rewrite_ratio(j, under_query[j.signal], under_rewrite, available, there)
        rewrite_factors[j.signal], status[j.signal] = ratio**j.exponent, state
        log_rewrite = log_rewrite + j.exponent * np.log(ratio)
    log_original = np.where(there, log_original, -np.inf)
    # Adding an exact 0.0 leaves every bit of log_original as it is: an absent rewrite cannot be told from none.
    return StageFusion(log_original, log_rewrite, log_original + log_rewrite, original_factors, rewrite_factors, status)


def _rewrite_ratio(
    j: RewriteSignal,
    own: FloatArray,
    under_rewrite: Mapping[str, FloatArray] | None,
    available: Mapping[str, BoolArray] | None,
    there: BoolArray,
) -> tuple[FloatArray, npt.NDArray[np.object_]]:
    """The clipped ratio, before the exponent, and the status of each request."""
    requests = there.shape[:-1]
    status = np.full(requests, SignalStatus.OK, object)
    if under_rewrite is None or j.signal not in under_rewrite:
        status[...] = SignalStatus.OFF
        return np.ones(there.shape), status
    y = np.broadcast_to(np.asarray(under_rewrite[j.signal], np.float64), there.shape)
    base = np.broadcast_to(np.asarray(own, np.float64), there.shape)
    present = np.ones(requests, np.bool_)
    if available is not None and j.signal in available:
        present = np.broadcast_to(available[j.signal], requests)
    sound = (np.isfinite(y) | ~there).all(-1)
    if j.relative_to == "original":
        sound = sound & (np.isfinite(base) | ~there).all(-1)
    status[~sound] = SignalStatus.ERROR
    status[~present] = SignalStatus.NEUTRAL
    used = (present & sound)[..., None] & there
    safe = np.where(used, y, 1.0)
    divisor = np.maximum(np.where(used, base, 1.0), j.eps) if j.relative_to == "original" else np.float64(j.n or 1.0)
    ratio = np.clip(np.maximum(safe, j.eps) / divisor, j.lo, j.hi)
    return np.where(used, ratio, 1.0), status


def explain_stage(fusion: StageFusion, index: tuple[int, ...]) -> dict[str, float]:
    """The factors of one document (`index` into [..., documents]) by name; their product is its score."""
    shape = fusion.log_score.shape

    def at(values: FloatArray) -> float:
        return float(np.broadcast_to(values, shape)[index])

    return {f"original.{n}": at(v) for n, v in fusion.original_factors.items()} | {
        f"rewrite.{n}": at(v) for n, v in fusion.rewrite_factors.items()
    }


def stage_bound(stage: StageSpec) -> float:
    """How far any rewrite can move a document's log score: sum_j b_j max(|log lo_j|, |log hi_j|)."""
    return float(sum(j.exponent * max(-np.log(j.lo), np.log(j.hi)) for j in stage.rewrite))


def swap_bound(stage: StageSpec) -> float:
    """Documents whose original log scores differ by more than this keep their order: sum_j b_j (log hi_j - log lo_j)."""
    return float(sum(j.exponent * (np.log(j.hi) - np.log(j.lo)) for j in stage.rewrite))


@dataclass(frozen=True)
class ReplayResult:
    """Whether logged requests, recomputed, give the logged factors.

    Attributes:
        share_agreeing: Share of factors within the tolerance.
        compared: How many factors.
        worst: Largest difference.
    """

    share_agreeing: float
    compared: int
    worst: float


def replay(logged: Mapping[str, FloatArray], recomputed: Mapping[str, FloatArray], tolerance: float = 1e-6) -> ReplayResult:
    """Compare logged factors with recomputed ones, name by name.

    Raises:
        ValueError: a logged factor was not recomputed, or the shapes differ, or nothing was logged.
    """
    gaps = []
    for name, values in logged.items():
        if name not in recomputed or np.shape(recomputed[name]) != np.shape(values):
            raise ValueError(f"factor {name!r} was logged but not recomputed in the same shape: is this the same spec?")
        gap = np.abs(np.asarray(values, np.float64) - np.asarray(recomputed[name], np.float64)).ravel()
        gaps.append(np.where(np.isnan(gap), np.inf, gap))
    if not gaps or not sum(map(len, gaps)):
        raise ValueError("nothing to replay: no factor was logged")
    every = np.concatenate(gaps)
    return ReplayResult(float((every <= tolerance).mean()), len(every), float(every.max()))
