"""Means over turns, and shares of a way, with intervals by resampling conversations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corewrite.gate.resampling import Resampling

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

RESAMPLES = 2_000
_TAIL = 2.5
"""Percent beyond each end of an interval."""


@dataclass(frozen=True)
class ConversationEstimate:
    """A figure with its 95 % interval, percentiles of a Poisson bootstrap over conversations.

    Attributes:
        value: The figure; None: there is none, since a share has no way to go.
        low: Lower end; None: more than 2.5 % of the resamples say nothing, or there is one conversation only.
        high: Upper end.
    """

    value: float | None
    low: float | None
    high: float | None


class ConversationBootstrap:
    """Resamples of conversations, the same for every system, mode, metric and ranker: all comparisons are paired.

    Turns of one conversation are alike, and the same resample draws all of them or none.

    Args:
        conversations: Of each turn.
        resamples: How many.
        seed: Of the draws.
    """

    def __init__(self, conversations: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0) -> None:
        self._resampling = None
        if len(set(conversations)) > 1:
            self._resampling = Resampling.draw(conversations, resamples=resamples, subsamples=0, seed=seed)

    def means(self, columns: Mapping[str, FloatArray], part: BoolArray) -> dict[str, "ResampledFigure"]:
        """The mean of each column over the turns of a part.

        Args:
            columns: By name, float64 [turns].
            part: Which turns, bool [turns]; one at least.
        """
        table = np.stack([np.ones(len(part)), *columns.values()], axis=1) * part[:, None]
        if self._resampling is None:
            value, drawn = table.sum(0), np.empty((0, table.shape[1]))
        else:
            value, drawn = self._resampling.totals(table)
        with np.errstate(invalid="ignore"):  # a resample that draws nothing of the part says nothing: 0 / 0
            over = drawn[:, 1:] / drawn[:, :1]
        means = value[1:] / value[0]
        return {name: ResampledFigure(float(means[k]), over[:, k]) for k, name in enumerate(columns)}


@dataclass(frozen=True, eq=False)
class ResampledFigure:
    """A figure and what it is in every resample.

    Attributes:
        value: The figure.
        drawn: Float64 [resamples]; NaN where a resample says nothing.
    """

    value: float
    drawn: FloatArray

    def estimate(self) -> ConversationEstimate:
        """With its interval."""
        value = self.value if np.isfinite(self.value) else None
        sound = self.drawn[np.isfinite(self.drawn)]
        if value is None or not len(sound) or 100 * len(sound) < (100 - _TAIL) * len(self.drawn):
            return ConversationEstimate(value, None, None)
        low, high = np.percentile(sound, [_TAIL, 100 - _TAIL])
        return ConversationEstimate(value, float(low), float(high))


def best(figures: Sequence[ResampledFigure]) -> ResampledFigure:
    """The highest of some figures. Each resample takes its own: that one was chosen is part of the interval."""
    return ResampledFigure(max(f.value for f in figures), np.max([f.drawn for f in figures], axis=0))


def share_of_way(reached: ResampledFigure, start: ResampledFigure, end: ResampledFigure) -> ResampledFigure:
    """How much of the way from `start` to `end` is `reached`; NaN where there is no way to go."""
    values, starts, ends = (np.append(f.drawn, f.value) for f in (reached, start, end))
    way = ends - starts
    with np.errstate(invalid="ignore"):
        share = np.divide(values - starts, way, out=np.full(len(way), np.nan), where=way > 0)
    return ResampledFigure(float(share[-1]), share[:-1])
