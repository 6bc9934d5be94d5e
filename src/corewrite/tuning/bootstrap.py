"""Gains, losses and their intervals, from quality summed per user or conversation (Poisson bootstrap over these)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corewrite.fusion.evaluate import swap_bound
from corewrite.fusion.spec import StageSpec
from corewrite.tuning.outcome import StageEstimate, TuningOutcome

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_TAIL = 2.5
"""Percent beyond each end of an interval."""


@dataclass(frozen=True, eq=False)
class StageBounds:
    """Of every stage on a part of the groups: gain and the upper bound of its largest loss, both [stages]."""

    gain: FloatArray
    worst: FloatArray


@dataclass(frozen=True, eq=False)
class GroupSums:
    """Summed quality of every stage, kind and group, [stages, kinds, groups]; stage 0 is no rewriter at all."""

    stages: Sequence[StageSpec]
    kinds: tuple[str, ...]
    sums: FloatArray
    weights: FloatArray

    def bounds(self, part: BoolArray) -> StageBounds:
        """Gains and bounds on the groups of `part`, bool [groups]."""
        gain, worst = np.empty(len(self.sums)), np.empty(len(self.sums))
        none, weights = self.sums[0, 0, part], self.weights[:, part]
        for i, sums in enumerate(self.sums[:, :, part]):
            gain[i] = (sums[0] - none).sum() / none.sum()
            worst[i] = float(np.percentile(_losses(sums[1:], none, weights).max(0), 100 - _TAIL))
        return StageBounds(gain, worst)

    def choose(self, bounds: StageBounds, budget: float) -> int:
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


def _losses(sums: FloatArray, none: FloatArray, weights: FloatArray) -> FloatArray:
    """Relative losses in every resample, [kinds, resamples]; a resample that drew nothing relevant says nothing."""
    # Differences are summed, not sums subtracted: a rewriter that changes nothing then loses exactly nothing.
    lost, base = (none - sums) @ weights.T, weights @ none
    return np.asarray(np.divide(lost, base, out=np.zeros(lost.shape), where=base > 0))


def _estimate(value: float, drawn: FloatArray) -> StageEstimate:
    low, high = np.percentile(drawn, [_TAIL, 100 - _TAIL])
    return StageEstimate(value + 0.0, float(low) + 0.0, float(high) + 0.0)  # no negative zeros
