"""From what a model says to a probability."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corewrite.relevance.late_interaction import sigmoid

FloatArray = npt.NDArray[np.float64]
LOWEST = 1e-6
"""No score is closer to 0 or 1 than this: both have a logarithm."""


@dataclass(frozen=True)
class ScoreCalibration:
    """p = sigmoid(slope * x + offset), the form of Platt (1999); fit it on held-out users.

    Attributes:
        slope: Above 0, so that the model's order stays.
        offset: Any finite number.

    Raises:
        ValueError: one of the two is none of that.
    """

    slope: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.slope < np.inf and np.isfinite(self.offset)):
            raise ValueError(f"a calibration has a finite slope above 0 and a finite offset, not {self.slope}, {self.offset}")

    def __call__(self, x: FloatArray) -> FloatArray:
        """Probabilities of the model's numbers `x`, float64 as `x`."""
        return inside(np.asarray(sigmoid(self.slope * x + self.offset), np.float64))


def inside(p: FloatArray) -> FloatArray:
    """Probabilities moved off 0 and 1, which single precision rounds to."""
    return np.clip(p, LOWEST, 1 - LOWEST)
