"""Open what ranks: the one place that turns settings and relevance artifacts into a ranker, for every command."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from corewrite.deployment.fingerprint import Fingerprint, check_fingerprint, take_fingerprint
from corewrite.deployment.pins import PinnedRanker, load_pins
from corewrite.deployment.ranker import EMBEDDED_FACTS, Facts, Ranker, embedded_ranker
from corewrite.deployment.recall import RecallOpener
from corewrite.deployment.scorers import ColumnScorer, build_scorer
from corewrite.deployment.settings import (
    DEFAULT_SIGNALS,
    ColumnSignal,
    EmbeddedSignal,
    KServeSignal,
    LoggedSignal,
    ModelSettings,
    PluginSignal,
    PythonSignal,
    RankerSettings,
    SignalSettings,
)
from corewrite.domain import Documents, sha256_json
from corewrite.domain.documents import text_column
from corewrite.registry import RegistryError
from corewrite.relevance import DenseScorer, LateInteraction, RelevanceScorer
from corewrite.relevance.backends import CircuitBreaker, NaNOnFailure, ScorerUnavailableError, TimeLimited
from corewrite.relevance.cache import CachedScorer
from corewrite.remote import Patience
from corewrite.search.document_store import in_memory

_log = logging.getLogger(__name__)
_SIGNAL: TypeAdapter[SignalSettings] = TypeAdapter(SignalSettings)
_WEIGHTS = "model.safetensors"
_PLUGIN_BATCH, _PLUGIN_CACHE = 64, 500_000
_GRACE_SECONDS = 0.05
"""What a client gets beyond its own time-out to say itself why it failed."""
_CALL_SECONDS = 2.0
"""Of one call, where searches wait, of code whose settings say nothing of time."""
_CHECK_SECONDS = 30.0
"""Of a model's check at the start of a live service: a server that listens must not wait for one that does not answer."""


class RankerOpener:
    """Opens rankers over some documents; what the same model computes for several of them is computed, and kept, once.

    Args:
        settings: What ranks now.
        documents: The documents.
        live: Whether searches wait for it: a model that fails then costs its signal, never the search. Otherwise it is an
            error, so that a batch job calls again.
        settings_rank: Whether the settings rank under artifacts that pin no models, as `relevance` and `engine` of a server's
            settings of earlier versions did; otherwise such an artifact is the bundled model.

    Raises:
        ImportError: a client is not installed; the message names the extra.
        ValueError: an environment variable is not set.
    """

    def __init__(
        self, settings: RankerSettings, documents: Documents, *, live: bool = False, settings_rank: bool = False
    ) -> None:
        self.settings, self.documents = settings, documents
        self._live, self._settings_rank = live, settings_rank
        self._recall = RecallOpener(settings.recall, documents, live=live)
        self._scorers: dict[str, tuple[RelevanceScorer, CircuitBreaker | None]] = {}
        self._patiences: dict[tuple[str, float], Patience] = {}

    @property
    def stuck_seconds(self) -> float:
        """How long ago the oldest call began, of a backend in a live service, that was given up and still runs; else 0."""
        searched = [p for (_, seconds), p in self._patiences.items() if seconds < _CHECK_SECONDS]
        return max([p.stuck_seconds for p in (*searched, *self._recall.patiences)], default=0.0)

    @property
    def is_bundled(self) -> bool:
        """Whether a relevance artifact of the settings needs no pins: every signal is where the bundled model has it."""
        plain = RankerSettings()
        return all(
            name in DEFAULT_SIGNALS and one.identity == plain.signal(name).identity
            for name, one in self.settings.signals.items()
        )

    def build(self, model: LateInteraction | None) -> Ranker:
        """The ranker of the settings, with its models' fingerprints taken: what a new relevance artifact is made of.

        Args:
            model: The bundled model; None where the settings need none.

        Raises:
            ScorerUnavailableError: a model does not answer.
            ScorerMismatchError: a model is not the pinned one, or scores one pair in two ways.
            ScoreError: what it answers is no probability.
            FileNotFoundError, ImportError, ValueError: see `build_scorer`.
        """
        if self.is_bundled:
            return self._bundled(model, "")
        signals = self._named()
        prints = {name: self._fingerprint(name, one) for name, one in sorted(_foreign(signals).items())}
        pins = PinnedRanker(signals=_identities(signals), recall=self.settings.recall.identity, fingerprints=prints)
        return self._opened("", model, pins, signals)

    def open(self, hash: str, folder: Path, metadata: Mapping[str, Any]) -> Ranker:
        """The ranker of a relevance artifact.

        Args:
            hash: Of the artifact.
            folder: Of the artifact.
            metadata: Of the artifact: where models ran that the settings do not name any more.

        Raises:
            RegistryError: the manifest cannot be read, or nothing says where a model of it runs.
            ScorerUnavailableError: a model does not answer; in a live service it may answer later.
            ScorerMismatchError: another model answers.
            EngineError: an index does not hold the vectors of this artifact.
        """
        pins = load_pins(folder)
        model = LateInteraction.load(folder) if pins is None else load_embedder(folder)
        if pins is None:
            return self._opened(hash, model, None, self._named()) if self._settings_rank else self._bundled(model, hash)
        signals = {name: self._place(name, identity, metadata) for name, identity in pins.signals.items()}
        found = self._opened(hash, model, pins, signals)
        for name, one in _foreign(signals).items():
            if name not in pins.fingerprints:
                continue
            expected = pins.fingerprints[name]
            try:
                scorer = build_scorer(one, self.documents, live=False, batch=expected.batch)
                check_fingerprint(name, expected, self.documents, self._in_time(scorer, name, _CHECK_SECONDS))
            except ScorerUnavailableError as error:
                if not self._live:
                    raise
                _log.error("signal %r: its model does not answer yet and could not be checked: %s", name, error)
        return found

    def is_current(self, folder: Path) -> bool:
        """Whether a relevance artifact pins the very models that the settings name."""
        pins = load_pins(folder)
        if pins is None:
            return self.is_bundled
        named = PinnedRanker(signals=_identities(self._named()), recall=self.settings.recall.identity)
        return sha256_json(named.identity) == sha256_json(pins.identity)

    def try_models(self) -> None:
        """Score one pair by each model that the settings name, so that a wrong one is reported before the first search.

        Raises:
            ScorerMismatchError: a model is not the pinned one.
            ScoreError: what it answers is no probability.
            FileNotFoundError, ImportError, ValueError: see `build_scorer`.
        """
        for name, one in _foreign(self._named()).items():
            scorer = self._in_time(build_scorer(one, self.documents, live=self._live), name, _CHECK_SECONDS)
            if not len(self.documents):
                continue
            title = text_column(self.documents, "title", np.zeros(1, np.int64))
            try:
                scorer.score(title, np.zeros((1, 1), np.int64))
            except ScorerUnavailableError as error:
                _log.error("signal %r: its model does not answer yet, its version is checked when it does: %s", name, error)

    def _named(self) -> dict[str, SignalSettings]:
        """Every signal of the settings, and those that have a default."""
        return {name: self.settings.signal(name) for name in {*self.settings.signals, "relevance", "dense"}}

    def _fingerprint(self, name: str, settings: ModelSettings) -> Fingerprint:
        def build(batch: int) -> RelevanceScorer:
            return build_scorer(settings, self.documents, live=False, batch=batch)

        batch = _PLUGIN_BATCH if isinstance(settings, PluginSignal) else settings.batch
        return take_fingerprint(name, self.documents, build, batch)

    def _bundled(self, model: LateInteraction | None, hash: str) -> Ranker:
        if model is None:
            raise ValueError("the bundled model computes a signal of the settings, and there is none")
        if self.settings.recall.kind == "embedded":
            return embedded_ranker(in_memory(self.documents), model)
        return self._opened(hash, model, None, {"relevance": EmbeddedSignal(), "dense": EmbeddedSignal()})

    def _place(self, name: str, identity: Mapping[str, Any], metadata: Mapping[str, Any]) -> SignalSettings:
        """Settings of a pinned model: the present ones where they mean it, else those it was accepted under."""
        asked: list[Any] = [self.settings.signals.get(name)]
        kept = metadata.get("signals")
        if isinstance(kept, Mapping) and name in kept:
            asked.append(kept[name])
        if identity.get("kind") in ("embedded", "column", "logged"):
            asked.append(dict(identity))  # says all there is to say
        for one in asked:
            try:
                settings = None if one is None else _SIGNAL.validate_python(one)
            except ValidationError as error:
                raise RegistryError(f"signal {name!r}: the artifact's metadata cannot be read: {error}") from error
            if settings is not None and sha256_json(settings.identity) == sha256_json(dict(identity)):
                return settings
        raise RegistryError(
            f"signal {name!r}: nothing says where {_shown(identity)} runs: name it under ranker.signals.{name}, as it was when "
            "it was accepted"
        )

    def _opened(
        self, hash: str, model: LateInteraction | None, pins: PinnedRanker | None, settings: Mapping[str, SignalSettings]
    ) -> Ranker:
        dense = None if model is None else DenseScorer(model.bind(in_memory(self.documents)))
        signals: dict[str, RelevanceScorer] = {}
        breakers: dict[str, CircuitBreaker] = {}
        for name, one in settings.items():
            if isinstance(one, LoggedSignal):
                continue  # nothing computes it: a spec that ranks by it cannot be opened, only replayed
            if isinstance(one, EmbeddedSignal):
                if dense is not None:
                    pooled = (one.form or ("pooled" if name == "dense" else "full")) == "pooled"
                    signals[name] = dense if pooled else dense.full
            elif isinstance(one, ColumnSignal):
                signals[name] = ColumnScorer(self.documents, one.column)
            else:
                batch = None if pins is None or name not in pins.fingerprints else pins.fingerprints[name].batch
                signals[name], breaker = self._scorer(name, one, batch)
                if breaker is not None:
                    breakers[name] = breaker
        by_vectors = dense if self.settings.recall.by_vectors else None
        foreign = _foreign(settings)
        return Ranker(
            self.documents,
            signals,
            lambda: self._recall.open(hash, by_vectors),
            embedder=model,
            dense=by_vectors,
            pins=pins,
            facts=self._facts(foreign, signals),
            breakers=breakers,
            places={name: one.model_dump(mode="json", by_alias=True) for name, one in foreign.items()},
        )

    def _scorer(self, name: str, settings: ModelSettings, batch: int | None) -> tuple[RelevanceScorer, CircuitBreaker | None]:
        key = sha256_json([settings.model_dump(mode="json", by_alias=True), batch])
        if key not in self._scorers:
            scorer, breaker = build_scorer(settings, self.documents, live=self._live, batch=batch), None
            if self._live and isinstance(settings, KServeSignal | PythonSignal | PluginSignal):
                seconds = _CALL_SECONDS
                if isinstance(settings, KServeSignal):
                    seconds = settings.timeout_ms / 1000 + _GRACE_SECONDS
                scorer = breaker = CircuitBreaker(self._in_time(scorer, name, seconds))
            size = _PLUGIN_CACHE if isinstance(settings, PluginSignal) else settings.cache
            self._scorers[key] = CachedScorer(NaNOnFailure(scorer, live=self._live), size), breaker
        return self._scorers[key]

    def _in_time(self, scorer: RelevanceScorer, name: str, seconds: float) -> RelevanceScorer:
        """The scorer, in a live service within a limit of time."""
        if not self._live:
            return scorer
        # One for all openings: a retry must not lose another thread to a model that hangs.
        patience = self._patiences.setdefault((name, seconds), Patience(f"the model of signal {name!r}", seconds))
        return TimeLimited(scorer, patience)

    def _facts(self, foreign: Mapping[str, ModelSettings], signals: Mapping[str, RelevanceScorer]) -> Facts:
        by_signal: dict[str, Facts] = {
            name: {"kind": one.kind, "pin": _pin(one), "hash": signals[name].model_hash}
            for name, one in sorted(foreign.items())
        }
        named = self.settings.recall.model_dump(mode="json", include={"kind", "collection", "index"})
        facts: Facts = {**EMBEDDED_FACTS, "engine": named}
        if "relevance" in by_signal:
            facts["relevance"] = by_signal.pop("relevance")
        return {**facts, "signals": by_signal} if by_signal else facts


def load_embedder(folder: Path) -> LateInteraction | None:
    """The bundled model of a relevance artifact; None where it holds pins alone."""
    return LateInteraction.load(folder) if (folder / _WEIGHTS).is_file() else None


def _foreign(signals: Mapping[str, SignalSettings]) -> dict[str, ModelSettings]:
    """Those that a model computes that is not ours."""
    return {name: one for name, one in signals.items() if not isinstance(one, EmbeddedSignal | ColumnSignal | LoggedSignal)}


def _identities(signals: Mapping[str, SignalSettings]) -> dict[str, dict[str, Any]]:
    return {name: one.identity for name, one in sorted(signals.items())}


def _pin(settings: ModelSettings) -> str:
    return settings.version if isinstance(settings, KServeSignal | PythonSignal | PluginSignal) else settings.pin


def _shown(identity: Mapping[str, Any]) -> str:
    named = [str(identity[k]) for k in ("kind", "model", "factory", "version", "pin") if identity.get(k)]
    return " ".join(named)[:120]
