"""The embedded engine behind the port."""

from collections.abc import Sequence

import numpy as np

from corewrite.domain import Catalogue
from corewrite.search.engines.exact import exact_scores
from corewrite.search.engines.port import Float32Array, FloatArray, IntArray
from corewrite.search.index import EmbeddedEngine


class EmbeddedPort:
    """tantivy and faiss in memory (a `SearchEngine`); its search by vector is exact too.

    Args:
        catalogue: The documents.
        vectors: Their vectors, float32 [documents, dims].
    """

    def __init__(self, catalogue: Catalogue, vectors: Float32Array) -> None:
        self._engine = EmbeddedEngine(catalogue, vectors)
        self._vectors = vectors

    def search_text(self, texts: Sequence[str], k: int) -> IntArray:
        """See `SearchEngine.search_text`."""
        out = np.full((len(texts), max(0, k)), -1, np.int64)
        for i, text in enumerate(texts):
            rows = self._engine.search_text(text, k)
            out[i, : len(rows)] = rows
        return out

    def search_vector(self, vectors: Float32Array, k: int) -> IntArray:
        """See `SearchEngine.search_vector`."""
        found = self._engine.search_vector(vectors, k)
        return np.where(np.any(vectors, 1)[:, None], found, -1)

    def score(self, vectors: Float32Array, rows: IntArray) -> FloatArray:
        """See `SearchEngine.score`."""
        return exact_scores(vectors, rows, len(self._vectors), lambda wanted: {row: self._vectors[row] for row in wanted})
