"""Settings of relevance models and search engines that are not ours; imports nothing heavy."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from corewrite.domain import Settings

Batch = Annotated[int, Field(ge=1, le=4096)]
Timeout = Annotated[float, Field(gt=0, le=60_000)]
"""Milliseconds."""


class CalibrationSettings(Settings):
    """From a model's number x to a probability: sigmoid(slope x + offset)."""

    slope: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Above 0."""
    offset: float = Field(default=0.0, allow_inf_nan=False)
    """Any number."""


class EmbeddedRelevance(Settings):
    """The registry's relevance artifact."""

    kind: Literal["embedded"] = "embedded"
    """The default."""


class _Model(Settings):
    cache: int = Field(default=500_000, ge=0)
    """Scores kept by each worker, about 100 bytes each."""


class KServeRelevance(_Model):
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
    """Of one scoring, all its requests and tries; every search may wait that long."""
    retries: int = Field(default=1, ge=0, le=10)
    """Further tries of a request."""
    batch: Batch = 64
    """Pairs in one request at most."""
    binary: bool = False
    """Whether tensors go as raw bytes."""
    text_input: str = "text"
    """Name of a tensor."""
    document_input: str = "document"
    """Name of a tensor."""
    output: str = "score"
    """Name of a tensor."""
    token_env: str | None = None
    """Environment variable with a bearer token."""


class _Folder(_Model):
    """A model in a folder here."""

    folder: Path
    """The model's files."""
    pin: str = Field(pattern=r"^[0-9a-f]{64}$")
    """`folder_hash` of the accepted model."""
    calibration: CalibrationSettings = CalibrationSettings()
    """Makes probabilities of what it says."""
    batch: Batch = 32
    """Pairs, or texts, at a time at most."""


class OnnxRelevance(_Folder):
    """A cross-encoder for ONNX Runtime."""

    kind: Literal["onnx"]
    """Needs the extra `onnx`."""
    max_tokens: int = Field(default=256, ge=2)
    """Longest pair, tokens."""
    threads: int = Field(default=1, ge=1)
    """Of one run."""


class CrossEncoderRelevance(_Folder):
    """A cross-encoder of sentence-transformers."""

    kind: Literal["cross_encoder"]
    """Needs the extra `cross-encoder`."""
    max_tokens: int = Field(default=256, ge=2)
    """Longest pair, tokens."""
    device: str = "cpu"
    """Where it runs, as torch names it."""


class ClipRelevance(_Folder):
    """A text-image model; the catalogue's pictures must be embeddings of this very model."""

    kind: Literal["clip"]
    """No extra is needed: pictures are embedded before."""
    device: str = "cpu"
    """Where it runs, as torch names it."""


class EmbeddedIndex(Settings):
    """The indexes in the process."""

    kind: Literal["embedded"] = "embedded"
    """The default."""


class QdrantIndex(Settings):
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


class OpenSearchIndex(Settings):
    """An OpenSearch index, such as `fill_opensearch` makes."""

    kind: Literal["opensearch"]
    """Needs the extra `opensearch`."""
    url: str
    """Where it listens, such as https://localhost:9200."""
    index: str = Field(min_length=1)
    """`{relevance}` in it stands for the first 12 digits of the relevance artifact's hash, whose vectors it holds."""
    text_field: str = "words"
    """A text field."""
    vector_field: str = "dense"
    """A `knn_vector` field by inner product."""
    timeout_ms: Timeout = 1_000.0
    """Of one request."""
    login_env: str | None = None
    """Environment variable with `user:password`."""


ModelSettings = KServeRelevance | OnnxRelevance | CrossEncoderRelevance | ClipRelevance
RelevanceSettings = Annotated[EmbeddedRelevance | ModelSettings, Field(discriminator="kind")]
EngineSettings = Annotated[EmbeddedIndex | QdrantIndex | OpenSearchIndex, Field(discriminator="kind")]
