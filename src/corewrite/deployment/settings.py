"""Settings of what ranks: the fusion spec, where each of its signals comes from, and what recalls; imports nothing heavy."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from corewrite.domain import Settings
from corewrite.domain.plugins import ENGINES, SIGNALS, known_kind

Batch = Annotated[int, Field(ge=1, le=4096)]
Timeout = Annotated[float, Field(gt=0, le=60_000)]
"""Milliseconds."""
Identity = dict[str, Any]
"""JSON that says which model this is, and nothing of where it runs or how fast it is asked."""
SIGNAL_KINDS = ("embedded", "column", "logged", "kserve", "onnx", "cross_encoder", "clip", "python")
RECALL_KINDS = ("embedded", "qdrant", "opensearch", "redis", "python")
DEFAULT_SIGNALS = ("relevance", "dense", "prior")
"""Signals that need no setting: the bundled model's score, its pooled form, and the column `prior`."""


_kept: dict[str, str] = {}


def keep_secrets(names: Iterable[str]) -> None:
    """Take secrets out of the environment, which processes started from here would inherit; `load_secret` still has them."""
    for name in names:
        value = os.environ.pop(name, None)
        if value is not None:
            _kept[name] = value


def load_secret(name: str | None) -> str | None:
    """The value of an environment variable that a setting names; None where none is named.

    Raises:
        ValueError: it is not set, or empty, or blanks alone.
    """
    if name is None:
        return None
    value = os.environ.get(name, _kept.get(name))
    if value is None or not value.strip():
        raise ValueError(f"the environment variable {name}, which the settings name, is not set or empty")
    return value


class CalibrationSettings(Settings):
    """From a model's number x to a probability: sigmoid(slope x + offset)."""

    slope: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Above 0."""
    offset: float = Field(default=0.0, allow_inf_nan=False)
    """Any number."""


class InputSettings(Settings):
    """One input of a model, and what it is filled with. A plain text stands for `from` alone."""

    source: str = Field(alias="from", pattern=r"^(text|document|document\.[^\s#]+(#count)?)$")
    """`text`: the query or rewrite. `document`: title and text joined. `document.id`, or `document.COLUMN` for any column of
    the documents: text, number, vector, or list of vectors, which is padded with zeros; `document.COLUMN#count` is how many
    vectors each document has."""
    missing: float | None = Field(default=None, allow_inf_nan=False)
    """Stands where a document has no number or vector; None: such a document has no score."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"from": value} if isinstance(value, str) else value


Inputs = dict[str, InputSettings]


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
    factory: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """`package.module:function`. Without `inputs` it is called with the documents and the options and gives a
    `RelevanceScorer`; with `inputs`, with the options alone, and gives a function from the inputs of some pairs to as many
    numbers."""
    version: str = Field(min_length=1)
    """The pin: another version is another relevance model."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the function."""
    calibration: CalibrationSettings | None = None
    """With `inputs`, where the numbers are no probabilities."""


class PluginSignal(_Signal):
    """A kind that an installed package brings (entry point `corewrite.signals`): its name, and its own options."""

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: str = Field(min_length=1)
    """Name of the entry point; what it names is called with the documents and all other settings here."""
    version: str = Field(min_length=1)
    """The pin: another version is another relevance model."""

    @model_validator(mode="before")
    @classmethod
    def _installed(cls, value: Any) -> Any:
        return known_kind(SIGNALS, SIGNAL_KINDS, value)

    @property
    def options(self) -> dict[str, Any]:
        """The settings that are the plugin's own."""
        return dict(self.__pydantic_extra__ or {})


class EmbeddedRecall(Settings):
    """The indexes in the process: words and vectors, over the documents in memory."""

    kind: Literal["embedded"] = "embedded"
    """The default."""

    @property
    def by_vectors(self) -> bool:
        """Whether it searches vectors of the bundled model beside words."""
        return True

    @property
    def identity(self) -> Identity:
        """What kind of recall this is: an index goes by another name whenever it is filled anew."""
        return {"kind": self.kind}


class QdrantRecall(Settings):
    """A Qdrant collection, such as `fill_qdrant` makes."""

    kind: Literal["qdrant"]
    """Needs the extra `qdrant`."""
    url: str
    """Where it listens, such as http://localhost:6333."""
    collection: str = Field(min_length=1)
    """`{relevance}` in it stands for the first 12 digits of the relevance artifact's hash, whose vectors it holds."""
    timeout_ms: Timeout = 1_000.0
    """Of one request; rounded up to whole seconds."""
    api_key_env: str | None = None
    """Environment variable with the API key."""

    @property
    def by_vectors(self) -> bool:
        """Whether it searches vectors of the bundled model beside words."""
        return True

    @property
    def identity(self) -> Identity:
        """What kind of recall this is: an index goes by another name whenever it is filled anew."""
        return {"kind": self.kind}


class OpenSearchRecall(Settings):
    """An OpenSearch index, such as `fill_opensearch` makes, or one of yours."""

    kind: Literal["opensearch"]
    """Needs the extra `opensearch`."""
    url: str
    """Where it listens, such as https://localhost:9200."""
    index: str = Field(min_length=1)
    """`{relevance}` in it stands for the first 12 digits of the relevance artifact's hash, whose vectors it holds."""
    text_field: str = "words"
    """A text field."""
    vector_field: str | None = "dense"
    """A `knn_vector` field by inner product with the vectors of the bundled model; None: the index recalls by words alone."""
    timeout_ms: Timeout = 1_000.0
    """Of one request."""
    login_env: str | None = None
    """Environment variable with `user:password`."""

    @property
    def by_vectors(self) -> bool:
        """Whether it searches vectors of the bundled model beside words."""
        return self.vector_field is not None

    @property
    def identity(self) -> Identity:
        """What kind of recall this is: an index goes by another name whenever it is filled anew."""
        return {"kind": self.kind, "fields": [self.text_field, self.vector_field]}


class RedisRecall(Settings):
    """An index of the query engine of Redis 8 or Redis Stack over hashes, such as `fill_redis` makes, or one of yours."""

    kind: Literal["redis"]
    """Needs the extra `redis`."""
    url: str = Field(pattern=r"^(rediss?|unix)://")
    """Where it listens, such as redis://localhost:6379, or rediss://localhost:6379 over TLS."""
    index: str = Field(min_length=1)
    """`{relevance}` in it stands for the first 12 digits of the relevance artifact's hash, whose vectors it holds."""
    key_prefix: str | None = None
    """What a document's key begins with before its id, with the same `{relevance}`; None: the index' name and a colon."""
    text_field: str = Field(default="words", min_length=1)
    """A `TEXT` field, searched by words that are case-folded and not stemmed."""
    vector_field: str | None = Field(default="dense", min_length=1)
    """A `VECTOR` field of `FLOAT32` by inner product with the vectors of the bundled model; None: the index recalls by words
    alone."""
    timeout_ms: Timeout = 1_000.0
    """Of one search on the server, and of one wait for an answer."""
    login_env: str | None = None
    """Environment variable with `user:password`."""

    @property
    def by_vectors(self) -> bool:
        """Whether it searches vectors of the bundled model beside words."""
        return self.vector_field is not None

    @property
    def identity(self) -> Identity:
        """What kind of recall this is: an index goes by another name whenever it is filled anew."""
        return {"kind": self.kind, "fields": [self.text_field, self.vector_field]}


class PythonRecall(Settings):
    """An engine of your own, made by a function of your own."""

    kind: Literal["python"]
    """Runs the code that `factory` names."""
    factory: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """`package.module:function`, called with the documents and the options; gives a `TextEngine` (see `corewrite.search`)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the function."""

    @property
    def by_vectors(self) -> bool:
        """Whether it searches vectors of the bundled model beside words."""
        return False

    @property
    def identity(self) -> Identity:
        """Which engine this is."""
        return self.model_dump(mode="json")


class PluginRecall(Settings):
    """A kind that an installed package brings (entry point `corewrite.engines`): its name, and its own options."""

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: str = Field(min_length=1)
    """Name of the entry point; what it names is called with the documents and all other settings here."""

    @model_validator(mode="before")
    @classmethod
    def _installed(cls, value: Any) -> Any:
        return known_kind(ENGINES, RECALL_KINDS, value)

    @property
    def options(self) -> dict[str, Any]:
        """The settings that are the plugin's own."""
        return dict(self.__pydantic_extra__ or {})

    @property
    def by_vectors(self) -> bool:
        """Whether it searches vectors of the bundled model beside words."""
        return False

    @property
    def identity(self) -> Identity:
        """Which engine this is."""
        return self.model_dump(mode="json")


def _kind(*known: str) -> Discriminator:
    def tag(value: Any) -> str:
        kind = value.get("kind", "embedded") if isinstance(value, dict) else getattr(value, "kind", "embedded")
        return kind if kind in known else "plugin"

    return Discriminator(tag)


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
    _kind(*SIGNAL_KINDS),
]
RecallSettings = Annotated[
    Annotated[EmbeddedRecall, Tag("embedded")]
    | Annotated[QdrantRecall, Tag("qdrant")]
    | Annotated[OpenSearchRecall, Tag("opensearch")]
    | Annotated[RedisRecall, Tag("redis")]
    | Annotated[PythonRecall, Tag("python")]
    | Annotated[PluginRecall, Tag("plugin")],
    _kind(*RECALL_KINDS),
]


class RankerSettings(Settings):
    """What ranks in production, rewards in training and judges at the gate: one section for every command."""

    spec: Path | None = None
    """Fusion spec; None: the packaged one."""
    signals: dict[str, SignalSettings] = Field(default_factory=dict)
    """Where each signal of the spec comes from, by its name. `relevance`, `dense` and `prior` need not be named: the bundled
    model and the documents' column `prior`."""
    recall: RecallSettings = EmbeddedRecall()
    """What brings candidates."""

    def signal(self, name: str) -> "SignalSettings":
        """Where a signal comes from.

        Raises:
            ValueError: the settings do not say.
        """
        if name in self.signals:
            return self.signals[name]
        if name == "prior":
            return ColumnSignal(kind="column", column="prior")
        if name in DEFAULT_SIGNALS:
            return EmbeddedSignal()
        known = ", ".join(sorted({*DEFAULT_SIGNALS, *self.signals}))
        raise ValueError(
            f"nothing says where the signal {name!r} of the fusion spec comes from: add it to ranker.signals ({known} are "
            "known)"
        )

    @property
    def needs_embedder(self) -> bool:
        """Whether the bundled model, which is fitted on the log, computes a signal or embeds for recall."""
        return self.recall.by_vectors or "embedded" in self._kinds

    @property
    def needs_documents_in_memory(self) -> bool:
        """Whether something here holds all documents: what is embedded, and CLIP."""
        return self.needs_embedder or self.recall.kind == "embedded" or "clip" in self._kinds

    @property
    def _kinds(self) -> set[str]:
        return {self.signal(name).kind for name in {*self.signals, "relevance", "dense"}}


class RankerSection(Settings):
    """What a command reads of `corewrite.yaml` that needs nothing but the ranker."""

    ranker: RankerSettings = RankerSettings()
    """What ranks in production."""
