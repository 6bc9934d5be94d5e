"""A launch read in two ways: with fixed-horizon intervals at its planned end, and anytime-valid."""

import math
from dataclasses import dataclass

import pyarrow as pa

from corewrite.experiment.ab.launch import read_launch
from corewrite.experiment.ab.result import LOWEST_SAMPLE_RATIO_P, Effect, LaunchResult
from corewrite.experiment.assignment import CONTROL, TREATMENT
from corewrite.experiment.sequential import ratio_bounds


@dataclass(frozen=True)
class AnytimeInterval:
    """Anytime-valid bounds of a relative effect, see `ratio_bounds`.

    Attributes:
        low, high: Of treatment / control - 1; -1 and infinity where nothing is known on that side.
    """

    low: float
    high: float

    def as_dict(self) -> dict[str, float | None]:
        """The fields for JSON: infinity as None."""
        return {"low": self.low, "high": self.high if math.isfinite(self.high) else None}


@dataclass(frozen=True)
class Reading:
    """A launch, read at its planned end and at any time (anytime-valid bounds).

    Attributes:
        launch: The reading at the planned end: its intervals hold for one look, at a time chosen beforehand.
        cqr, give_up, satisfied: The same metrics over the first impacted search of each user, for any number of looks.
            They presume that outcomes are not revised, hence that thresholds of satisfaction are frozen.
    """

    launch: LaunchResult
    cqr: AnytimeInterval
    give_up: AnytimeInterval
    satisfied: AnytimeInterval

    @property
    def counts_anytime(self) -> bool:
        """Whether this is a gain at whatever moment it is looked at: the rule of `LaunchResult.counts`, by these bounds."""
        fair = min(self.launch.srm_p_value, self.launch.srm_triggered_p_value) >= LOWEST_SAMPLE_RATIO_P
        return fair and self.cqr.high < 0 and self.give_up.high < self.launch.give_up_margin

    @property
    def harms(self) -> bool:
        """Whether harm is shown: more changed queries, or give-up beyond its margin, by a split that is fair."""
        launch = self.launch
        fair = min(launch.srm_p_value, launch.srm_triggered_p_value) >= LOWEST_SAMPLE_RATIO_P
        return fair and (launch.cqr.ci_low > 0 or launch.give_up.ci_low > launch.give_up_margin)

    def as_dict(self) -> dict[str, object]:
        """The launch's fields and what follows from them, for JSON, and under "anytime" the intervals of any look."""
        anytime: dict[str, object] = {name: getattr(self, name).as_dict() for name in ("cqr", "give_up", "satisfied")}
        return {**self.launch.as_dict(), "harms": self.harms, "anytime": {**anytime, "counts": self.counts_anytime}}


def read_searches(
    name: str,
    searches: pa.Table,
    *,
    control: str = CONTROL,
    treatment: str = TREATMENT,
    share: float,
    give_up_margin: float = 0.05,
    alpha: float = 0.05,
) -> Reading:
    """Read a launch from its searches.

    Args:
        name: Name of the launch.
        searches: One row per search, see `check_searches`.
        control, treatment: The arms to compare, as they were served.
        share: Share of the users of both arms that treatment was meant to get.
        give_up_margin: Non-inferiority margin of give-up, relative.
        alpha: Level of all intervals.

    Raises:
        ValueError: see `read_launch`.
    """
    launch = read_launch(
        name, searches, control=control, treatment=treatment, give_up_margin=give_up_margin, alpha=alpha, share=share
    )
    return Reading(launch, *(_anytime(effect, alpha) for effect in (launch.cqr, launch.give_up, launch.satisfied)))


def _anytime(effect: Effect, alpha: float) -> AnytimeInterval:
    """The interval of a share over one search per user, hence of independent outcomes of 0 or 1."""
    low, high = ratio_bounds(
        effect.n_control,
        round(effect.control * effect.n_control),
        effect.n_treatment,
        round(effect.treatment * effect.n_treatment),
        alpha=alpha,
    )
    return AnytimeInterval(low - 1, high - 1)
