"""Bounds of a mean over queries, of which only the users are independent: empirical likelihood with an unseen user.

A standard error says nothing of what was not seen. Of a rare event it is smallest in just those samples that hold too few, and
0 in those that hold none: with a candidate exactly as much worse as a margin of 1 % allows, a t-test at 2.5 % passes 30 % of
samples of 40 users, and 8 % of those in which one of 500 users has half of the traffic. The bounds here are those of an
empirical likelihood ratio (Owen 2001, Empirical Likelihood): users are given weights, as even as can be while the weighted mean
is d, and d is outside the bounds where they are too uneven. No variance is estimated; the bounds follow the skewness of the
sample, and events of one user are one event.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import special

from corewrite.gate.bounds import ONE_SIDED, Bounds, effective_users

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

UNSEEN = 1 / 2
"""Weight of the unseen user: the half that corrects the likelihood of a count for continuity. For a share of users with equally
many queries L is then between the mid-P bound and that of Clopper & Pearson (1934)."""
_ROUNDS = 100


@dataclass(frozen=True)
class GainRange:
    """What the gain of one query can be.

    Attributes:
        lowest: The least; None: there is no limit.
        highest: The most; None: there is no limit.
        event: Whether a gain is 1 or -1 at an event and 0 else. The unseen user then has the worst that can be, not one
            as bad as was seen.
    """

    lowest: float | None = None
    highest: float | None = None
    event: bool = False

    @property
    def mirrored(self) -> "GainRange":
        """Of the losses."""
        low, high = self.lowest, self.highest
        return GainRange(None if high is None else -high, None if low is None else -low, self.event)


UNLIMITED, SHARE = GainRange(), GainRange(-1.0, 1.0)
EVENT, EVENT_WITH_LIMIT = GainRange(-1.0, 1.0, event=True), GainRange(-1.0, 0.0, event=True)


@dataclass(frozen=True, eq=False)
class RatioOfSums:
    """Sums of gains over sums of queries, of one or several samples of users, each a column.

    A bound is that of the users seen and of a further one on its bad side, of weight `UNSEEN`, with sum n² / sum n queries: of
    users like that there are as many as effective ones. Where a gain is an event, or all users are alike, the gains of the
    unseen user are as bad as can be. Elsewhere they are as far from the mean as those of the user seen who is furthest from it,
    on either side, in units of the root of the number of queries.

    Attributes:
        gains: Sum of each user's gains, higher is better, float64 [users, samples].
        queries: Number of each user's queries, float64 [users, samples]; a user without any is not in the sample.
        gain_range: What the gain of a query can be.

    Raises:
        ValueError: a sample has fewer than two users, or a sum is not finite.
    """

    gains: FloatArray
    queries: FloatArray
    gain_range: GainRange = UNLIMITED

    def __post_init__(self) -> None:
        if not (np.isfinite(self.gains).all() and np.isfinite(self.queries).all()):
            raise ValueError("a sum over a user's queries is not a finite number")
        if ((self.queries > 0).sum(0) < 2).any():
            raise ValueError("bounds need at least 2 users with a query in every sample")

    @cached_property
    def mean(self) -> FloatArray:
        """D, [samples]."""
        return np.asarray(self.gains.sum(0) / self.queries.sum(0))

    @cached_property
    def effective_users(self) -> FloatArray:
        """How many users with equally many queries say as much, [samples]."""
        return effective_users(self.queries)

    def low(self, level: float = ONE_SIDED) -> FloatArray:
        """L, which the truth is below in at most `level` of all samples, [samples]."""
        return self._with_unseen.low(_quantile(self.effective_users, level))

    def high(self, level: float = ONE_SIDED) -> FloatArray:
        """U, which the truth is above in at most `level` of all samples, [samples]."""
        return -self._mirrored.low(level)

    def p_value(self, margin: float) -> FloatArray:
        """One-sided, of H0: the mean is at least -margin, [samples]; below a level exactly where U is below -margin."""
        loss = self._mirrored._with_unseen.profile(np.full_like(self.mean, margin))
        return np.asarray(special.stdtr(np.maximum(self.effective_users - 1, 1.0), -loss.root))

    def users_needed(self, margin: float) -> FloatArray:
        """Effective users from which on L > -margin, [samples]; infinite where no number will do.

        They are spread as those seen, around 0; where the margin is 0, around the mean seen.
        """
        shift = self.mean if margin > 0 else np.zeros_like(self.mean)
        centred = RatioOfSums(self.gains - shift * self.queries, self.queries, self.gain_range)
        factor = centred._with_unseen.growth(margin, self.effective_users)
        return np.asarray(np.where(centred.mean > -margin, factor * self.effective_users, np.inf))

    def bounds(self, margin: float, comparisons: int = 1) -> list[Bounds]:
        """Bounds and p-value of each sample.

        Args:
            margin: m, at least 0.
            comparisons: Of how many differences each may be the lowest; U and the p-value are corrected for it by
                Bonferroni. L is not: it need hold for the one that is truly lowest only.
        """
        lows, highs = self.low(), self.high(ONE_SIDED / comparisons)
        p_values = np.minimum(self.p_value(margin) * comparisons, 1.0)
        rows = zip(lows, highs, p_values, self.effective_users, self.users_needed(margin), strict=True)
        return [Bounds(*(float(x) + 0.0 for x in row)) for row in rows]  # Adding 0.0 turns -0.0 into 0.0.

    @cached_property
    def _mirrored(self) -> "RatioOfSums":
        return RatioOfSums(-self.gains, self.queries, self.gain_range.mirrored)

    @cached_property
    def _with_unseen(self) -> "_Weighted":
        there = self.queries > 0
        away = np.abs(self.gains - self.mean * self.queries) / np.sqrt(np.where(there, self.queries, 1.0))
        reach = np.where(there, away, 0.0).max(0)
        queries = (self.queries**2).sum(0) / self.queries.sum(0)
        gains = self.mean * queries - reach * np.sqrt(queries)
        if (lowest := self.gain_range.lowest) is not None:
            alike = reach <= 1e-12 * np.maximum(np.abs(self.mean), 1.0)
            gains = np.where(self.gain_range.event | alike, lowest * queries, np.maximum(gains, lowest * queries))
        weights = np.append(np.ones(len(self.gains)), UNSEEN)[:, None]
        return _Weighted(np.vstack([self.gains, gains]), np.vstack([self.queries, queries]), weights)


def _quantile(users: FloatArray, level: float) -> FloatArray:
    """Student's t with effective users - 1 degrees of freedom, at least 1: of few users the spread is hardly known."""
    return np.asarray(special.stdtrit(np.maximum(users - 1, 1.0), 1 - level))


@dataclass(frozen=True, eq=False)
class _Profile:
    """The likelihood of a mean, relative to the likeliest one.

    Attributes:
        root: Root of twice the log of the ratio, [samples]; below 0 where the mean is above the likeliest, infinite
            where no weights give it.
        slope: Of the root in the mean, [samples]; no number where the root is 0 or infinite.
        multiplier: Lagrange's, [samples].
    """

    root: FloatArray
    slope: FloatArray
    multiplier: FloatArray


@dataclass(frozen=True, eq=False)
class _Weighted:
    """Samples with the unseen user in the last row.

    Attributes:
        gains: [users + 1, samples].
        queries: [users + 1, samples].
        weights: [users + 1, 1 or samples].
    """

    gains: FloatArray
    queries: FloatArray
    weights: FloatArray

    def profile(self, at: FloatArray, start: FloatArray | float = 0.0) -> _Profile:
        """The likelihood of a mean of `at`, [samples]; the search for the multiplier begins at `start`."""
        away = self.gains - at * self.queries
        scale = np.abs(away).max(0)
        scale[scale == 0] = 1.0
        away /= scale
        least, most = away.min(0), away.max(0)
        inside = (least < 0) & (most > 0)
        # A user's weight is divided by 1 + multiplier * away, above 0 for all: the multiplier is in an open interval, the root
        # of a decreasing function there. Newton's steps, and halving where one leaves what is left of the interval.
        left, right = -1 / np.where(inside, most, 1.0), -1 / np.where(inside, least, -1.0)
        multiplier = np.clip(start * scale, 0.999 * left, 0.999 * right)
        for _ in range(_ROUNDS):
            tilted = away / (1 + multiplier * away)
            weighted = self.weights * tilted
            value, curvature = weighted.sum(0), (weighted * tilted).sum(0)
            left, right = np.where(value > 0, multiplier, left), np.where(value > 0, right, multiplier)
            new = multiplier + value / np.maximum(curvature, np.finfo(float).tiny)
            new = np.where((new > left) & (new < right), new, (left + right) / 2)
            moved = np.abs(new - multiplier) > 1e-9 * np.abs(new) + 1e-12
            multiplier = np.where(inside, new, multiplier)
            if not (inside & moved).any():
                break
        sizes = 1 + multiplier * away
        ratio = 2 * (self.weights * np.log(np.where(inside, sizes, 1.0))).sum(0)
        root = np.sign(multiplier) * np.sqrt(np.maximum(ratio, 0.0))
        root = np.where(inside, root, np.where(most > -least, np.inf, np.where(most < -least, -np.inf, 0.0)))
        change = -(multiplier / scale) * (self.weights * self.queries / sizes).sum(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return _Profile(root, np.asarray(change / root), multiplier / scale)

    def low(self, quantile: FloatArray) -> FloatArray:
        """The mean whose root is `quantile`, above 0, [samples]."""
        there = self.queries > 0
        left = (self.gains / np.where(there, self.queries, 1.0)).min(0, where=there, initial=np.inf)
        right = (self.weights * self.gains).sum(0) / (self.weights * self.queries).sum(0)
        spread = np.sqrt((self.weights * (self.gains - right * self.queries) ** 2).sum(0))
        at, multiplier = right - quantile * spread / (self.weights * self.queries).sum(0), np.zeros_like(right)
        at = np.where((at > left) & (at < right), at, (left + right) / 2)
        for _ in range(_ROUNDS):
            # The root falls from infinity at the worst user's mean to 0 at the likeliest, nearly as a line does.
            found = self.profile(at, multiplier)
            left, right = np.where(found.root > quantile, at, left), np.where(found.root > quantile, right, at)
            off = np.abs(found.root - quantile) > 1e-9 * quantile
            open_ = off & (right - left > 1e-15 * np.maximum(np.abs(left), np.abs(right)))
            if not open_.any():
                break
            with np.errstate(invalid="ignore", divide="ignore"):
                new = at + (quantile - found.root) / found.slope
            new = np.where((new > left) & (new < right), new, (left + right) / 2)
            at, multiplier = np.where(open_, new, at), found.multiplier
        return np.asarray(at)

    def growth(self, margin: float, users: FloatArray) -> FloatArray:
        """By what to multiply the number of users seen, but not the unseen one, for L to be -margin, [samples]; 0: any will do.

        Args:
            margin: m.
            users: Effective users seen, [samples].
        """
        factor, at = np.ones_like(users), np.full_like(users, -margin)
        for _ in range(_ROUNDS):
            weights = np.broadcast_to(self.weights, self.gains.shape).copy()
            weights[:-1] *= factor
            root = _Weighted(self.gains, self.queries, weights).profile(at).root
            # The square of the root grows nearly as the number of users does.
            step = np.clip((_quantile(factor * users, ONE_SIDED) / np.maximum(root, 0.1)) ** 2, 0.1, 10.0)
            step = np.where(np.isinf(root), 1.0, step)
            factor = factor * step
            if (np.abs(step - 1) < 1e-3).all():
                break
        return np.asarray(np.where(root == np.inf, 0.0, factor))
