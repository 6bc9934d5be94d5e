"""The embedded cascade: the bundled relevance model and the in-process indexes over a catalogue."""

from corewrite.domain import Catalogue
from corewrite.fusion import FusionSpec
from corewrite.relevance import DenseScorer, LateInteraction
from corewrite.search.cascade import Cascade
from corewrite.search.index import EmbeddedEngine


def embedded_cascade(catalogue: Catalogue, model: LateInteraction, spec: FusionSpec) -> Cascade:
    """The cascade of a triple: `relevance` is the model's full score, `dense` its pooled one, which also recalls.

    Raises:
        ValueError: the catalogue's pictures do not fit the model, or the spec names a signal that nobody computes.
    """
    dense = DenseScorer(model.bind(catalogue))
    engine = EmbeddedEngine(catalogue, dense.document_vectors)
    return Cascade(catalogue, engine, {"relevance": dense.full, "dense": dense}, dense, spec)
