"""Settings of experiments: the section `experiment` of `corewrite.yaml`."""

from pathlib import Path

from pydantic import Field

from corewrite.domain import Settings


class ExperimentConfig(Settings):
    """How launches are read and planned; options of the command line go before."""

    control: str | None = None
    """Arm that treatment is compared with, as it was served."""
    treatment: str | None = None
    """Arm whose worth is asked, as it was served."""
    share: float | None = Field(default=None, gt=0, lt=1)
    """Share of the users of both arms that treatment was meant to get; what the sample-ratio test holds the log to."""
    traffic: float = Field(default=1.0, gt=0, le=1)
    """Share of all users who take part, both arms together; for plans."""
    give_up_margin: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    """Relative rise of give-up that would still do."""
    alpha: float = Field(default=0.05, gt=0, lt=1)
    """Intervals are two-sided at 1 - alpha."""
    power: float = Field(default=0.8, gt=0, lt=1)
    """Probability that a planned launch shows the effect."""
    thresholds: Path | None = None
    """JSON with the watch times that satisfy, frozen before the launch, as a plan or a mined week holds them."""
