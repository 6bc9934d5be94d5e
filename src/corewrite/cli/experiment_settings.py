"""What `corewrite experiment` needs of `corewrite.yaml`."""

from pathlib import Path

from corewrite.deployment.settings import RankerSettings
from corewrite.domain import Settings
from corewrite.experiment.config import ExperimentConfig
from corewrite.logs.privacy import PrivacyConfig


class ExperimentSections(Settings):
    """The sections it reads."""

    run: Path | None = None
    """Run folder: its champion's ranking says which queries ask for the same, its first mined week what watching satisfies."""
    documents: Path | None = None
    """Parquet of documents that the ranking ranks."""
    ranker: RankerSettings = RankerSettings()
    """What ranks in production."""
    privacy: PrivacyConfig = PrivacyConfig()
    """With which keys sealed texts are opened."""
    experiment: ExperimentConfig = ExperimentConfig()
    """How launches are read."""
