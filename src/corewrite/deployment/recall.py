"""From the settings of recall to the engine; clients are imported when one is opened."""

from typing import Any

import numpy as np

from corewrite.deployment.settings import (
    OpenSearchRecall,
    PluginRecall,
    PythonRecall,
    QdrantRecall,
    RecallSettings,
    RedisRecall,
    secret_of,
)
from corewrite.domain import Documents
from corewrite.domain.plugins import ENGINES, load_factory, load_plugin
from corewrite.relevance import DenseScorer
from corewrite.search import SearchEngine, TextEngine
from corewrite.search.document_store import in_memory
from corewrite.search.engines import EmbeddedEngine, EngineError, OpenSearchEngine, QdrantEngine, RedisEngine

_SAMPLE = 16
"""Documents whose vectors are compared with those an index holds."""


class RecallOpener:
    """Opens engines under one client.

    Args:
        settings: Of recall.
        documents: What the rows mean.

    Raises:
        ImportError: a client is not installed; the message names the extra.
        ValueError: an environment variable is not set, or a factory cannot be imported.
    """

    def __init__(self, settings: RecallSettings, documents: Documents) -> None:
        self._settings, self._documents = settings, documents
        self._client = _client_of(settings)

    def open(self, relevance: str, dense: DenseScorer | None) -> SearchEngine | TextEngine:
        """The engine beside a relevance artifact.

        Args:
            relevance: Hash of the artifact, empty for one that is not kept yet.
            dense: Embeds texts and documents; None: recall goes by words alone.

        Raises:
            EngineError: the index does not hold the vectors of this artifact.
            ValueError: the embedded engine has nothing to embed with.
        """
        settings = self._settings
        if isinstance(settings, PythonRecall):
            return load_factory(settings.factory)(self._documents, **settings.options)  # type: ignore[no-any-return]
        if isinstance(settings, PluginRecall):
            return load_plugin(ENGINES, settings.kind)(self._documents, **settings.options)  # type: ignore[no-any-return]
        if isinstance(settings, QdrantRecall):
            assert dense is not None
            name = settings.collection.replace("{relevance}", relevance[:12])
            return self._checked(QdrantEngine(self._client, name, self._documents), name, relevance, dense)
        if isinstance(settings, OpenSearchRecall):
            name = settings.index.replace("{relevance}", relevance[:12])
            field = settings.vector_field
            engine = OpenSearchEngine(
                self._client, name, self._documents, text_field=settings.text_field, vector_field=field or "dense"
            )
            return engine if field is None or dense is None else self._checked(engine, name, relevance, dense)
        if isinstance(settings, RedisRecall):
            name, prefix, field = settings.index, settings.key_prefix, settings.vector_field
            name = name.replace("{relevance}", relevance[:12])
            redis = RedisEngine(
                self._client, name, self._documents, text_field=settings.text_field, vector_field=field or "dense",
                key_prefix=None if prefix is None else prefix.replace("{relevance}", relevance[:12]),
                timeout_ms=settings.timeout_ms,
            )  # fmt: skip
            return redis if field is None or dense is None else self._checked(redis, name, relevance, dense)
        assert dense is not None
        return EmbeddedEngine(in_memory(self._documents), dense.document_vectors)

    def _checked(self, engine: SearchEngine, name: str, relevance: str, dense: DenseScorer) -> SearchEngine:
        """The engine, once its index is known to hold the vectors that texts are compared with."""
        rows = np.unique(np.linspace(0, len(self._documents) - 1, _SAMPLE).astype(np.int64))
        vectors = dense.document_vectors[rows]
        # Along random directions two vectors agree only where they are the same; with themselves they also may by chance.
        along = np.random.default_rng(0).standard_normal((2, vectors.shape[1])).astype(np.float32)
        found, expected = engine.score(along, np.tile(rows, (2, 1))), along.astype(np.float64) @ vectors.T.astype(np.float64)
        wrong = rows[~(np.abs(found - expected) < 1e-3).all(0)]
        if len(wrong):
            raise EngineError(
                f"{self._settings.kind} {name!r} does not hold the vectors of relevance artifact {relevance[:12]}, such as "
                f"that of document {self._documents.id_at(int(wrong[0]))!r}: fill an index of its own, named by {{relevance}}, "
                "with them first"
            )
        return engine


def _client_of(settings: RecallSettings) -> Any:
    """A client of the search engine; None where it needs none."""
    if isinstance(settings, QdrantRecall):
        try:
            from qdrant_client import QdrantClient
        except ImportError as error:
            raise ImportError(
                "a Qdrant collection is reached through qdrant-client: pip install 'corewrite[qdrant]'"
            ) from error
        key = secret_of(settings.api_key_env)
        return QdrantClient(url=settings.url, api_key=key, timeout=int(-(-settings.timeout_ms // 1000)))
    if isinstance(settings, OpenSearchRecall):
        try:
            from opensearchpy import OpenSearch
        except ImportError as error:
            raise ImportError("an index is reached through opensearch-py: pip install 'corewrite[opensearch]'") from error
        login = secret_of(settings.login_env)
        user = None if login is None else tuple(login.split(":", 1))
        return OpenSearch(settings.url, http_auth=user, timeout=settings.timeout_ms / 1000, max_retries=0)
    if isinstance(settings, RedisRecall):
        try:
            from redis import Redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise ImportError("a Redis index is reached through redis-py: pip install 'corewrite[redis]'") from error
        login = secret_of(settings.login_env)
        name, password = (None, None) if login is None else login.split(":", 1)
        seconds = settings.timeout_ms / 1000
        return Redis.from_url(
            settings.url, username=name, password=password, protocol=3, socket_timeout=seconds, socket_connect_timeout=seconds,
            retry=Retry(NoBackoff(), 0),  # by default it waits and asks three more times
        )  # fmt: skip
    return None
