"""What computes the signals of a spec and what recalls, opened over the documents: it ranks, rewards, probes and gates."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from corewrite.deployment.pins import PinnedRanker
from corewrite.domain import Catalogue, Documents, sha256_json
from corewrite.fusion import FusionSpec
from corewrite.registry import JSON
from corewrite.relevance import DenseScorer, LateInteraction, RelevanceScorer
from corewrite.relevance.backends import CircuitBreaker
from corewrite.search import EmbeddedEngine, SearchEngine, TextEngine, build_signals

Facts = dict[str, Any]
"""JSON for people and for the log: kind, pin, and the hash by which scores are cached."""
EMBEDDED_FACTS: Facts = {"relevance": {"kind": "embedded"}, "engine": {"kind": "embedded"}}


@dataclass(frozen=True, eq=False)
class Ranker:
    """Signals and recall over some documents.

    Attributes:
        documents: What the rows mean.
        signals: What computes each signal, by its name.
        open_engine: Opens recall, when it is first asked.
        embedder: The bundled model, where it computes a signal or embeds for recall.
        pins: Which models the others are; None: there is the bundled one alone.
        facts: What ranks, for people and for the log.
        breakers: Before model servers, by signal, in a live service.
        places: Settings of the models that are not ours, by signal: where an artifact says they run.
    """

    documents: Documents
    signals: Mapping[str, RelevanceScorer]
    open_engine: Callable[[], SearchEngine | TextEngine]
    embedder: LateInteraction | None
    dense: DenseScorer | None
    pins: PinnedRanker | None = None
    facts: Facts = field(default_factory=lambda: EMBEDDED_FACTS)
    breakers: Mapping[str, CircuitBreaker] = field(default_factory=dict)
    places: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def engine(self) -> SearchEngine | TextEngine:
        """Recall."""
        return self.open_engine()

    @cached_property
    def model_hash(self) -> str:
        """Content hash of all that scores: that of the bundled model's weights where there is no other."""
        bundled = "" if self.embedder is None else self.embedder.model_hash
        return bundled if self.pins is None else sha256_json([self.pins.identity, bundled])

    @property
    def spreads(self) -> tuple[tuple[str, float], ...]:
        """How far two batchings of a model differ, in probability, by signal."""
        return () if self.pins is None else tuple((name, f.spread) for name, f in self.pins.fingerprints.items())

    @property
    def about(self) -> dict[str, JSON]:
        """Metadata of its relevance artifact: hash, where the models run, and which they are."""
        found: dict[str, JSON] = {"model_hash": self.model_hash}
        if self.pins is not None:
            found |= {"signals": dict(self.places), "pins": sha256_json(self.pins.identity)}
        return found

    def state(self) -> Facts:
        """The facts, and whether model servers answer at present."""
        found = dict(self.facts)
        if "relevance" in self.breakers:
            found["relevance"] = {**found["relevance"], "answers": not self.breakers["relevance"].is_open}
        others = {name: b for name, b in self.breakers.items() if name != "relevance"}
        if others:
            found["signals"] = {
                name: {**signal, "answers": not others[name].is_open} if name in others else signal
                for name, signal in found["signals"].items()
            }
        return found

    def save(self, folder: Path) -> None:
        """Write the content of its relevance artifact: the bundled model's weights, and the pins of the others."""
        if self.embedder is not None:
            self.embedder.save(folder)
        if self.pins is not None:
            self.pins.save(folder)

    def missing_signals(self, spec: FusionSpec) -> list[str]:
        """Signals of a spec that nothing here computes."""
        wanted = {name for stage in spec.stages.values() for name in stage.signals}
        return sorted(wanted - {*self.signals, "prior"})


def embedded_ranker(documents: Catalogue, model: LateInteraction) -> Ranker:
    """The bundled model and the indexes in the process.

    Args:
        documents: The documents, in memory.
        model: Computes `relevance`, `dense`, and what recall by vectors goes by.

    Raises:
        ValueError: the documents' pictures have another number of dimensions than the model's.
    """
    dense = DenseScorer(model.bind(documents))
    return Ranker(
        documents,
        build_signals(dense),
        lambda: EmbeddedEngine(documents, dense.document_vectors, model.correct),
        embedder=model,
        dense=dense,
    )
