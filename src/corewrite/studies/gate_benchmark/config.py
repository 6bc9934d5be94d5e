"""Settings of the gate benchmark."""

from pydantic import Field, model_validator

from corewrite.cycle import WarmStartConfig
from corewrite.domain import Settings
from corewrite.gate import GateConfig
from corewrite.studies.longitudinal.config import LongitudinalConfig
from corewrite.studies.quickstart.config import DemoConfig
from corewrite.studies.quickstart.config import miniature as miniature_demo
from corewrite.training import TrainingConfig


class GateBenchConfig(Settings):
    """`corewrite gate bench`: candidates made bad, good and equal on purpose, and what the gate says to them."""

    platform: DemoConfig = DemoConfig()
    """World, traffic, warm start and the champion's training; its seed is replaced by each of `seeds`."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Platforms: each has a world, a relevance model, a judge and a champion of its own."""
    gate: GateConfig = LongitudinalConfig().pipeline.gate
    """The gate on trial: that of the longitudinal simulation."""
    gate_searches: int = Field(default=3_000, ge=100)
    """Searches of the gate's users in the last week of log, at most."""
    frozen_searches: int = Field(default=1_000, ge=0)
    """The same of the week before, the set that never changes."""
    graded_pairs: int = Field(default=2_000, ge=1)
    """Pairs of a search and a document that raters grade of each comparison."""
    truth_searches: int = Field(default=20_000, ge=100)
    """Searches of the week after, which no gate sees: truth is measured on them."""
    truth_sessions: int = Field(default=10_000, ge=100)
    """Sessions that they come from."""
    honest_trainings: int = Field(default=4, ge=2)
    """Trainings from the warm start with seeds of their own, on each platform."""
    honest_phases: tuple[int, ...] = (1, 2, 3, 4)
    """Phases after which such a training's policy is kept."""
    honest_instances: int = Field(default=400, ge=1)
    """Instances of each of these phases: few, so that policies gain on each other by little. A phase of the platform's own
    number gains most of what can be had (+4 % of nDCG@10), and leaves nothing between 0.5 and 2 % to be heard."""
    bad: TrainingConfig = TrainingConfig(
        phases=8, learning_rate=1e-3, beta=0.05, weight_generation=0.0, sampler_precision="float32"
    )
    """Training on a reward that pays for the wrong thing; the champion is its start. Far looser than the default, which the
    reference, the bounds of the spec and the short training keep from doing much harm in the time there is; a policy that moves
    this fast is more than the rounding of bfloat16 allows away from what it samples with."""
    growing_phases: tuple[int, ...] = (2, 4, 6, 8)
    """Phases after which the policy is a candidate, under a spec with too low a floor."""
    growing_eps: tuple[float, ...] = (1e-4, 1e-5)
    """Such floors."""
    growing_week: int = Field(default=2, ge=1)
    """Phases of a week in the chain of such candidates, each week's promoted over the last one's."""
    saturating_phases: tuple[int, ...] = (2, 4, 6, 8)
    """The same under a relevance model that saturates."""
    saturating_bias: tuple[float, ...] = (2.0, 4.0)
    """By how much its bias is above the fitted one."""
    poisoned_phases: tuple[int, ...] = (4, 8)
    """The same on a log with a bot's clicks."""
    poisoned_shares: tuple[float, ...] = (0.1, 0.25, 0.5, 0.8)
    """Share of the training instances that are the bot's."""
    drift_weeks: int = Field(default=8, ge=2)
    """Weeks of a slow drift."""
    aa_rows: int = Field(default=20, ge=1)
    """Comparisons of the champion with itself, on each platform."""
    amounts: int = Field(default=7, ge=1, le=7)
    """Strengths of each family of rewritings, at most."""

    @model_validator(mode="after")
    def _phases_fit(self) -> "GateBenchConfig":
        for name in ("growing_phases", "saturating_phases", "poisoned_phases"):
            if max(getattr(self, name)) > self.bad.phases:
                raise ValueError(f"{name} {getattr(self, name)} go beyond bad.phases, {self.bad.phases}: raise it")
        if any(p % self.growing_week for p in self.growing_phases):
            raise ValueError(f"growing_phases {self.growing_phases} are no whole weeks of {self.growing_week} phases")
        return self

    def of(self, seed: int) -> DemoConfig:
        """The platform of a seed."""
        return self.platform.model_copy(update={"seed": seed})


def miniature_bench(seed: int = 0) -> GateBenchConfig:
    """Every kind of case once, on a world small enough for a test; its figures mean nothing."""
    platform = miniature_demo(seed)
    small = TrainingConfig(phases=2, instances_per_phase=100, num_generations=4)
    pipeline = platform.pipeline.model_copy(update={"training": small, "warm_start": WarmStartConfig(examples=4_000)})
    return GateBenchConfig(
        platform=platform.model_copy(update={"pipeline": pipeline, "sessions": 1_500}),
        seeds=(seed,),
        gate_searches=200,
        frozen_searches=50,
        graded_pairs=200,
        truth_searches=300,
        truth_sessions=200,
        honest_trainings=2,
        honest_phases=(1, 2),
        honest_instances=100,
        bad=small,
        growing_phases=(1, 2),
        growing_eps=(1e-5,),
        growing_week=1,
        saturating_phases=(2,),
        saturating_bias=(4.0,),
        poisoned_phases=(1,),
        poisoned_shares=(0.5,),
        drift_weeks=2,
        aa_rows=2,
        amounts=1,
    )
