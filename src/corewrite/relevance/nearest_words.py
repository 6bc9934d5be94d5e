"""Words that no document holds, read as the known word whose letters are most alike: slips of the keyboard, mostly.

The judge's own way, by letters and without counts: it must not make the mistakes of the ranker's `SpellingCorrector`.
"""

from collections.abc import Sequence

import numpy as np

from corewrite.domain import words
from corewrite.domain.extras import from_extra

_ALIKE = 0.45
"""Least cosine similarity of letter bigrams and trigrams at which a word is taken for another."""


class NearestWords:
    """Reads unknown words as known ones.

    Args:
        known: The known words.
    """

    def __init__(self, known: Sequence[str]) -> None:
        with from_extra("train", "words are compared by scikit-learn"):
            from sklearn.feature_extraction.text import TfidfVectorizer

        self._known, self._places = list(known), frozenset(known)
        self._index = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 3), sublinear_tf=True)
        self._letters = self._index.fit_transform(self._known)
        self._read: dict[str, str] = {}

    def read(self, text: str) -> str:
        """The text, normalised, with each unknown word replaced where a known one is alike enough."""
        return " ".join(word if word in self._places else self._nearest(word) for word in words(text))

    def _nearest(self, word: str) -> str:
        if word not in self._read:
            alike = (self._letters @ self._index.transform([word]).T).toarray().ravel()
            best = int(np.argmax(alike))
            self._read[word] = self._known[best] if alike[best] > _ALIKE else word
        return self._read[word]
