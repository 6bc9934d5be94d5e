"""What the cascade asks of a search engine at recall."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]


class EngineError(RuntimeError):
    """An engine that answered, but not whole: a partial answer would change the ranking without a trace."""


class EngineUnavailableError(OSError):
    """An engine that did not answer, or not in time."""


class TextEngine(Protocol):
    """Recall by words behind one port; a document is addressed by its row in the documents that the engine was opened with.

    Where an engine holds documents that those do not, they are left out of its answers.
    """

    def search_text(self, texts: Sequence[str], k: int) -> IntArray:
        """The best documents for the words of each text.

        Args:
            texts: Queries or rewrites.
            k: Documents of each at most.

        Returns:
            Catalogue rows, best first, int64 [texts, k]; -1 pads. Equal scores stand in the order of the rows; which of
            them are cut at k is the engine's choice. A text without words finds nothing.
        """
        ...


class SearchEngine(TextEngine, Protocol):
    """Recall by words and by vectors."""

    def search_vector(self, vectors: Float32Array, k: int) -> IntArray:
        """The documents whose vectors have the largest inner product with each vector, as far as the engine finds them.

        Args:
            vectors: Float32 [vectors, dims]; one that is all zero finds nothing.
            k: Documents of each at most.

        Returns:
            Catalogue rows, best first, int64 [vectors, k]; -1 pads.
        """
        ...

    def score(self, vectors: Float32Array, rows: IntArray) -> FloatArray:
        """The exact inner product of each vector with documents that were named, never a search among them.

        Args:
            vectors: Float32 [vectors, dims].
            rows: Catalogue rows under each, int64 [vectors, documents]; -1 pads.

        Returns:
            Float64 [vectors, documents], summed in double precision; 0.0 where `rows` is -1, NaN where the engine does not hold
            the document.
        """
        ...
