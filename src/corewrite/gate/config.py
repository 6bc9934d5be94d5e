"""Settings of the gate: margins, resamples, sample sizes."""

from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import AliasChoices, ConfigDict, Field, field_validator, model_validator

from corewrite.domain import Settings
from corewrite.gate.bounds import effective_users
from corewrite.gate.check import CHECKS

Margin = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _current_name(check: str) -> str:
    """Name of a check today: settings that an earlier version stored, and margins that it froze, have its earlier name."""
    return next((name for name, known in CHECKS.items() if known.earlier_name == check), check)


class Margins(Settings):
    """How much worse than its baseline a candidate may be, by check, in the absolute units of each metric.

    `Margins(judge_ndcg=0.003)` changes one and leaves the others at the defaults that stand in the classes of
    the checks (`default_margin`). Those are stated business limits; calibration (`corewrite.gate.calibrate`)
    can only make them narrower. A check with no default must rise and has no margin.

    Raises:
        ValueError: a name is no check's, or that of a check without a margin; a margin is not above 0.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Margin] = Field(init=False)

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        current = {_current_name(str(name)): margin for name, margin in value.items()}
        if len(current) < len(value):
            raise ValueError("a margin stands twice, under the name and the earlier name of its check: drop one")
        value = current
        known = {name: check.default_margin for name, check in CHECKS.items() if check.default_margin is not None}
        unknown = [name for name in value if name not in known]
        if unknown:
            raise ValueError(f"no check with a margin is called {', '.join(unknown)}; there are {', '.join(known)}")
        return known | value

    def of(self, check: str) -> float:
        """The margin of the check called so.

        Raises:
            KeyError: there is none.
        """
        return self.as_dict()[check]

    def as_dict(self) -> dict[str, float]:
        """All margins by the name of their check."""
        return dict(self.__pydantic_extra__)


class GateConfig(Settings):
    """Settings of the gate."""

    margins: Margins = Field(default_factory=lambda: Margins())
    """By check; where nothing is said, the business limits that stand in the checks."""
    harm_threshold: float = Field(default=0.05, gt=0, lt=1)
    """tau: judge nDCG@10 lost against no rewriter from which on a query counts as harmed."""
    word_limit: int = Field(default=20, ge=1)
    """Words above which a rewrite counts as malformed."""
    latency_ratio: float = Field(default=1.25, gt=0)
    """How many times the champion's p99 latency the candidate's may be."""
    holds_before_no_worse: int = Field(
        default=1, ge=1, validation_alias=AliasChoices("holds_before_no_worse", "holds_before_new_entities")
    )
    """HOLDs in a row after which a candidate that is no worse than the champion that serves, within the margins, is promoted:
    it knows what came into the world since that was trained, and gains too small to be shown in one week add up."""
    resamples: int = Field(default=2000, ge=50)
    """Poisson resamples of users, for means."""
    subsamples: int = Field(default=400, ge=50)
    """Half-samples of users, for set metrics: 400 give the standard error to within 4 %."""
    minimum_effective_users: int = Field(
        default=40, ge=20, validation_alias=AliasChoices("minimum_effective_users", "minimum_users")
    )
    """Users below which the gate holds, a slice is left out, and a check of some queries only is not applicable. Effective
    ones: so many with equally many queries say as much. Where one of 500 users has half of the queries there are four."""
    required_checks: tuple[str, ...] = Field(
        default_factory=lambda: tuple(name for name, check in CHECKS.items() if not check.optional)
    )
    """Checks without whose data the gate holds, by name: all that a cycle can feed, once for checks of the same data. Any
    other is skipped where its data are not given. What cannot exist yet, such as a recent champion in the first weeks, is said
    to be absent with the reason: what needs it is not applicable and holds nobody back."""
    seed: int = Field(default=0, ge=0)
    """Of the resamples."""

    @field_validator("required_checks")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(map(_current_name, names))
        if unknown := [name for name in names if name not in CHECKS]:
            raise ValueError(f"no check is called {', '.join(unknown)}; there are {', '.join(CHECKS)}")
        if missing := [name for name, check in CHECKS.items() if check.kind == "reward" and name not in names]:
            raise ValueError(f"{', '.join(missing)} cannot be left out: without it nothing is ever promoted")
        return names

    def too_few(self, queries: npt.NDArray[np.float64]) -> str | None:
        """How many users there are and are needed, in words; None where there are enough.

        Args:
            queries: Number of each user's queries, float64 [users].
        """
        users = int((queries > 0).sum())
        found = float(effective_users(queries)) if users else 0.0
        if found >= self.minimum_effective_users:
            return None
        count = (
            f"{users} users" if found > 0.99 * users else f"{users} users, who count as {found:.1f} with equally many queries"
        )
        return f"{count}; {self.minimum_effective_users} are needed"
