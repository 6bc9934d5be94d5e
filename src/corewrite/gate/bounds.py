"""Bounds and p-values of a difference, and the correction for multiple tests (Holm 1979)."""

import math
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
        effective_users: Users with equally many queries that say as much; None where none were compared.
        users_needed: Effective users from which on L can be above -margin; infinite where no number will do; None where
            none were compared.
    """

    low: float
    high: float
    p_value: float
    effective_users: float | None = None
    users_needed: float | None = None


def effective_users(queries: FloatArray) -> FloatArray:
    """How many users with equally many queries say as much as these do (Kish 1965): (sum n)² / sum n².

    Args:
        queries: Number of each user's queries, [users] or [users, samples].
    """
    return np.asarray(queries.sum(0) ** 2 / (queries**2).sum(0), np.float64)


def bounds(difference: float, error: float, effective_users: float, margin: float) -> Bounds:
    """Bounds and p-value of a difference of shares, or of correlations, from its standard error.

    The estimate is taken as Student's t with effective users - 1 degrees of freedom around the truth. An event that no
    user had may still be one in `effective_users` / 3.7 (the rule of three, at 2.5 %): the bounds are never nearer
    to the difference than that, or two policies that look the same would be known to be the same. Bounds and p-value
    agree: U < -margin exactly where the p-value is below 2.5 %.

    Args:
        difference: D, higher is better.
        error: Its standard error.
        effective_users: Users that it comes from, at least 2.
        margin: m, at least 0.
    """
    degrees = effective_users - 1
    quantile = float(special.stdtrit(degrees, 1 - ONE_SIDED))
    unseen = -math.log(ONE_SIDED)
    error = max(error, unseen / effective_users / quantile)
    p = float(special.stdtr(degrees, (difference + margin) / error))
    reach = quantile * error
    needed = max(effective_users * (reach / margin) * (reach / margin), unseen / margin) if margin > 0 else math.inf
    return Bounds(difference - reach, difference + reach, p, effective_users, needed)


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
