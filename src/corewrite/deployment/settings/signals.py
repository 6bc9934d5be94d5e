"""Where a signal comes from: a class for each kind of model, column or scorer."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, Tag, field_validator, model_validator

from corewrite.deployment.settings.kinds import SIGNAL_KINDS, Identity, Timeout, by_kind
from corewrite.deployment.settings.model_inputs import CalibrationSettings, Inputs, InputSettings
from corewrite.domain import PluginSettings, Settings
from corewrite.domain.plugins import SIGNALS, FactoryName, known_kind

Batch = Annotated[int, Field(ge=1, le=4096)]


class _Signal(Settings):
    """What every kind of signal has."""

    @property
    def identity(self) -> Identity:
        """Which model this is: what a pin in the registry holds."""
        return self.model_dump(mode="json", by_alias=True, exclude=self._elsewhere)

    @property
    def _elsewhere(self) -> set[str]:
        """Fields that do not say which model it is."""
        return set()


class EmbeddedSignal(_Signal):
    """The bundled model, fitted on the log and kept in the registry."""

    kind: Literal["embedded"] = "embedded"
    """The default of `relevance` and `dense`."""
    form: Literal["full", "pooled"] | None = None
    """Word by word, or one vector a text and one a document; None: pooled for a signal named `dense`, else full."""


class ColumnSignal(_Signal):
    """A number of the document, whatever the text."""

    kind: Literal["column"]
    """The default of `prior`, with the column `prior`."""
    column: str = Field(min_length=1)
    """A column of numbers of the documents."""


class LoggedSignal(_Signal):
    """A number that production computed and logged. It can be verified by `corewrite replay`, never computed for a new rewrite:
    training refuses a spec whose rewrite factors use it."""

    kind: Literal["logged"]
    """Nothing is opened."""


class _Model(_Signal):
    cache: int = Field(default=500_000, ge=0)
    """Scores kept in memory by each process, about 100 bytes each."""
    batch: Batch = 64
    """Pairs in one call of the model at most."""
    inputs: Inputs = Field(default_factory=dict)
    """What the model's inputs are filled with, by their names."""

    @property
    def _elsewhere(self) -> set[str]:
        return {"cache", "batch"}


class KServeSignal(_Model):
    """A model server that speaks the Open Inference Protocol (KServe v2) over HTTP."""

    kind: Literal["kserve"]
    """Needs the extra `kserve`."""
    url: str
    """Where it listens, such as http://localhost:8000."""
    model: str = Field(min_length=1)
    """Its name there."""
    version: str = Field(min_length=1)
    """The pin: every answer must come from this version."""
    calibration: CalibrationSettings | None = None
    """Where it answers logits; None: probabilities."""
    timeout_ms: Timeout = 100.0
    """Of one scoring of a live search, all its requests and tries; every search may wait that long."""
    batch_timeout_ms: Timeout = 10_000.0
    """Of one request in training, gate and replay, all its tries."""
    retries: int = Field(default=1, ge=0, le=10)
    """Further tries of a request."""
    binary: bool = False
    """Whether tensors go as raw bytes."""
    inputs: Inputs = Field(default_factory=lambda: {name: InputSettings.model_validate(name) for name in ("text", "document")})
    """What its tensors are filled with, by their names."""
    output: str = "score"
    """Name of a tensor."""
    token_env: str | None = None
    """Environment variable with a bearer token."""

    @model_validator(mode="before")
    @classmethod
    def _older_names(cls, value: Any) -> Any:
        # The two tensors' names stood alone before signals had inputs.
        if isinstance(value, dict) and {"text_input", "document_input"} & value.keys():
            value = dict(value)
            names = value.pop("text_input", "text"), value.pop("document_input", "document")
            value.setdefault("inputs", {names[0]: "text", names[1]: "document"})
        return value

    @property
    def _elsewhere(self) -> set[str]:
        return super()._elsewhere | {"url", "timeout_ms", "batch_timeout_ms", "retries", "binary", "token_env"}


class _Folder(_Model):
    """A model in a folder here."""

    folder: Path
    """The model's files."""
    pin: str = Field(pattern=r"^(v2:)?[0-9a-f]{64}$")
    """`folder_hash` of the accepted model. One without `v2:` is of an earlier version: it leaves hidden files, `*.md` and
    `*.lock` out."""
    calibration: CalibrationSettings = CalibrationSettings()
    """Makes probabilities of what it says."""
    batch: Batch = 32
    """Pairs, or texts, at a time at most."""

    @property
    def _elsewhere(self) -> set[str]:
        return super()._elsewhere | {"folder", "threads", "device"}


class OnnxSignal(_Folder):
    """A cross-encoder for ONNX Runtime: `model.onnx`, `tokenizer.json` beside it."""

    kind: Literal["onnx"]
    """Needs the extra `onnx`."""
    max_tokens: int = Field(default=256, ge=2)
    """Longest pair of text and document, tokens."""
    threads: int = Field(default=1, ge=1)
    """Of one run."""
    inputs: Inputs = Field(default_factory=dict)
    """What its inputs besides the pair's tokens (`input_ids`, `attention_mask`, `token_type_ids`) are filled with."""


class CrossEncoderSignal(_Folder):
    """A cross-encoder of sentence-transformers."""

    kind: Literal["cross_encoder"]
    """Needs the extra `cross-encoder`."""
    max_tokens: int = Field(default=256, ge=2)
    """Longest pair, tokens."""
    device: str = "cpu"
    """Where it runs, as torch names it."""

    @field_validator("inputs")
    @classmethod
    def _pair_only(cls, inputs: Inputs) -> Inputs:
        if inputs:
            raise ValueError("a cross-encoder reads a pair of texts and nothing else: export it to ONNX for further inputs")
        return inputs


class ClipSignal(_Folder):
    """A text-image model; the documents' column `visual` must hold embeddings of this very model."""

    kind: Literal["clip"]
    """No extra is needed: pictures are embedded before."""
    device: str = "cpu"
    """Where it runs, as torch names it."""


class PythonSignal(_Model):
    """A scorer of your own, made by a function of your own."""

    kind: Literal["python"]
    """Runs the code that `factory` names."""
    factory: FactoryName
    """`package.module:function`. Without `inputs` it is called with the documents and the options and gives a
    `RelevanceScorer`; with `inputs`, with the options alone, and gives a function from the inputs of some pairs to as many
    numbers."""
    version: str = Field(min_length=1)
    """The pin: another version is another relevance model."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the function."""
    calibration: CalibrationSettings | None = None
    """With `inputs`, where the numbers are no probabilities."""


class PluginSignal(_Signal, PluginSettings):
    """A kind that an installed package brings (entry point `corewrite.signals`): its name, and its own options."""

    kind: str = Field(min_length=1)
    """Name of the entry point; what it names is called with the documents and all other settings here."""
    version: str = Field(min_length=1)
    """The pin: another version is another relevance model."""

    @model_validator(mode="before")
    @classmethod
    def _installed(cls, value: Any) -> Any:
        return known_kind(SIGNALS, SIGNAL_KINDS, value)


ModelSettings = KServeSignal | OnnxSignal | CrossEncoderSignal | ClipSignal | PythonSignal | PluginSignal
SignalSettings = Annotated[
    Annotated[EmbeddedSignal, Tag("embedded")]
    | Annotated[ColumnSignal, Tag("column")]
    | Annotated[LoggedSignal, Tag("logged")]
    | Annotated[KServeSignal, Tag("kserve")]
    | Annotated[OnnxSignal, Tag("onnx")]
    | Annotated[CrossEncoderSignal, Tag("cross_encoder")]
    | Annotated[ClipSignal, Tag("clip")]
    | Annotated[PythonSignal, Tag("python")]
    | Annotated[PluginSignal, Tag("plugin")],
    by_kind(*SIGNAL_KINDS),
]
