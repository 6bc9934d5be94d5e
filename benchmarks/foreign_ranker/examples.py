"""What the ranker learns from beside the log: words that lead to a document, and documents that do not belong to a text."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corewrite.domain import words

from .tokens import PAD, mistype

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Clozes:
    """Words that lead to a document of the catalogue, one element each.

    Attributes:
        texts: One to three words of the document.
        rows: Catalogue row, int64.
    """

    texts: Sequence[str]
    rows: IntArray


def catalogue_clozes(documents: Sequence[str], number: int, rng: np.random.Generator) -> Clozes:
    """What a catalogue teaches with no log (an inverse cloze task, Lee et al. 2019).

    A word is drawn by the inverse square root of its frequency; one in twenty is misspelt.
    """
    said = [list(dict.fromkeys(words(text))) for text in documents]
    counts = Counter(word for row in said for word in row)
    rarity = [np.array([counts[w] ** -0.5 for w in row]) for row in said]
    filled = np.flatnonzero([len(row) > 0 for row in said])
    rows = filled[rng.integers(0, len(filled), number)]
    texts = []
    for row in rows:
        size = min(len(said[row]), int(rng.integers(1, 4)))
        chosen = rng.choice(len(said[row]), size, replace=False, p=rarity[row] / rarity[row].sum())
        texts.append(" ".join(mistype(said[row][i], rng) if rng.random() < 0.05 else said[row][i] for i in chosen))
    return Clozes(texts, rows)


class Negatives:
    """Draws documents that a cascade would bring up and that do not belong to a text.

    A log says what became of the few documents that an earlier ranker put on top. What recall brings beyond them, this ranker
    has to put down by itself: documents with *some* words of the text, and documents whose picture is like it by chance.
    Random documents are too easy to teach either.
    """

    def __init__(self, documents: IntArray, pictures: Float32Array, rng: np.random.Generator) -> None:
        """Draw from `documents`, sub-words [documents, width] padded with `PAD`, and their `pictures` [documents, v]."""
        self._documents, self._rng = documents, rng
        self._pictures = pictures - pictures.mean(0)
        owner, column = np.nonzero(documents != PAD)
        ids = documents[owner, column]
        order = np.argsort(ids, kind="stable")
        self._holders = owner[order]
        self._first = np.searchsorted(ids[order], np.arange(ids.max(initial=0) + 2))
        # The best of so many draws looks alike; more draws, and it would be one that belongs.
        self._draws = int(np.clip(len(documents) // 80, 2, 256))

    def with_some_words(self, texts: IntArray) -> tuple[IntArray, BoolArray]:
        """A document for each of `texts`, sub-words [texts, width], that holds one of them but not all.

        Returns:
            Catalogue rows, int64 [texts], and whether the row is such a document.
        """
        said = texts != PAD
        at = (self._rng.random(len(texts)) * np.maximum(said.sum(1), 1)).astype(np.int64)
        chosen = np.minimum(texts[np.arange(len(texts)), at], len(self._first) - 2)
        first, end = self._first[chosen], self._first[chosen + 1]
        place = first + (self._rng.random(len(texts)) * (end - first)).astype(np.int64)
        rows = np.where(end > first, self._holders[np.minimum(place, len(self._holders) - 1)], 0)
        missing = said & ~self._holds(rows, texts)
        return rows, (end > first) & missing.any(1)

    def alike(self, texts: IntArray, looks: Float32Array) -> tuple[IntArray, BoolArray]:
        """A document for each of `texts` that holds none of its sub-words and looks like them.

        Args:
            texts: Sub-words, [texts, width].
            looks: What each sub-word looks like, [sub-words, v].

        Returns:
            As `with_some_words`.
        """
        shared = self._rng.integers(0, len(self._documents), 4 * self._draws)  # a batch shares the pictures it is held to
        likeness = looks[texts].sum(1) @ self._pictures[shared].T
        own = self._rng.random(likeness.shape) < 0.25
        rows = shared[np.where(own, likeness, -np.inf).argmax(1)]
        return rows, ~self._holds(rows, texts).any(1)

    def any_document(self, number: int) -> IntArray:
        """Catalogue rows by chance, int64 [number]."""
        return self._rng.integers(0, len(self._documents), number)

    def _holds(self, rows: IntArray, texts: IntArray) -> BoolArray:
        found = (self._documents[rows][:, None, :] == texts[:, :, None]).any(2)
        return np.asarray(found & (texts != PAD))
