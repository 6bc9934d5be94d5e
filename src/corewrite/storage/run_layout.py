"""Where everything lies in a run folder: the one place that spells its parts."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunLayout:
    """The folder of a run, of `corewrite cycle`, `corewrite train` or `corewrite demo`.

    Attributes:
        root: The run folder.
    """

    root: Path

    @property
    def registry(self) -> Path:
        """Artifacts, the champion pointer and the log of decisions."""
        return self.root / "registry"

    @property
    def rollout_file(self) -> Path:
        """The state of the progressive rollout under way."""
        return self.root / "ramp.json"

    @property
    def rollout_lock(self) -> Path:
        """Held while the rollout, or the champion with it, is changed."""
        return self.root / "ramp.lock"

    @property
    def kill_file(self) -> Path:
        """While it exists the server uses no rewrite."""
        return self.root / "serving.killed"

    @property
    def cycle_lock(self) -> Path:
        """Held while a cycle is at work."""
        return self.root / "cycle.lock"

    @property
    def cycle_holder(self) -> Path:
        """Says which process holds `cycle_lock`."""
        return self.root / "cycle.pid"

    @property
    def cycles(self) -> Path:
        """A folder for the cycle of every week."""
        return self.root / "cycles"

    def cycle(self, week: str) -> "CycleLayout":
        """What the cycle of a week keeps."""
        return CycleLayout(self.cycles / week)

    @property
    def windows(self) -> Path:
        """A folder for every mined week."""
        return self.root / "windows"

    def window(self, week: str) -> Path:
        """What was mined of a week's log."""
        return self.windows / week

    @property
    def rejects(self) -> Path:
        """Unusable lines of the logs, a file for every log."""
        return self.root / "rejects"

    def reject_file(self, log: str) -> Path:
        """Unusable lines of a log."""
        return self.rejects / f"{log}.ndjson"

    @property
    def training(self) -> Path:
        """Phases of a training that is no week's."""
        return self.root / "training"

    @property
    def start(self) -> Path:
        """The policy that a training that is no week's began from."""
        return self.root / "start"

    @property
    def conversations(self) -> Path:
        """Figures of the run's policies on conversations."""
        return self.root / "conversations.json"

    @property
    def conversation_calibration(self) -> Path:
        """What makes probabilities of the rankers' scores of conversations."""
        return self.root / "conversation-calibration.json"

    @property
    def pairs_to_grade(self) -> Path:
        """What raters are asked to grade before the gate decides on a training that is no week's."""
        return self.root / "pairs-to-grade.parquet"

    @property
    def documents_copy(self) -> Path:
        """The documents, where the run has its own copy."""
        return self.root / "documents.parquet"

    @property
    def documents_note(self) -> Path:
        """Says where the documents lie, where the run has no copy."""
        return self.root / "documents.json"


@dataclass(frozen=True)
class CycleLayout:
    """The folder of a week's cycle.

    Attributes:
        root: The folder, with the journal's files in it.
    """

    root: Path

    @property
    def start(self) -> Path:
        """The policy that the week's training begins from."""
        return self.root / "start"

    @property
    def training(self) -> Path:
        """Phases of the week's training."""
        return self.root / "training"

    @property
    def pairs_to_grade(self) -> Path:
        """What raters are asked to grade before the gate decides."""
        return self.root / "pairs-to-grade.parquet"

    def step(self, name: str) -> Path:
        """What a step wrote down."""
        return self.root / f"{name}.json"
