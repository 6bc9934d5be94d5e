"""What brings candidates: a class for each kind of search engine."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, Tag, model_validator

from corewrite.deployment.settings.kinds import RECALL_KINDS, Identity, Timeout, by_kind
from corewrite.domain import PluginSettings, Settings
from corewrite.domain.plugins import ENGINES, FactoryName, known_kind


class _FilledIndex(Settings):
    """An index with words and with vectors of the bundled model."""

    if TYPE_CHECKING:  # the fields are those of each kind, with what they mean there
        kind: str

    @property
    def by_vectors(self) -> bool:
        """Whether it searches vectors of the bundled model beside words."""
        return True

    @property
    def identity(self) -> Identity:
        """What kind of recall this is: an index goes by another name whenever it is filled anew."""
        return {"kind": self.kind}


class _FieldIndex(Settings):
    """An index recalled by a field of words and, where there is one, a field of vectors."""

    if TYPE_CHECKING:  # the fields are those of each kind, with what they mean there
        kind: str
        text_field: str
        vector_field: str | None

    @property
    def by_vectors(self) -> bool:
        """Whether it searches vectors of the bundled model beside words."""
        return self.vector_field is not None

    @property
    def identity(self) -> Identity:
        """What kind of recall this is: an index goes by another name whenever it is filled anew."""
        return {"kind": self.kind, "fields": [self.text_field, self.vector_field]}


class _OwnEngine(Settings):
    """An engine that is not ours: all its settings say which it is."""

    @property
    def by_vectors(self) -> bool:
        """Whether it searches vectors of the bundled model beside words."""
        return False

    @property
    def identity(self) -> Identity:
        """Which engine this is."""
        return self.model_dump(mode="json")


class EmbeddedRecall(_FilledIndex):
    """The indexes in the process: words and vectors, over the documents in memory."""

    kind: Literal["embedded"] = "embedded"
    """The default."""


class QdrantRecall(_FilledIndex):
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


class OpenSearchRecall(_FieldIndex):
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


class RedisRecall(_FieldIndex):
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


class PythonRecall(_OwnEngine):
    """An engine of your own, made by a function of your own."""

    kind: Literal["python"]
    """Runs the code that `factory` names."""
    factory: FactoryName
    """`package.module:function`, called with the documents and the options; gives a `TextEngine` (see `corewrite.search`)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the function."""


class PluginRecall(_OwnEngine, PluginSettings):
    """A kind that an installed package brings (entry point `corewrite.engines`): its name, and its own options."""

    kind: str = Field(min_length=1)
    """Name of the entry point; what it names is called with the documents and all other settings here."""

    @model_validator(mode="before")
    @classmethod
    def _installed(cls, value: Any) -> Any:
        return known_kind(ENGINES, RECALL_KINDS, value)


RecallSettings = Annotated[
    Annotated[EmbeddedRecall, Tag("embedded")]
    | Annotated[QdrantRecall, Tag("qdrant")]
    | Annotated[OpenSearchRecall, Tag("opensearch")]
    | Annotated[RedisRecall, Tag("redis")]
    | Annotated[PythonRecall, Tag("python")]
    | Annotated[PluginRecall, Tag("plugin")],
    by_kind(*RECALL_KINDS),
]
