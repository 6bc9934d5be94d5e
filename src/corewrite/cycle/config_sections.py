"""What `train` and the weekly cycle read of `corewrite.yaml`."""

from pathlib import Path

from pydantic import Field, ValidationError

from corewrite.cycle.candidate_config import JudgeConfig, PipelineConfig, SamplingConfig, TreeJudgeConfig, WarmStartConfig
from corewrite.cycle.config import CycleConfig, RecoveryConfig, RefreshConfig
from corewrite.deployment.settings import RankerSettings
from corewrite.domain import ConfigError, Settings
from corewrite.domain.config_file import read_config
from corewrite.domain.filter_settings import RewriterSection
from corewrite.experiment import RolloutConfig
from corewrite.gate import GateConfig
from corewrite.gate.margins_file import load_margins
from corewrite.logs.privacy import PrivacyConfig
from corewrite.training import TrackerName, TrainingConfig

_PLAIN = {name: field.default for name, field in PipelineConfig.model_fields.items()}  # no margin of the gate is looked up yet


class EvaluationConfig(Settings):
    """How many searches are looked at."""

    gate_queries: int = Field(default=_PLAIN["gate_queries"], ge=100)
    """Searches of gate users that the gate looks at, at most."""
    pairs_to_grade: int = Field(default=_PLAIN["pairs_to_grade"], ge=0)
    """Pairs of a search and a document that raters grade before the gate decides, chosen where candidate, champion and no
    rewriter differ; 0: the gate hears the judge alone. With some, a cycle stops before its gate until the labels hold half of
    them."""
    watched_queries: int = Field(default=_PLAIN["watched_queries"], ge=50)
    """Of those, the searches on which reward and judge are shown after each phase."""
    probe_instances: int = Field(default=_PLAIN["probe_instances"], ge=50)
    """Instances that the relevance model is probed on before training, at most."""
    frozen_queries: int = Field(default=1_000, ge=40)
    """Searches of the frozen set, at most."""


class TrainSections(Settings):
    """What one training needs."""

    ranker: RankerSettings = RankerSettings()
    """What ranks in production: fusion spec, signals, recall."""
    model: str | None = None
    """Causal LM that the warm start begins from; None: a small decoder from scratch."""
    seed: int = Field(default=0, ge=0)
    """The one seed."""
    max_new_tokens: int = Field(default=_PLAIN["max_new_tokens"], ge=2, le=64)
    """Length limit of a served rewrite, tokens."""
    rewriter: RewriterSection = RewriterSection()
    """What no rewrite may bring in."""
    warm_start: WarmStartConfig = WarmStartConfig()
    """Supervised fine-tuning before the first training."""
    training: TrainingConfig = TrainingConfig()
    """Semi-online MPO."""
    trackers: tuple[TrackerName, ...] = ()
    """Where the metrics of a training are drawn while it runs, any of `tensorboard`, `wandb` and `mlflow`; none: nowhere. Each
    has environment variables of its own that say where it sends to."""
    sampling: SamplingConfig | None = None
    """Sample on a server, or by an installed package; default: in this process."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How many searches gate, probe and frozen set take."""
    judge: JudgeConfig = TreeJudgeConfig()
    """What grades results at the gate; training never sees it."""
    gate: GateConfig = Field(default_factory=GateConfig)
    """Promotion gate."""

    @property
    def pipeline(self) -> PipelineConfig:
        """The same, as a run of the cycle's core takes it."""
        looked_at = self.evaluation.model_dump(exclude={"frozen_queries"})
        return PipelineConfig(
            warm_start=self.warm_start,
            training=self.training,
            server=self.sampling,
            judge=self.judge,
            gate=self.gate,
            max_new_tokens=self.max_new_tokens,
            filters=self.rewriter.filters,
            trackers=self.trackers,
            **looked_at,
        )


class DataSections(TrainSections):
    """What one training on a team's own files needs."""

    run: Path
    """Run folder: registry, mined weeks, trainings, cycles."""
    documents: Path
    """Parquet of documents, or a folder of them."""
    logs: Path | None = None
    """Folder of UBI logs: a week is a file or a folder of such; weeks sort by name. The newest gives the reward its
    instances."""
    labels: Path
    """Parquet of rated results: for the judge, which training never sees."""
    refresh: RefreshConfig = RefreshConfig()
    """How many weeks before it the relevance model is fitted on."""
    margins: Path | None = None
    """Frozen margins, as `corewrite gate calibrate` wrote them; None: those of `gate`."""
    privacy: PrivacyConfig = PrivacyConfig()
    """With which keys sealed texts are opened."""

    @property
    def pipeline(self) -> PipelineConfig:
        """The same, as a training takes it, the gate under the frozen margins where there are any.

        Raises:
            ValueError: the margins file cannot be read, or was changed since it was frozen.
        """
        found = super().pipeline
        if self.margins is None:
            return found
        return found.model_copy(update={"gate": found.gate.model_copy(update={"margins": load_margins(self.margins)})})


class CycleSections(TrainSections):
    """What the weekly cycle needs."""

    run: Path
    """Run folder: registry, mined weeks, cycles."""
    documents: Path
    """Parquet of documents, or a folder of them."""
    logs: Path
    """Folder of UBI logs: a week is a file or a folder of such; weeks sort by name."""
    labels: Path
    """Parquet of rated results: for the judge, which training never sees."""
    frozen: Path
    """Evaluation set that never changes, readable by the gate only; the first cycle writes it where there is none."""
    refresh: RefreshConfig = RefreshConfig()
    """Before training."""
    recovery: RecoveryConfig = RecoveryConfig()
    """After a REJECT."""
    rollout: RolloutConfig = RolloutConfig()
    """Who gets a promoted champion, and when it is rolled back."""
    privacy: PrivacyConfig = PrivacyConfig()
    """Sealed logs, and how long what was mined is kept."""
    margins: Path | None = None
    """Frozen margins, as `corewrite gate calibrate` wrote them; None: those of `gate`."""

    @property
    def cycle(self) -> CycleConfig:
        """The same, as the cycle takes it: in the form whose hash stands in the journals of all versions."""
        shared = {name: getattr(self, name) for name in CycleConfig.model_fields.keys() & CycleSections.model_fields.keys()}
        return CycleConfig(
            **{
                **shared,
                "ranker": self.ranker.model_copy(update={"spec": None}),
                "spec": self.ranker.spec,
                "frozen_queries": self.evaluation.frozen_queries,
                "pipeline": self.pipeline,
            }
        )


def load_train_config(path: Path | None, **given: object) -> TrainSections:
    """Read what one training needs; None gives the defaults.

    Raises:
        ConfigError: the file cannot be read or a setting is refused.
    """
    return read_config(path, TrainSections, **given)


def load_cycle_config(path: Path) -> CycleConfig:
    """Read what the weekly cycle needs of `corewrite.yaml`.

    Raises:
        ConfigError: the file cannot be read or a setting is refused; the message names file, setting, value and fix.
    """
    sections = read_config(path, CycleSections)
    try:
        return sections.cycle
    except ValidationError as error:
        problems = [f"{path}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()]
        raise ConfigError("\n".join(problems)) from error
