"""Settings of what may be read of users' texts: the section `privacy` of `corewrite.yaml`."""

from pathlib import Path

from pydantic import Field

from corewrite.domain import Settings


class PrivacyConfig(Settings):
    """What may be read of users' texts, and for how long."""

    keys: Path | None = None
    """Folder of the private keys that sealed logs are opened with (`corewrite log keys`); None: they stay sealed."""
    retention_weeks: int | None = Field(default=None, ge=1)
    """Weeks whose mined searches are kept in the run folder, this one included; older ones are removed when a cycle ends. None:
    all are kept. The frozen set stays."""


class PrivacySections(Settings):
    """What a command reads of `corewrite.yaml` to open sealed texts."""

    privacy: PrivacyConfig = PrivacyConfig()
    """With which keys sealed texts are opened."""


class LogSections(PrivacySections):
    """What a command reads of `corewrite.yaml` that looks at a log alone."""

    logs: Path | None = None
    """Folder of UBI logs: a week is a file or a folder of files; weeks sort by name."""
    seed: int = Field(default=0, ge=0)
    """The one seed."""
