"""What the folders of all studies of simulated weeks have in common."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

FIRST_WEEK: Final = 2
"""Number of the first week with a champion: weeks 0 and 1 are the log it comes from."""


def week_name(week: int) -> str:
    """Name of a week's log; names sort in the order of time."""
    return f"week-{week:02d}"


@dataclass(frozen=True)
class StudyFolder:
    """The folder of a study.

    Attributes:
        folder: It.
    """

    folder: Path

    @property
    def settings(self) -> Path:
        """The settings that it runs under."""
        return self.folder / "settings.json"

    @property
    def documents(self) -> Path:
        """The catalogue."""
        return self.folder / "documents.parquet"

    @property
    def labels(self) -> Path:
        """All that raters ever gave."""
        return self.folder / "labels.parquet"
