"""Settings of a progressive rollout: stages, limits, error probability."""

from typing import Literal, Self

from pydantic import Field, model_validator

from corewrite.domain import Settings

Metric = Literal["give_up", "change_query", "unsatisfied", "errors", "neutral_share"]
_OF_USERS = frozenset({"give_up", "change_query", "unsatisfied"})
"""What users do with what they see: nothing in the shadow stage."""


class Limit(Settings):
    """What a metric may be in treatment: at most `times_control` * control + `plus`."""

    times_control: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """1.05 allows 5 % more than control; 0 leaves control out, so that `plus` is an absolute limit."""
    plus: float = Field(default=0.0, ge=0, lt=1)
    """Allowed on top, as a share of searches."""


class RolloutStage(Settings):
    """A share of users, and what must be shown on them."""

    share: float = Field(ge=0, lt=1)
    """Share of users who get the new version; 0 is the shadow stage, where it answers but nobody sees it."""
    minimum_users: int = Field(ge=1)
    """Users in treatment, and outside the shadow stage in control too, before the rollout may go on."""
    limits: dict[Metric, Limit] = Field(min_length=1)
    """By metric; what has no limit is not watched."""

    @model_validator(mode="after")
    def _shadow_has_no_control(self) -> Self:
        absolute = all(limit.times_control == 0 for limit in self.limits.values())
        if self.share == 0 and (_OF_USERS & self.limits.keys() or not absolute):
            raise ValueError("nobody sees the shadow stage (share 0): limit errors and neutral_share, with times_control 0")
        return self


def _shadow(minimum_users: int, *, errors: float, neutral_share: float) -> RolloutStage:
    shares = {"errors": errors, "neutral_share": neutral_share}
    limits = {name: {"times_control": 0.0, "plus": plus} for name, plus in shares.items()}
    return RolloutStage.model_validate({"share": 0.0, "minimum_users": minimum_users, "limits": limits})


def _seen(share: float, minimum_users: int, *, harm: float, errors: float, neutral_share: float) -> RolloutStage:
    """Users may give up, change their query or stay unsatisfied in at most `harm` times as many searches as in control."""
    limits = {name: {"times_control": harm} for name in ("give_up", "change_query", "unsatisfied")}
    limits |= {"errors": {"plus": errors}, "neutral_share": {"plus": neutral_share}}
    return RolloutStage.model_validate({"share": share, "minimum_users": minimum_users, "limits": limits})


class RolloutConfig(Settings):
    """Settings of the rollout. By default limits tighten as the users to show them on become many."""

    stages: tuple[RolloutStage, ...] = Field(
        default=(
            _shadow(2_000, errors=0.02, neutral_share=0.2),
            _seen(0.01, 1_000, harm=1.3, errors=0.02, neutral_share=0.1),
            _seen(0.10, 5_000, harm=1.1, errors=0.01, neutral_share=0.05),
            _seen(0.50, 20_000, harm=1.05, errors=0.005, neutral_share=0.02),
        ),
        min_length=1,
    )
    """Shares rise; after the last stage all users get the new version."""
    alpha: float = Field(default=0.05, gt=0, lt=1)
    """Probability that any bound of the whole rollout is ever wrong: that it rolls back what is within all limits, or
    goes on with what is not."""

    lost_share: float = Field(default=0.01, ge=0, lt=1)
    """Share of the searches whose line the log may lose: with more of them lost the rollout does not go on."""

    @model_validator(mode="after")
    def _shares_rise(self) -> Self:
        shares = [stage.share for stage in self.stages]
        if shares != sorted(set(shares)):
            raise ValueError(f"shares {shares} of the stages must rise: nobody is to be moved back")
        return self

    @property
    def level(self) -> float:
        """Alpha of one metric in one stage: all of them share `alpha` equally (Bonferroni)."""
        return self.alpha / sum(len(stage.limits) for stage in self.stages)
