"""Settings of the demo."""

from pydantic import Field

from corewrite.cycle import PipelineConfig, WarmStartConfig
from corewrite.domain import Settings
from corewrite.simulation.config import TrafficConfig, WorldConfig
from corewrite.training import TrainingConfig


class DemoConfig(Settings):
    """One run of the whole loop on the simulated platform."""

    seed: int = Field(default=0, ge=0)
    """The one seed of the run."""
    world: WorldConfig = WorldConfig()
    """The platform; its seed is replaced by `seed`."""
    traffic: TrafficConfig = TrafficConfig()
    """Its users' habits."""
    pipeline: PipelineConfig = PipelineConfig(pairs_to_grade=2_000)
    """Training and gate."""
    sessions: int = Field(default=20_000, ge=200)
    """Sessions of each of the two logged weeks."""
    rated_searches: int = Field(default=4_000, ge=20)
    """Searches whose results raters grade for the judge."""
    held_out_sessions: int = Field(default=3_000, ge=100)
    """Sessions of the fresh week that nDCG@10 is measured on."""
    launch_sessions: int = Field(default=20_000, ge=200)
    """Sessions of each launch, both arms together."""
    give_up_margin: float = Field(default=0.05, gt=0)
    """Relative rise of give-up that a launch may show at most (upper bound of its interval)."""
    aa_splits: int = Field(default=500, ge=20)
    """Re-randomised A/A splits."""

    @property
    def seeded_world(self) -> WorldConfig:
        """The platform under the run's seed."""
        return self.world.model_copy(update={"seed": self.seed})


def miniature(seed: int = 0) -> DemoConfig:
    """A run of the same loop small enough for a test; its figures mean nothing."""
    return DemoConfig(
        seed=seed,
        world=WorldConfig(videos=2_000, entities=40),
        pipeline=PipelineConfig(
            warm_start=WarmStartConfig(examples=14_000, epochs=1.5),
            training=TrainingConfig(phases=2, instances_per_phase=200, num_generations=6),
            gate_queries=400,
            pairs_to_grade=200,
            watched_queries=100,
            probe_instances=200,
        ),
        sessions=2_500,
        rated_searches=200,
        held_out_sessions=300,
        launch_sessions=2_000,
        aa_splits=50,
    )
