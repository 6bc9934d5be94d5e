"""Settings of the study of incidents."""

from pydantic import Field

from corewrite.cycle import WarmStartConfig
from corewrite.domain import Settings
from corewrite.studies.longitudinal.config import LongitudinalConfig, miniature_longitudinal


class IncidentsConfig(Settings):
    """`corewrite simulate --incident NAME`: healthy weeks, and arms that branch from them."""

    platform: LongitudinalConfig = LongitudinalConfig()
    """Platform, traffic, training and gate, as in the longitudinal simulation; its number of weeks is not used."""
    healthy_weeks: int = Field(default=3, ge=1)
    """Weeks with a champion before the arms branch."""
    weeks: int = Field(default=5, ge=1)
    """Weeks of each arm after that; what the last one's cycle promotes is measured in the week after."""
    weeks_without_gate: int | None = Field(default=None, ge=1)
    """Of arms without a gate, of which the damage alone is wanted; None: as many."""
    measured_sessions: int = Field(default=1_500, ge=50)
    """Sessions of each week whose searches nDCG@10 is measured on, the same for all arms. They are no part of any log."""

    @property
    def seed(self) -> int:
        """The one seed."""
        return self.platform.seed

    def weeks_of(self, gated: bool) -> int:
        """Weeks of an arm, with a gate or without one."""
        return self.weeks if gated or self.weeks_without_gate is None else self.weeks_without_gate

    def of(self, seed: int) -> "IncidentsConfig":
        """The same under another seed."""
        return self.model_copy(update={"platform": self.platform.model_copy(update={"seed": seed})})


def miniature_incidents(seed: int = 0, weeks: int = 2) -> IncidentsConfig:
    """A study small enough for a test; its figures mean nothing."""
    platform = miniature_longitudinal(seed)
    pipeline = platform.pipeline.model_copy(
        update={"warm_start": WarmStartConfig(examples=4_000), "gate_queries": 150, "probe_instances": 80}
    )
    platform = platform.model_copy(update={"pipeline": pipeline, "sessions": 1_000, "measured_searches": 100})
    return IncidentsConfig(platform=platform, healthy_weeks=1, weeks=weeks, measured_sessions=60)
