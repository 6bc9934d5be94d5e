"""The relative change of a mean over searches, with its interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from corewrite.studies.ratios import ratio_of_sums, standard_error

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """A relative change, (candidate - champion) / champion, with its 95 % interval.

    Attributes:
        change: Estimate.
        low: Lower end.
        high: Upper end.
    """

    change: float
    low: float
    high: float


def relative_change(candidate: FloatArray, champion: FloatArray, users: Sequence[str]) -> Change:
    """Change of a mean relative to the champion's, paired by search.

    Student's t with users - 1 degrees of freedom, on the error of the ratio of sums over users.

    Args:
        candidate: Of each search.
        champion: The same, with a mean above 0.
        users: Whose search each is.
    """
    _, of = np.unique(np.asarray(users, dtype=str), return_inverse=True)
    a, b = (np.bincount(of, values).astype(np.float64) for values in (candidate, champion))
    ratio, parts = ratio_of_sums(a, b)
    reach = float(stats.t.ppf(0.975, max(1, len(a) - 1))) * standard_error(parts)
    return Change(ratio - 1, ratio - 1 - reach, ratio - 1 + reach)
