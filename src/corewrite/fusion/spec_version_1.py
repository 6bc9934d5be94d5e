"""Fusion specs of version 1, as they were written before the reward counted reach: they rank, replay and hash as ever."""

from collections.abc import Mapping
from typing import Literal

from pydantic import ValidationInfo, field_validator, model_validator

from corewrite.domain import Settings
from corewrite.fusion.spec import FusionSpec, NotNegative, RewardSpec


class RewardSpecV1(Settings):
    """The reward of version 1: a weight for each rank stage, and one for a recall term of two separate lists."""

    stage_weights: Mapping[Literal["rawrank", "finerank"], NotNegative] = {"rawrank": 0.0, "finerank": 1.0}
    """Weight of each rank stage, 0 for one that is not named."""
    recall_weight: NotNegative = 0.0
    """Weight of the recall term."""

    @model_validator(mode="before")
    @classmethod
    def _no_later_name(cls, value: object) -> object:
        later = sorted(RewardSpec.model_fields.keys() & value) if isinstance(value, dict) else []
        if later:
            raise ValueError(f"{later[0]} is of version 2: write `version: 2` at the top of the spec")
        return value

    @field_validator("stage_weights")
    @classmethod
    def _complete(cls, weights: Mapping[str, float]) -> dict[str, float]:
        return {"rawrank": 0.0, "finerank": 0.0} | dict(weights)

    @property
    def finerank_weight(self) -> float:
        """As in `RewardSpec`."""
        return self.stage_weights["finerank"]

    @property
    def reach_weight(self) -> float:
        """0: version 1 has no such term."""
        return 0.0


class FusionSpecV1(FusionSpec):
    """A spec of version 1: the ranking formula of today's, an earlier reward."""

    version: Literal[1] = 1  # type: ignore[assignment]
    """Version of the format."""
    reward: RewardSpecV1 = RewardSpecV1()  # type: ignore[assignment]
    """The reward."""

    @field_validator("reward")
    @classmethod
    def _counts_all_that_use_the_rewrite(cls, reward: RewardSpec, info: ValidationInfo) -> RewardSpec:
        return reward  # the format itself states the weights of 0

    @property
    def reward_problem(self) -> str | None:
        """Why no reward can be computed under this spec; None: it can."""
        if not self.reward.stage_weights["rawrank"] and not self.reward.recall_weight:
            return None
        return (
            "the fusion spec is of version 1 and its reward weighs rawrank or recall, by terms that are no longer computed; to "
            "train under it write `version: 2` and `reward: {reach_weight: 0.5}`, which counts the documents that the rewrite "
            "brings into finerank (docs/concepts/reward.md)"
        )
