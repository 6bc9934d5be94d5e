"""A/A check: the false-positive rate of the reader on a log without any difference."""

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import scipy.stats

from corewrite.domain import keyed_uniform, text_key
from corewrite.experiment.ab.searches import check_searches, drop_censored, first_impacted, trigger_known
from corewrite.experiment.assignment import CONTROL

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_LEVEL = 0.05
_FEWEST_USERS = 40
_SPLITS_AT_ONCE = 64
_PURPOSE = text_key("experiment.aa")


@dataclass(frozen=True)
class AACheck:
    """How often a launch without any difference would have been called one.

    Attributes:
        share_significant: Share of splits with a p-value below 5 %.
        splits: How many.
        low, high: Exact 95 % binomial interval of `share_significant`; 0.05 should lie in it.
        uniform_p_value: Kolmogorov-Smirnov test of the p-values against uniform. With few users the p-values
            of a rate take few values, and the test then reports it.
        users: Control users that were split.
    """

    share_significant: float
    splits: int
    low: float
    high: float
    uniform_p_value: float
    users: int

    def as_dict(self) -> dict[str, float | int]:
        """The fields as a plain dictionary."""
        return asdict(self)


def aa_check(searches: pa.Table, *, control: str = CONTROL, splits: int = 500, seed: int) -> AACheck:
    """Split the control users in two again and again and test the primary change-query rate of each split.

    A split is keyed by (seed, split, user): neither the order of rows nor the number of splits changes it.

    Args:
        searches: One row per search, see `check_searches`; those of other arms are left out, and may be missing.
        control: The arm.
        splits: How often.
        seed: Of the splits.

    Raises:
        ValueError: the table is refused by `check_searches`, `splits` is below 1, control has fewer than 40
            users whose first impacted search is known and not censored, or these all changed or none did.
    """
    if splits < 1:
        raise ValueError(f"splits {splits} must be at least 1")
    table = check_searches(searches)
    table = table.filter(pc.equal(table["arm"], control))
    first = drop_censored(first_impacted(table.filter(pa.array(trigger_known(table)))))
    changed = first["changed"].to_numpy()
    if len(changed) < _FEWEST_USERS:
        raise ValueError(
            f"arm {control!r} has {len(changed)} users with a first impacted search that is not censored, "
            f"an A/A check needs at least {_FEWEST_USERS}"
        )
    if changed.min() == changed.max():
        raise ValueError(
            f"the change-query rate of arm {control!r} is {changed[0]:g}: with no variation nothing can be checked"
        )
    users = np.array([text_key(user) for user in first["user_id"].to_pylist()], np.uint64)
    p_values = np.concatenate(
        [
            welch_p_values(changed, keyed_uniform(seed, _PURPOSE, number[:, None], users) < 0.5)
            for number in np.array_split(np.arange(splits), -(-splits // _SPLITS_AT_ONCE))
        ]
    )
    significant = int((p_values < _LEVEL).sum())
    interval = scipy.stats.binomtest(significant, splits).proportion_ci(0.95, method="exact")
    return AACheck(
        share_significant=significant / splits,
        splits=splits,
        low=float(interval.low),
        high=float(interval.high),
        uniform_p_value=float(scipy.stats.kstest(p_values, "uniform").pvalue),
        users=len(changed),
    )


def welch_p_values(values: FloatArray, treated: BoolArray) -> FloatArray:
    """Two-sided p-values of Welch's t-test (Welch 1947) for many splits of the same values at once.

    The same test as tea-tasting's with unequal variances, hence the one `read_launch` reads the primary
    metric by.

    Args:
        values: One value per user, [users].
        treated: Who is in treatment, [splits, users].

    Returns:
        [splits]; NaN where a side has fewer than two users or both sides are constant.
    """
    # Centred, lest the sums of squares cancel; a shift changes neither difference nor variance.
    centred = values - values.mean()
    weight = treated.astype(np.float64)
    n = np.stack([(~treated).sum(1), treated.sum(1)])
    sums, squares = weight @ centred, weight @ centred**2
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.stack([centred.sum() - sums, sums]) / n
        variance = (np.stack([(centred**2).sum() - squares, squares]) - n * mean**2) / (n - 1)
        error = variance / n
        t = (mean[1] - mean[0]) / np.sqrt(error.sum(0))
        freedom = error.sum(0) ** 2 / (error**2 / (n - 1)).sum(0)
    return np.asarray(2 * scipy.stats.t.sf(np.abs(t), freedom))
