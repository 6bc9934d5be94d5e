"""Settings of the weekly cycle, `corewrite.yaml`."""

from pathlib import Path

from pydantic import Field, model_validator

from corewrite.cycle.candidate_config import PipelineConfig
from corewrite.deployment.settings import RankerSettings
from corewrite.domain import Settings
from corewrite.experiment import RolloutConfig
from corewrite.gate import GateConfig
from corewrite.gate.margins_file import load_margins
from corewrite.logs.privacy import PrivacyConfig


class RefreshConfig(Settings):
    """What a cycle does before it trains from the champion."""

    relevance_every: int = Field(default=4, ge=0)
    """Weeks between refreshes of the relevance model; 0: never after the first fit."""
    relevance_windows: int = Field(default=2, ge=1)
    """Weeks of log that a refresh is fitted on, the training week left out."""
    examples: int = Field(default=16_000, ge=0)
    """Examples of the week's own repairs and good queries that the champion's copy is shown first; 0: none."""
    learning_rate: float = Field(default=5e-4, gt=0)
    """Peak of that short fine-tuning."""


class RecoveryConfig(Settings):
    """What happens by itself after a REJECT."""

    suspect_after: int = Field(default=2, ge=1)
    """REJECTs under a relevance model or spec that no candidate trained without mitigations has been promoted under: then the
    previous one is put back in ranker and reward, and the new one quarantined."""
    alarm_after: int = Field(default=4, ge=2)
    """REJECTs in a row after which the record has an alarm: mitigations do not help, somebody should look."""
    recent_weeks: int = Field(default=8, ge=1)
    """The best champion of so many weeks is a bar that no candidate may fall below: slow decay."""


class CycleConfig(Settings):
    """The weekly cycle on files.

    Relative paths are taken from where the command runs.
    """

    run: Path
    """Run folder: registry, mined weeks, cycles."""
    documents: Path
    """Parquet of documents, see `read_catalogue`."""
    logs: Path
    """Folder of UBI logs: a week is a file `<week>.ndjson[.gz]` or a folder `<week>` of such; weeks sort by name."""
    labels: Path
    """Parquet of rated results: for the judge, which training never sees."""
    frozen: Path
    """Evaluation set that never changes, readable by the gate only; the first cycle writes it where there is none. Keep it out
    of the run folder, under rights that training does not have."""
    ranker: RankerSettings = RankerSettings()
    """What ranks in production: fusion spec, signals, recall."""
    spec: Path | None = None
    """Of earlier versions, read for one more release: `ranker.spec`."""
    model: str | None = None
    """Causal LM that the first warm start begins from; None: a small decoder from scratch."""
    seed: int = Field(default=0, ge=0)
    """The one seed."""
    refresh: RefreshConfig = RefreshConfig()
    """Before training."""
    recovery: RecoveryConfig = RecoveryConfig()
    """After a REJECT."""
    rollout: RolloutConfig = RolloutConfig()
    """Who gets a promoted champion, and when it is rolled back."""
    privacy: PrivacyConfig = PrivacyConfig()
    """Sealed logs, and how long what was mined is kept."""
    margins: Path | None = None
    """Frozen margins, as `corewrite gate calibrate` wrote them; None: those of `pipeline.gate`."""
    frozen_queries: int = Field(default=1_000, ge=40)
    """Searches of the frozen set, at most."""
    pipeline: PipelineConfig = Field(default_factory=PipelineConfig)
    """Warm start, training, gate."""

    @property
    def gate(self) -> GateConfig:
        """Settings of the gate, under the frozen margins where there are any.

        Raises:
            ValueError: the margins file was changed since it was frozen.
            OSError: it cannot be read.
        """
        gate = self.pipeline.gate
        return gate if self.margins is None else gate.model_copy(update={"margins": load_margins(self.margins)})

    @model_validator(mode="after")
    def _remembers_enough(self) -> "CycleConfig":
        keep, read = self.privacy.retention_weeks, 1 + self.refresh.relevance_windows
        if keep is not None and keep < read:
            raise ValueError(
                f"privacy.retention_weeks {keep} is less than the {read} weeks that a cycle reads: keep {read}, or lower "
                "refresh.relevance_windows"
            )
        return self

    @model_validator(mode="after")
    def _apart(self) -> "CycleConfig":
        # Resolved: neither `..` nor a link leads it back.
        if any(self.frozen.resolve().is_relative_to(folder.resolve()) for folder in (self.run, self.logs)):
            raise ValueError(f"frozen {self.frozen} lies in a folder that training reads: keep the evaluation set apart")
        return self
