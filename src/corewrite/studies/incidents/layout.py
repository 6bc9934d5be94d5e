"""File layout of a study of incidents."""

from dataclasses import dataclass
from pathlib import Path

from corewrite.registry import Registry
from corewrite.storage.run_layout import RunLayout
from corewrite.studies.layout import StudyFolder, week_name


@dataclass(frozen=True)
class ArmLayout:
    """The folder of an arm: its run, its logs, and what was found week by week.

    Attributes:
        folder: It.
    """

    folder: Path

    @property
    def run(self) -> RunLayout:
        """The run folder of its cycles."""
        return RunLayout(self.folder / "run")

    @property
    def registry(self) -> Registry:
        """Of the run."""
        return Registry(self.run.registry)

    @property
    def logs(self) -> Path:
        """Its logs."""
        return self.folder / "logs"

    def log(self, week: int) -> Path:
        """Its log of a week."""
        return self.logs / f"{week_name(week)}.ndjson.gz"

    def descriptions(self, week: int) -> Path:
        """What its searchers wrote down of what they wanted in a week, for raters."""
        return self.folder / "descriptions" / f"{week_name(week)}.parquet"

    @property
    def spec(self) -> Path:
        """The fusion spec of the present week."""
        return self.folder / "fusion.yaml"

    @property
    def documents(self) -> Path:
        """The documents of the present week, where they are not those of all."""
        return self.folder / "documents.parquet"

    @property
    def weeks(self) -> Path:
        """What was found, by week."""
        return self.folder / "weeks"

    def production(self, week: int) -> Path:
        """What serves in a week."""
        return self.weeks / f"{week:02d}-production.json"

    def searches(self, week: int) -> Path:
        """True nDCG@10 of each measured search of a week."""
        return self.weeks / f"{week:02d}-searches.parquet"

    def rewards(self, week: int) -> Path:
        """log R of each instance that the reward was measured on in a week."""
        return self.weeks / f"{week:02d}-rewards.parquet"

    def row(self, week: int) -> Path:
        """What was found in a week; it is there when the week is over."""
        return self.weeks / f"{week:02d}.json"


@dataclass(frozen=True)
class StudyLayout(StudyFolder):
    """The folder of a study under one seed.

    Attributes:
        folder: It.
    """

    @property
    def frozen(self) -> Path:
        """The evaluation set that never changes."""
        return self.folder / "for-the-gate" / "frozen.parquet"

    @property
    def trunk(self) -> ArmLayout:
        """The healthy weeks."""
        return ArmLayout(self.folder / "trunk")

    @property
    def popularity(self) -> Path:
        """How often each document satisfied in the healthy weeks."""
        return self.folder / "popularity.parquet"

    @property
    def point(self) -> Path:
        """What incidents know of the state that arms branch from; it is there when the trunk is whole."""
        return self.folder / "branch-point.json"

    def arm(self, name: str) -> ArmLayout:
        """An arm."""
        return ArmLayout(self.folder / "arms" / name)
