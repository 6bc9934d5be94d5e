"""Settings of the pipeline, from YAML or defaults."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Discriminator, Field, Tag, model_validator

from corewrite.cycle.template_settings import TemplateSettings
from corewrite.domain import PluginSettings, Settings
from corewrite.domain.filter_settings import FilterSettings
from corewrite.domain.plugins import JUDGES, SAMPLERS, FactoryName, known_kind
from corewrite.gate import GateConfig
from corewrite.rewriter import MAX_NEW_TOKENS, is_rewriter
from corewrite.training import TrackerName, TrainingConfig


class WarmStartConfig(Settings):
    """Supervised fine-tuning before MPO."""

    start: Literal["reformulations", "pairs", "none"] = "reformulations"
    """What the model is fine-tuned on before it meets the reward: `reformulations` and satisfied queries of the log; the
    `pairs` of a file; `none`: nothing, it samples as it is."""
    pairs: Path | None = None
    """Parquet of queries with their rewrites (docs/reference/files.md), of `start: pairs`."""
    examples: int = Field(default=170_000, ge=1)
    """Examples at most; a random share of each kind is left out beyond."""
    expanded_share: float = Field(default=0.5, ge=0, le=1)
    """Share of examples whose target goes on with words that most of its first results hold, where there are such words; 0: the
    policy never learns to add words that nobody typed."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the examples."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Peak, for a decoder trained from scratch."""
    learning_rate_pretrained: float = Field(default=1e-4, gt=0)
    """Peak, for a model given by path or name."""
    template: TemplateSettings = TemplateSettings()
    """How queries become prompts; of a model given by path or name."""

    @model_validator(mode="after")
    def _pairs_where_they_are_read(self) -> "WarmStartConfig":
        if self.start == "pairs" and self.pairs is None:
            raise ValueError("start: pairs needs `pairs`, the file of them")
        if self.start != "pairs" and self.pairs is not None:
            raise ValueError(f"pairs are not read with start: {self.start}: leave them out, or write start: pairs")
        return self

    def check(self, model: str | None) -> None:
        """Look at what a warm start needs of the model, before anything is done.

        Args:
            model: That it begins from; None: a small decoder.

        Raises:
            ValueError: a prompt template or no fine-tuning, and no model or none that could do without; or the template's file
                is too long.
            OSError: the file cannot be read.
        """
        template = self.template.load()
        if model is None and template is not None:
            raise ValueError("warm_start.template is for a `model` of yours, and none is named: name one, or leave it out")
        if self.start == "none":
            if model is None:
                raise ValueError(
                    "warm_start.start: none needs a `model`: a small decoder knows nothing before it is fine-tuned"
                )
            if self.template.kind == "reserved" and not is_rewriter(model):
                raise ValueError(
                    f"warm_start.start: none: {model} has never seen the tokens of a reserved prompt template: choose another "
                    "(warm_start.template.kind chat, few_shot or jinja), or fine-tune it"
                )


class ServerConfig(Settings):
    """An OpenAI-compatible server that samples for the training (see `corewrite.training.samplers.server`)."""

    kind: Literal["server"] = "server"
    """The default."""
    url: str
    """Where it listens, such as http://localhost:8000."""
    model_folder: Path
    """Where versions of the policy are written for it: a folder of this run's own, under the same path for both."""
    reload: Literal["weights", "adapter"] = "weights"
    """What a sync hands over; adapter needs `training.lora`."""
    log_prob_mismatch_limit: float = Field(
        default=0.25, gt=0, validation_alias=AliasChoices("log_prob_mismatch_limit", "drift_limit")
    )
    """Largest difference from the trainer's log-probabilities that rounding explains, nats per token."""


class PluginSampling(PluginSettings):
    """What samples for the training, of an installed package (entry point `corewrite.samplers`): its name, its own options."""

    kind: str = Field(min_length=1)
    """Name of the entry point; what it names is called with the policy and all other settings here, and gives a context manager
    of a `corewrite.training.SamplingEngine`."""

    @model_validator(mode="before")
    @classmethod
    def _installed(cls, value: Any) -> Any:
        return known_kind(SAMPLERS, ("server",), value)


class TreeJudgeConfig(Settings):
    """The bundled judge: gradient-boosted trees, fitted on the raters' labels."""

    kind: Literal["trees"] = "trees"
    """The default."""


class PythonJudgeConfig(Settings):
    """A judge of your own, made by a function of your own."""

    kind: Literal["python"]
    """Runs the code that `factory` names."""
    factory: FactoryName
    """`package.module:function`, called with the documents and the options; gives a `corewrite.relevance.Judge`."""
    options: dict[str, object] = Field(default_factory=dict)
    """Keyword arguments of the function."""


class PluginJudgeConfig(PluginSettings):
    """A judge of an installed package (entry point `corewrite.judges`): its name, and its own options."""

    kind: str = Field(min_length=1)
    """Name of the entry point; what it names is called with the documents and all other settings here."""

    @model_validator(mode="before")
    @classmethod
    def _installed(cls, value: Any) -> Any:
        return known_kind(JUDGES, ("trees", "python"), value)


def _tag(default: str, *known: str) -> Discriminator:
    def tag(value: Any) -> str:
        kind = value.get("kind", default) if isinstance(value, dict) else getattr(value, "kind", default)
        return kind if kind in known else "plugin"

    return Discriminator(tag)


SamplingConfig = Annotated[
    Annotated[ServerConfig, Tag("server")] | Annotated[PluginSampling, Tag("plugin")], _tag("server", "server")
]
JudgeConfig = Annotated[
    Annotated[TreeJudgeConfig, Tag("trees")]
    | Annotated[PythonJudgeConfig, Tag("python")]
    | Annotated[PluginJudgeConfig, Tag("plugin")],
    _tag("trees", "trees", "python"),
]


class PipelineConfig(Settings):
    """One weekly run."""

    warm_start: WarmStartConfig = WarmStartConfig()
    """Warm start."""
    training: TrainingConfig = TrainingConfig()
    """Semi-online MPO."""
    server: SamplingConfig | None = None
    """Sample on a server, or by an installed package; default: in this process."""
    judge: JudgeConfig = TreeJudgeConfig()
    """What grades results at the gate; training never sees it."""
    gate: GateConfig = Field(default_factory=GateConfig)
    """Promotion gate."""
    gate_queries: int = Field(default=4_000, ge=100)
    """Searches of gate users that the gate looks at, at most."""
    pairs_to_grade: int = Field(default=0, ge=0)
    """Pairs of a search and a document that raters grade before the gate decides, chosen where candidate, champion and no
    rewriter differ; 0: the gate hears the judge alone."""
    watched_queries: int = Field(default=1_000, ge=50)
    """Of those, the searches on which reward and judge are shown after each phase."""
    probe_instances: int = Field(default=1_000, ge=50)
    """Instances that the relevance model is probed on before training, at most."""
    max_new_tokens: int = Field(default=MAX_NEW_TOKENS, ge=2, le=64)
    """Length limit of a served rewrite, tokens."""
    filters: tuple[FilterSettings, ...] = ()
    """What a rewrite must never bring in."""
    trackers: tuple[TrackerName, ...] = ()
    """Where the metrics of a training are drawn while it runs."""
