"""Bounds and p-values of a difference, and their correction for many."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

FloatArray = npt.NDArray[np.float64]

ONE_SIDED = 0.025


@dataclass(frozen=True)
class Bounds:
    """What is known of a difference.

    Attributes:
        low: L, lower one-sided 97.5 % bound.
        high: U, upper one-sided 97.5 % bound.
        p_value: One-sided, of H0: the difference is at least -margin.
    """

    low: float
    high: float
    p_value: float


def bounds(difference: float, error: float, users: int, margin: float, comparisons: int = 1) -> Bounds:
    """Bounds and p-value from a standard error.

    The estimate is taken as Student's t with users - 1 degrees of freedom around the truth: the normal
    approximation, a little wider where users are few. Bounds and p-value agree: U < -margin exactly where the
    p-value is below 2.5 %.

    Args:
        difference: D, higher is better.
        error: Its standard error.
        users: Number of users it comes from, at least 2.
        margin: m, at least 0.
        comparisons: Of how many differences this may be the lowest; U and the p-value are corrected for it
            by Bonferroni. L is not: it need hold for the one that is truly lowest only.
    """
    degrees = users - 1
    low = difference - float(special.stdtrit(degrees, 1 - ONE_SIDED)) * error
    high = difference + float(special.stdtrit(degrees, 1 - ONE_SIDED / comparisons)) * error
    # Without noise the sign decides; 0 / 0 would be no number.
    p = float(special.stdtr(degrees, (difference + margin) / error)) if error > 0 else float(difference >= -margin)
    return Bounds(low, high, min(1.0, p * comparisons))


def holm(p_values: Sequence[float]) -> FloatArray:
    """p-values adjusted for their number (Holm 1979).

    Where all those at most a are rejected, the chance of any wrong rejection is at most a, however the tests
    depend on each other.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted
