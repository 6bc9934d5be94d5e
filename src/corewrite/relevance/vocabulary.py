"""Words of the catalogue and the log as integers."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from corewrite.domain import words

IntArray = npt.NDArray[np.int64]
UNKNOWN = 0
"""Index of every word outside the vocabulary, and of padding."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Known words, index 0 kept for unknown ones.

    Attributes:
        words: The words; `words[0]` is the empty string.
    """

    words: tuple[str, ...]

    @cached_property
    def index(self) -> dict[str, int]:
        """Index by word."""
        return {word: i for i, word in enumerate(self.words)}

    @classmethod
    def of(cls, texts: Iterable[str], minimum: int = 3, limit: int = 50_000) -> "Vocabulary":
        """Words that stand in at least `minimum` of `texts`, the most frequent `limit` of them."""
        counts = Counter(word for text in texts for word in set(words(text)))
        known = sorted((w for w, n in counts.items() if n >= minimum), key=lambda w: (-counts[w], w))
        return cls(("", *known[:limit]))

    def encode(self, texts: Sequence[str], width: int | None = None) -> IntArray:
        """Distinct known words of each text in order, int64 [texts, width], padded with 0 (unknown words vanish)."""
        rows = [list(dict.fromkeys(i for w in words(t) if (i := self.index.get(w, 0)))) for t in texts]
        width = width or max([1, *map(len, rows)])
        out = np.zeros((len(rows), width), np.int64)
        for i, row in enumerate(rows):
            out[i, : len(row)] = row[:width]
        return out

    def unknown(self, texts: Sequence[str]) -> IntArray:
        """Number of distinct unknown words of each text."""
        return np.array([len({w for w in words(t) if w not in self.index}) for t in texts], np.int64)
