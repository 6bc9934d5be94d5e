"""Ratios of sums over users, linearised (delta method: Deng, Knoblich & Lu, KDD 2018)."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def ratio_of_sums(numerator: FloatArray, denominator: FloatArray) -> tuple[float, FloatArray]:
    """sum(numerator) / sum(denominator), and each user's part in its error, float64 [users].

    The parts of two ratios over the same users are added or subtracted before `standard_error`: so they are paired.
    """
    total = denominator.sum()
    ratio = float(numerator.sum() / total)
    return ratio, (numerator - ratio * denominator) / total


def standard_error(parts: FloatArray) -> float:
    """Standard error of what the users' parts belong to: that of a mean over users."""
    n = len(parts)
    return float(np.sqrt(n / max(1, n - 1) * (parts**2).sum()))
