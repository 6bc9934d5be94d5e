"""The embedded cascade: the bundled relevance model and the in-process indexes over a catalogue."""

from corewrite.domain import Catalogue
from corewrite.fusion import FusionSpec
from corewrite.relevance import DenseScorer, RelevanceScorer
from corewrite.search.cascade import Cascade
from corewrite.search.engines import EmbeddedEngine


def build_signals(dense: DenseScorer) -> dict[str, RelevanceScorer]:
    """The signals of the bundled model by name: `relevance` is its full score, `dense` its pooled one."""
    return {"relevance": dense.full, "dense": dense}


def embedded_cascade(catalogue: Catalogue, dense: DenseScorer, spec: FusionSpec) -> Cascade:
    """The cascade of the bundled model, whose pooled form recalls too.

    Args:
        catalogue: The documents.
        dense: The model bound to them: `DenseScorer(model.bind(catalogue))`.
        spec: The fusion spec.

    Raises:
        ValueError: the spec names a signal that nothing computes.
    """
    return Cascade(
        catalogue,
        EmbeddedEngine(catalogue, dense.document_vectors, dense.full.model.correct),
        build_signals(dense),
        dense,
        spec,
    )
