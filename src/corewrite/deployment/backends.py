"""Relevance models and search engines that are not ours, by settings; nothing heavy is imported until one is opened.

What the registry's triple means then: policy and fusion spec as ever. The relevance artifact still embeds texts and
documents, so it is the signal `dense` and what recall by vectors goes by; the settings' model computes the signal `relevance`.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from corewrite.deployment.settings import (
    CrossEncoderRelevance,
    EmbeddedRelevance,
    EngineSettings,
    KServeRelevance,
    ModelSettings,
    OnnxRelevance,
    OpenSearchIndex,
    QdrantIndex,
    RelevanceSettings,
)
from corewrite.domain import Catalogue

if TYPE_CHECKING:
    from corewrite.fusion import FusionSpec
    from corewrite.relevance import DenseScorer, RelevanceScorer
    from corewrite.relevance.backends import CircuitBreaker
    from corewrite.search import Cascade
    from corewrite.search.engines import SearchEngine

_log = logging.getLogger(__name__)
_SAMPLE = 16
"""Documents whose vectors are compared with those an index holds."""
Secret = Callable[[str | None], str | None]
"""The value of an environment variable by its name; see `ServeConfig.secret`."""


class Backends:
    """What computes the signal `relevance`, and what recalls.

    Attributes:
        facts: What they are, for people and for the log: kind, pin, and the hash by which scores are cached.
        breaker: Before a model server; else None.
    """

    def __init__(
        self, relevance: RelevanceSettings, engine: EngineSettings, catalogue: Catalogue, secret: Secret = lambda name: None
    ) -> None:
        """Open what the settings name.

        Args:
            relevance: Of the model.
            engine: Of the search engine.
            catalogue: The documents.
            secret: Finds keys.

        Raises:
            ImportError: a package is missing; the message names the extra.
            FileNotFoundError: the model's folder is missing.
            ScorerMismatchError: the model is not the pinned one.
            ScoreError: its answer is no probability.
            ValueError: an environment variable is not set, or a setting does not fit the model.
        """
        self._catalogue, self._engine = catalogue, engine
        self.breaker: CircuitBreaker | None = None
        self._scorer = None if isinstance(relevance, EmbeddedRelevance) else self._open(relevance, secret)
        self._client = _client_of(engine, secret)
        told: dict[str, Any] = {"kind": relevance.kind}
        if not isinstance(relevance, EmbeddedRelevance):
            pin = relevance.version if isinstance(relevance, KServeRelevance) else relevance.pin
            told |= {"pin": pin, "hash": self._scorer.model_hash if self._scorer else ""}
        named = engine.model_dump(include={"kind", "collection", "index"})
        self.facts: dict[str, Any] = {"relevance": told, "engine": named}

    def cascade(self, hash: str, folder: Path, spec: "FusionSpec") -> "Cascade":
        """The cascade of a relevance artifact and a spec.

        Args:
            hash: Of the artifact.
            folder: Of the artifact.
            spec: The fusion spec.

        Raises:
            EngineError: the index does not hold the vectors of this artifact.
        """
        from corewrite.relevance import DenseScorer, LateInteraction
        from corewrite.search import Cascade, EmbeddedEngine, signals_of

        dense = DenseScorer(LateInteraction.load(folder).bind(self._catalogue))
        engine = EmbeddedEngine(self._catalogue, dense.document_vectors) if self._client is None else self._index(hash, dense)
        signals = signals_of(dense)
        if self._scorer is not None:
            signals["relevance"] = self._scorer
        return Cascade(self._catalogue, engine, signals, dense, spec)

    def _open(self, settings: ModelSettings, secret: Secret) -> "RelevanceScorer":
        from corewrite.relevance.backends import CircuitBreaker, NaNOnFailure, ScorerUnavailableError
        from corewrite.relevance.cache import CachedScorer

        scorer = _scorer_of(settings, self._catalogue, secret)
        if len(self._catalogue):
            try:
                # Before the first search, so that another model than the pinned one is told by a server that does not start.
                scorer.score([self._catalogue.titles[0]], np.zeros((1, 1), np.int64))
            except ScorerUnavailableError as error:
                _log.error("the relevance model does not answer yet, its version is checked when it does: %s", error)
        if isinstance(settings, KServeRelevance):
            self.breaker = CircuitBreaker(scorer)
            scorer = self.breaker
        return CachedScorer(NaNOnFailure(scorer), settings.cache)

    def _index(self, hash: str, dense: "DenseScorer") -> "SearchEngine":
        """The search engine's index, once it is known to hold the vectors that texts are compared with."""
        from corewrite.search.engines import EngineError, OpenSearchEngine, QdrantEngine

        settings = self._engine
        engine: SearchEngine
        if isinstance(settings, QdrantIndex):
            name = settings.collection.replace("{relevance}", hash[:12])
            engine = QdrantEngine(self._client, name, self._catalogue)
        else:
            assert isinstance(settings, OpenSearchIndex)
            name, fields = settings.index.replace("{relevance}", hash[:12]), (settings.text_field, settings.vector_field)
            engine = OpenSearchEngine(self._client, name, self._catalogue, text_field=fields[0], vector_field=fields[1])
        rows = np.unique(np.linspace(0, len(self._catalogue) - 1, _SAMPLE).astype(np.int64))
        vectors = dense.document_vectors[rows]
        # Along random directions two vectors agree only where they are the same; with themselves they also may by chance.
        along = np.random.default_rng(0).standard_normal((2, vectors.shape[1])).astype(np.float32)
        found, expected = engine.score(along, np.tile(rows, (2, 1))), along.astype(np.float64) @ vectors.T.astype(np.float64)
        wrong = rows[~(np.abs(found - expected) < 1e-3).all(0)]
        if len(wrong):
            raise EngineError(
                f"{settings.kind} {name!r} does not hold the vectors of relevance artifact {hash[:12]}, such as that of "
                f"document {self._catalogue.ids[wrong[0]]!r}: fill an index of its own, named by {{relevance}}, with them first"
            )
        return engine


def _scorer_of(settings: ModelSettings, catalogue: Catalogue, secret: Secret) -> "RelevanceScorer":
    from corewrite.relevance import backends

    if isinstance(settings, KServeRelevance):
        token = secret(settings.token_env)
        return backends.KServeScorer(
            catalogue, settings.url, settings.model, settings.version,
            calibration=None if settings.calibration is None else backends.Calibration(**settings.calibration.model_dump()),
            batch=settings.batch, timeout=settings.timeout_ms / 1000, retries=settings.retries, binary=settings.binary,
            text_input=settings.text_input, document_input=settings.document_input, output=settings.output,
            headers=None if token is None else {"Authorization": f"Bearer {token}"},
        )  # fmt: skip
    calibration = backends.Calibration(**settings.calibration.model_dump())
    folder, pin, batch = settings.folder, settings.pin, settings.batch
    if isinstance(settings, OnnxRelevance):
        return backends.OnnxScorer(
            catalogue, folder, pin, calibration, max_tokens=settings.max_tokens, batch=batch, threads=settings.threads
        )
    if isinstance(settings, CrossEncoderRelevance):
        return backends.CrossEncoderScorer(
            catalogue, folder, pin, calibration, max_tokens=settings.max_tokens, batch=batch, device=settings.device
        )
    encoder = backends.ClipEncoder(folder, pin, batch=batch, device=settings.device)
    return backends.ClipScorer(catalogue, encoder, catalogue.visual, calibration)


def _client_of(settings: EngineSettings, secret: Secret) -> Any:
    """A client of the search engine; None for the embedded one."""
    if isinstance(settings, QdrantIndex):
        try:
            from qdrant_client import QdrantClient
        except ImportError as error:
            raise ImportError(
                "a Qdrant collection is reached through qdrant-client: pip install 'corewrite[qdrant]'"
            ) from error
        key = secret(settings.api_key_env)
        return QdrantClient(url=settings.url, api_key=key, timeout=int(-(-settings.timeout_ms // 1000)))
    if isinstance(settings, OpenSearchIndex):
        try:
            from opensearchpy import OpenSearch
        except ImportError as error:
            raise ImportError("an index is reached through opensearch-py: pip install 'corewrite[opensearch]'") from error
        login = secret(settings.login_env)
        user = None if login is None else tuple(login.split(":", 1))
        return OpenSearch(settings.url, http_auth=user, timeout=settings.timeout_ms / 1000, max_retries=0)
    return None
