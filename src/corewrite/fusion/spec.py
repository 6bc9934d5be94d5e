"""The fusion spec: one YAML that ranks, rewards and compiles."""

import math
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from corewrite.domain import Settings, sha256_json

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
AtLeastOne = Annotated[int, Field(ge=1)]
STAGES = ("recall", "rawrank", "finerank")


class OriginalSignal(Settings):
    """A factor clip(x, eps, top) ** exponent of the query's own signal."""

    signal: str = Field(min_length=1)
    """Name of the signal."""
    eps: Positive
    """Floor: a difference below it means nothing."""
    top: Positive = 1.0
    """Ceiling."""
    exponent: Positive = 1.0
    """Exponent a."""

    @model_validator(mode="after")
    def _ordered(self) -> "OriginalSignal":
        if self.top <= self.eps:
            raise ValueError(f"top {self.top} must be above eps {self.eps}")
        return self


class RewriteSignal(Settings):
    """A factor of the rewrite's signal, clipped to [lo, hi] around 1."""

    signal: str = Field(min_length=1)
    """Name of the signal."""
    relative_to: Literal["original", "constant"] = "original"
    """What the rewrite's signal is divided by: the query's own (the default) or the constant n."""
    n: Positive | None = None
    """The constant; only with relative_to: constant."""
    eps: Positive = 0.03
    """Floor of both sides of the ratio."""
    lo: Positive = 0.25
    """Lowest factor before the exponent, at most 1."""
    hi: Positive = 4.0
    """Highest factor before the exponent, at least 1."""
    exponent: NotNegative = 0.5
    """Exponent b."""

    @model_validator(mode="after")
    def _bounded(self) -> "RewriteSignal":
        if self.lo > 1:
            raise ValueError(f"lo {self.lo} must be at most 1, or no rewrite could be neutral")
        if self.hi < 1:
            raise ValueError(f"hi {self.hi} must be at least 1, or no rewrite could be neutral")
        if (self.n is not None) != (self.relative_to == "constant"):
            raise ValueError("n goes with relative_to: constant, and only with it")
        return self


class StageSpec(Settings):
    """The factors of one rank stage."""

    original: tuple[OriginalSignal, ...]
    """Factors of the query itself."""
    rewrite: tuple[RewriteSignal, ...] = ()
    """Factors of the rewrite."""

    @property
    def signals(self) -> tuple[str, ...]:
        """Names of the signals, each once, sorted."""
        return tuple(sorted({i.signal for i in self.original} | {j.signal for j in self.rewrite}))

    @model_validator(mode="after")
    def _consistent(self) -> "StageSpec":
        for kind, signals in (("original", self.original), ("rewrite", self.rewrite)):
            names = [s.signal for s in signals]
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise ValueError(f"{kind} signal {twice[0]!r} stands twice: merge the two")
        exponents = {s.signal: s.exponent for s in self.original}
        for j in self.rewrite:
            a = exponents.get(j.signal)
            if a is not None and j.relative_to == "original" and j.exponent > a / 2:
                raise ValueError(
                    f"rewrite exponent {j.exponent} of {j.signal!r} must be at most half of the original's {a}: "
                    f"at {a} the original signal would cancel out"
                )
        return self


class RecallSpec(Settings):
    """Who recalls how many candidates."""

    original_candidates: AtLeastOne = 80
    """Candidates of each original list, lexical and dense; never cut by the rewrite."""
    rewrite_candidates: Annotated[int, Field(ge=0)] = 60
    """Candidates the rewrite may add at most (m)."""
    use_rewrite: bool = True
    """Whether the rewrite recalls at all."""


class Depths(Settings):
    """How many candidates go on from rawrank."""

    finerank: AtLeastOne = 80
    """Fused top K that finerank gets."""
    protected: AtLeastOne = 80
    """Original top P that finerank gets whatever the rewrite says."""

    @model_validator(mode="after")
    def _protects(self) -> "Depths":
        if self.protected < self.finerank:
            raise ValueError(
                f"protected {self.protected} must be at least finerank {self.finerank}: with fewer, a document that would "
                "have reached finerank without the rewriter could be kept from it"
            )
        return self


class RewardSpec(Settings):
    """How the stages that use the rewrite count in the reward."""

    finerank_weight: NotNegative = 1.0
    """Weight of the change in finerank's log scores, D+ against D-."""
    reach_weight: NotNegative = 0.5
    """lambda_reach: weight of the share of D+ that the rewrite brings into finerank."""
    zero_weight_reason: Annotated[str, Field(pattern=r"\S")] | None = None
    """Why a weight is 0 though recall or rawrank (`reach_weight`) or finerank (`finerank_weight`) uses the rewrite."""


class FusionSpec(Settings):
    """One spec: the ranker's formula, the training reward, the engine's expression."""

    version: Literal[2] = 2
    """Version of the format; a file that names none is of version 1."""
    recall: RecallSpec = RecallSpec()
    """Recall."""
    rawrank: StageSpec
    """The cheap stage."""
    finerank: StageSpec
    """The last stage."""
    depths: Depths = Depths()
    """Between the two."""
    reward: RewardSpec = RewardSpec()
    """The reward."""

    @field_validator("reward")
    @classmethod
    def _counts_all_that_use_the_rewrite(cls, reward: RewardSpec, info: ValidationInfo) -> RewardSpec:
        recall, rawrank, finerank = (info.data.get(name) for name in STAGES)
        if recall is None or rawrank is None or finerank is None or reward.zero_weight_reason:
            return reward  # a stage that is refused has an error of its own
        for weight, users in (
            ("reach_weight", _rewrite_users_before_finerank(recall, rawrank)),
            ("finerank_weight", ["finerank"] if finerank.rewrite else []),
        ):
            if users and not getattr(reward, weight):
                use = f"{' and '.join(users)} {'use' if len(users) > 1 else 'uses'}"
                raise ValueError(
                    f"{weight} is 0 but {use} the rewrite: nothing would reward what it does there; give it a weight above 0, "
                    "or say why in zero_weight_reason"
                )
        return reward

    @property
    def spec_hash(self) -> str:
        """Content hash: unchanged by comments, key order and spelled-out defaults, changed by every value."""
        return sha256_json(self.model_dump(mode="json"))

    @property
    def stages(self) -> dict[str, StageSpec]:
        """The rank stages by name."""
        return {"rawrank": self.rawrank, "finerank": self.finerank}

    @property
    def rewards_reach(self) -> bool:
        """Whether the reward counts which documents enter finerank: weighed, and recall or rawrank uses the rewrite."""
        return self.reward.reach_weight > 0 and bool(_rewrite_users_before_finerank(self.recall, self.rawrank))

    @property
    def reward_problem(self) -> str | None:
        """Why no reward can be computed under this spec; None: it can."""
        return None

    def with_rewrite_stages(self, names: Iterable[str]) -> "FusionSpec":
        """This spec with the rewrite used only in the stages `names` of recall, rawrank and finerank.

        Raises:
            ValueError: a name that is no stage.
        """
        wanted = set(names)
        if wanted - set(STAGES):
            raise ValueError(f"no stage {sorted(wanted - set(STAGES))}: there are {', '.join(STAGES)}")
        update: dict[str, object] = {
            name: stage if name in wanted else stage.model_copy(update={"rewrite": ()}) for name, stage in self.stages.items()
        }
        recall = self.recall.use_rewrite and "recall" in wanted
        return self.model_copy(update={**update, "recall": self.recall.model_copy(update={"use_rewrite": recall})})


def _rewrite_users_before_finerank(recall: RecallSpec, rawrank: StageSpec) -> list[str]:
    recalls = recall.use_rewrite and recall.rewrite_candidates > 0
    return [name for name, uses in (("recall", recalls), ("rawrank", bool(rawrank.rewrite))) if uses]


def recommended_eps(random_pair_scores: Iterable[float]) -> float:
    """The default eps of a signal: the larger of 0.03 and its 75th percentile on random pairs.

    Raises:
        ValueError: no score, or one that is not a number.
    """
    scores = sorted(random_pair_scores)
    if not scores or any(math.isnan(s) for s in scores):
        raise ValueError("eps needs at least one score and no NaN among them")
    place = 0.75 * (len(scores) - 1)
    low = math.floor(place)
    high = min(low + 1, len(scores) - 1)
    return max(0.03, scores[low] + (place - low) * (scores[high] - scores[low]))
