"""File layout of a longitudinal simulation, and the branch of the arm without a gate."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from corewrite.domain.traffic_split import HOLDBACK
from corewrite.registry import Registry
from corewrite.storage.run_layout import RunLayout
from corewrite.studies.layout import StudyFolder, week_name

ARMS: Final = ("weekly", "never", "no_gate", HOLDBACK)
"""The cycle with its gate, the first champion never retrained, the cycle without a gate, no rewriter."""


@dataclass(frozen=True)
class LongitudinalLayout(StudyFolder):
    """The folder of a longitudinal simulation.

    Attributes:
        folder: It.
    """

    @property
    def weeks(self) -> Path:
        """What is measured by week."""
        return self.folder / "weeks"

    def rows(self, week: int) -> Path:
        """The rows of a week, by arm."""
        return self.weeks / f"{week:02d}.json"

    def labels_of(self, week: int) -> Path:
        """What raters gave in a week."""
        return self.weeks / f"{week:02d}-labels.parquet"

    def graded_pairs(self, arm: str, week: int) -> Path:
        """What raters gave of the pairs that an arm's cycle asked about, as labels."""
        return self.weeks / f"{week:02d}-{arm}-labels.parquet"

    def production(self, week: int) -> Path:
        """What serves the arms in a week."""
        return self.weeks / f"{week:02d}-production.json"

    def ndcg(self, week: int) -> Path:
        """True nDCG@10 of each measured search of a week, by arm."""
        return self.weeks / f"{week:02d}-ndcg.parquet"

    def users(self, arm: str, week: int) -> Path:
        """How the searches of a week ended, by user."""
        return self.weeks / f"{week:02d}-{arm}-users.parquet"

    def logs(self, arm: str) -> Path:
        """The logs of an arm."""
        return self.folder / arm / "logs"

    def log(self, arm: str, week: int) -> Path:
        """The log of an arm and week."""
        return self.logs(arm) / f"{week_name(week)}.ndjson.gz"

    def descriptions(self, arm: str, week: int) -> Path:
        """What the searchers of an arm and week wrote down of what they wanted."""
        return self.weeks / f"{week:02d}-{arm}-descriptions.parquet"

    def frozen(self, arm: str) -> Path:
        """The evaluation set that never changes."""
        return self.folder / "for-the-gate" / f"{arm}.parquet"

    def run(self, arm: str) -> RunLayout:
        """The run folder of an arm's cycles."""
        return RunLayout(self.folder / arm / "run")

    def registry(self, arm: str) -> Registry:
        """The registry that an arm is served from: the weekly arm's, but where the one without a gate has its own."""
        own = arm == "no_gate" and not self.together
        return Registry(self.run("no_gate" if own else "weekly").registry)

    def has_log(self, arm: str) -> bool:
        """Whether an arm has logs of its own, as its cycles need them."""
        return arm == "weekly" or (arm == "no_gate" and not self.together)

    @property
    def together(self) -> bool:
        """Whether the gate has made no difference yet: the arm without it is still the weekly arm."""
        return not (self.folder / "no_gate").is_dir()

    def join(self) -> None:
        """Take back a branch: the arms came to the same."""
        staging = self.folder / ".no_gate.joined"
        shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed here
        (self.folder / "no_gate").rename(staging)
        shutil.rmtree(staging)

    def branch(self) -> None:
        """Give the arm without a gate a registry and a log of its own, as the weekly arm's are now."""
        staging = self.folder / ".no_gate.partial"
        shutil.rmtree(staging, ignore_errors=True)
        shutil.copytree(self.folder / "weekly", staging)
        if not self.frozen("no_gate").is_file():
            shutil.copy2(self.frozen("weekly"), self.frozen("no_gate"))
        staging.rename(self.folder / "no_gate")
