"""Whether two texts ask for the same, by what the engine answers to them."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from corewrite.search.cascade import Cascade

FloatArray = npt.NDArray[np.float64]


def top_overlap(cascade: Cascade, depth: int = 50) -> Callable[[Sequence[tuple[str, str]]], FloatArray]:
    """Share of the top `depth` under the original-only ranking that two texts have in common.

    Returns:
        A function from pairs of texts to overlaps in [0, 1], float64 [pairs]; 0 where a text finds nothing.
    """

    def overlap(pairs: Sequence[tuple[str, str]]) -> FloatArray:
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        rows = cascade.search(texts, [None] * len(texts), depth).rows
        found = {text: set(row[row >= 0].tolist()) for text, row in zip(texts, rows, strict=True)}
        return np.array([len(found[a] & found[b]) / max(1, min(len(found[a]), len(found[b]))) for a, b in pairs])

    return overlap
