"""From the settings of recall to the engine; clients are imported when one is opened."""

from typing import Any, cast

import numpy as np

from corewrite.deployment.settings import (
    OpenSearchRecall,
    PluginRecall,
    PythonRecall,
    QdrantRecall,
    RecallSettings,
    RedisRecall,
    load_secret,
)
from corewrite.domain import Documents
from corewrite.domain.extras import from_extra
from corewrite.domain.plugins import ENGINES, load_factory, load_plugin
from corewrite.relevance import DenseScorer
from corewrite.remote import Patience
from corewrite.remote.breaker import Breaker
from corewrite.search import SearchEngine, TextEngine
from corewrite.search.document_store import in_memory
from corewrite.search.engines import (
    EmbeddedEngine,
    EngineError,
    GuardedEngine,
    OpenSearchEngine,
    QdrantEngine,
    RedisEngine,
)

_SAMPLE = 16
"""Documents whose vectors are compared with those an index holds."""
_GRACE_SECONDS = 0.05
"""What a client gets beyond its own time-out to say itself why it failed."""
_CALL_SECONDS = 2.0
"""Of one call, where searches wait, of an engine whose settings say nothing of time."""


class RecallOpener:
    """Opens engines under one client.

    Args:
        settings: Of recall.
        documents: What the rows mean.
        live: Whether searches wait for it: then every call of an engine that is not ours ends in `timeout_ms` (2 s where it
            has no such setting), and one that fails is not asked for a while (circuit breaker).

    Raises:
        ImportError: a client is not installed; the message names the extra.
        ValueError: an environment variable is not set, or a factory cannot be imported.
    """

    def __init__(self, settings: RecallSettings, documents: Documents, *, live: bool = False) -> None:
        self._settings, self._documents, self._live = settings, documents, live
        self._client = _build_client(settings)
        self._guards: dict[str, tuple[Patience, Breaker]] = {}

    @property
    def patiences(self) -> list[Patience]:
        """Of the engines opened in a live service."""
        return [patience for patience, _ in self._guards.values()]

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
            own: TextEngine = load_factory(settings.factory)(self._documents, **settings.options)
            return self._guarded(own, settings.factory)
        if isinstance(settings, PluginRecall):
            plugin: TextEngine = load_plugin(ENGINES, settings.kind)(self._documents, **settings.options)
            return self._guarded(plugin, settings.kind)
        if isinstance(settings, QdrantRecall):
            assert dense is not None
            name = settings.collection.replace("{relevance}", relevance[:12])
            qdrant = self._guarded(QdrantEngine(self._client, name, self._documents), name)
            return self._checked(qdrant, name, relevance, dense)
        if isinstance(settings, OpenSearchRecall):
            name = settings.index.replace("{relevance}", relevance[:12])
            field = settings.vector_field
            opensearch = OpenSearchEngine(
                self._client, name, self._documents, text_field=settings.text_field, vector_field=field or "dense"
            )
            engine = self._guarded(opensearch, name)
            return engine if field is None or dense is None else self._checked(engine, name, relevance, dense)
        if isinstance(settings, RedisRecall):
            name, prefix, field = settings.index, settings.key_prefix, settings.vector_field
            name = name.replace("{relevance}", relevance[:12])
            redis = RedisEngine(
                self._client,
                name,
                self._documents,
                text_field=settings.text_field,
                vector_field=field or "dense",
                key_prefix=None if prefix is None else prefix.replace("{relevance}", relevance[:12]),
                timeout_ms=settings.timeout_ms,
            )
            found = self._guarded(redis, name)
            return found if field is None or dense is None else self._checked(found, name, relevance, dense)
        assert dense is not None
        return EmbeddedEngine(in_memory(self._documents), dense.document_vectors, dense.full.model.correct)

    def _guarded(self, engine: SearchEngine | TextEngine, name: str) -> SearchEngine:
        """The engine, in a live service within a limit of time."""
        if not self._live:
            return cast(SearchEngine, engine)  # as far as it is one
        what = f"{self._settings.kind} {name!r}"
        if what not in self._guards:  # one for all openings: a retry must not lose another thread to a server that hangs
            settings, seconds = self._settings, _CALL_SECONDS
            if isinstance(settings, QdrantRecall | OpenSearchRecall | RedisRecall):
                seconds = settings.timeout_ms / 1000 + _GRACE_SECONDS
            self._guards[what] = Patience(what, seconds), Breaker(what)
        patience, breaker = self._guards[what]
        return GuardedEngine(engine, len(self._documents), what, patience=patience, breaker=breaker)

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


def _build_client(settings: RecallSettings) -> Any:
    """A client of the search engine; None where it needs none."""
    if isinstance(settings, QdrantRecall):
        with from_extra("qdrant", "a Qdrant collection is reached through qdrant-client"):
            from qdrant_client import QdrantClient

            from corewrite.remote.http import BoundedTransport
        key = load_secret(settings.api_key_env)
        transport = BoundedTransport(settings.url)  # makes the time-out one of a whole request
        return QdrantClient(
            url=settings.url,
            api_key=key,
            timeout=int(-(-settings.timeout_ms // 1000)),
            transport=transport,
            check_compatibility=False,  # that asks the server, and the server may be down
        )
    if isinstance(settings, OpenSearchRecall):
        with from_extra("opensearch", "an index is reached through opensearch-py"):
            from opensearchpy import OpenSearch

            from corewrite.remote.opensearch import BoundedConnection
        login = load_secret(settings.login_env)
        user = None if login is None else tuple(login.split(":", 1))
        return OpenSearch(
            settings.url, http_auth=user, timeout=settings.timeout_ms / 1000, max_retries=0, connection_class=BoundedConnection
        )
    if isinstance(settings, RedisRecall):
        with from_extra("redis", "a Redis index is reached through redis-py"):
            from redis import Redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry

            from corewrite.remote.redis import bounded_connection
        login = load_secret(settings.login_env)
        name, password = (None, None) if login is None else login.split(":", 1)
        seconds = settings.timeout_ms / 1000
        return Redis.from_url(
            settings.url,
            username=name,
            password=password,
            protocol=3,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            retry=Retry(NoBackoff(), 0),  # by default it waits and asks three more times
            connection_class=bounded_connection(settings.url),
        )
    return None
