"""Uncertainty by resampling users: draws that all checks share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import special

from corewrite.gate.bounds import effective_users

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# Blocks of weights that stay in the processor's cache while they are drawn or multiplied.
_CELLS_AT_ONCE = 1 << 18
_CELLS = 1 << 16
_POISSON = special.pdtr(np.arange(20), 1.0)
_BETWEEN = np.uint8(255)


@dataclass(frozen=True, eq=False)
class Resampling:
    """Resamples of the users of an evaluation, the same for both policies and for all checks.

    Users, not queries, are resampled: queries of one user are alike, and queries taken as independent would
    make the bounds too narrow. Users are numbered in sorted order, so the draws do not depend on the order
    of the queries.

    Attributes:
        user: Number of the user of each query, int64 [queries].
        weights: How often each user is in each resample, Poisson(1), uint8 [resamples, users].
        halves: Which users are in each half-sample, users // 2 in every row, bool [subsamples, users].
    """

    user: IntArray
    weights: npt.NDArray[np.uint8]
    halves: BoolArray

    @classmethod
    def draw(cls, user_ids: Sequence[str], *, resamples: int, subsamples: int, seed: int) -> "Resampling":
        """Draw the resamples.

        Args:
            user_ids: Whose query each is, [queries].
            resamples: Poisson resamples.
            subsamples: Half-samples.
            seed: Of two independent streams: the number of one kind of draw does not change the other.

        Raises:
            ValueError: fewer than two users.
        """
        names, user = np.unique(np.asarray(user_ids, dtype=str), return_inverse=True)
        users = len(names)
        if users < 2:
            raise ValueError(f"resampling users needs at least 2 of them, there are {users}")
        for_weights, for_halves, for_rest = np.random.default_rng(seed).spawn(3)
        weights = np.empty((resamples, users), np.uint8)
        step = max(1, _CELLS_AT_ONCE // users)
        for start in range(0, resamples, step):
            _fill_poisson(weights[start : start + step], for_weights, for_rest)
        first_half = np.tile(np.arange(users) < users // 2, (subsamples, 1))
        return cls(user.astype(np.int64), weights, for_halves.permuted(first_half, axis=1))

    @property
    def users(self) -> int:
        """Number of users."""
        return int(self.weights.shape[1])

    @cached_property
    def effective_users(self) -> float:
        """How many users with equally many queries say as much as these do (Kish 1965): (sum n)² / sum n²."""
        return float(effective_users(np.bincount(self.user).astype(np.float64)))

    def per_user(self, columns: FloatArray) -> FloatArray:
        """Sums over the queries of each user of `columns`, [queries, k]; [users, k]."""
        return np.stack([np.bincount(self.user, column, self.users) for column in columns.T], axis=1)

    def totals(self, columns: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Sums over queries of `columns`, [queries, k]: of the sample [k] and of every resample [resamples, k].

        Queries are summed per user once; every resample is then one row of a matrix product (Chamandy et
        al. 2012, Estimating Uncertainty for Massive Data Streams).
        """
        sums = self.per_user(columns)
        step = max(1, _CELLS_AT_ONCE // self.users)
        # Weights stay bytes but for a few rows at a time: as float64 they would fill hundreds of megabytes.
        rows = [self.weights[i : i + step].astype(np.float64) @ sums for i in range(0, len(self.weights), step)]
        return sums.sum(0), np.concatenate(rows)

    def half_sample_error(self, statistic: Callable[[BoolArray], float]) -> float:
        """Standard error of a set metric, by subsampling users without replacement.

        A set metric such as the share of distinct bigrams cannot be bootstrapped: a user drawn twice
        repeats every bigram. Half-samples repeat nothing. Where a statistic is close to a mean over users,
        its value on b of n users drawn without replacement deviates from that on all n with variance
        s^2/b * (1 - b/n), and the latter has variance s^2/n. So the standard deviation over subsamples
        times sqrt(b / (n - b)), which is 1 for a half, is the standard error of the full-sample value
        (delete-d jackknife, Shao & Wu 1989). Deviations are from the subsamples' own mean: a set metric
        depends on the size of the set, so that a half is off by a constant, which is no noise. The result
        tends to be too large rather than too small (Efron & Stein 1981): 0.95 to 1.1 times the truth on
        simulated Zipf bigrams, 1.4 times where three in four are repeats.

        Args:
            statistic: The metric on the queries of a mask, bool [queries].
        """
        values = np.array([statistic(half[self.user]) for half in self.halves])
        kept = self.users // 2
        return float(values.std(ddof=1) * np.sqrt(kept / (self.users - kept)))


def _poisson_table() -> npt.NDArray[np.uint8]:
    """The Poisson(1) value at each of 65,536 equal steps of its distribution function; 255 where a step holds several."""
    edges = np.searchsorted(_POISSON, np.arange(_CELLS + 1) / _CELLS, side="right")
    table = edges[:-1].astype(np.uint8)
    # The right edge belongs to the next step, so that a jump of the distribution function there is none inside.
    inside = np.searchsorted(_POISSON, np.arange(1, _CELLS + 1) / _CELLS, side="left")
    table[inside != edges[:-1]] = _BETWEEN
    return table


_POISSON_TABLE = _poisson_table()


def _fill_poisson(rows: npt.NDArray[np.uint8], generator: np.random.Generator, rest: np.random.Generator) -> None:
    """Fill a block with Poisson(1) numbers by inversion, as exact as 53 bits, five times as fast as numpy's.

    The first 16 bits of a uniform number nearly always settle the value. Where they do not, at a jump of the
    distribution function and in its tail, `rest` gives the bits that follow; it is a stream of its own, so
    that a longer draw begins with the shorter one.
    """
    first = generator.integers(0, _CELLS, rows.size, np.uint16)
    flat = _POISSON_TABLE[first]
    open_ = np.flatnonzero(flat == _BETWEEN)
    flat[open_] = np.searchsorted(_POISSON, (first[open_] + rest.random(len(open_))) / _CELLS, side="right")
    rows[:] = flat.reshape(rows.shape)
