"""Recall of your own: the documents whose titles share the rarest words with a text.

Put this file on PYTHONPATH and name it in corewrite.yaml; no bundled model is fitted where nothing else asks for it.

    ranker:
      recall: {kind: python, factory: own_engine:RareWords, options: {column: title}}

A package makes it a kind of its own by an entry point in the group `corewrite.engines`; see docs/how-to/plug-in.md.
"""

from collections import defaultdict

import numpy as np

from corewrite.domain import words


class RareWords:
    """A `corewrite.search.TextEngine`: called with the documents and the options."""

    def __init__(self, documents, column: str):
        self._rows = defaultdict(list)
        for row, text in enumerate(documents.column(column, np.arange(len(documents)))):
            for word in set(words(text)):
                self._rows[word].append(row)
        self._documents = len(documents)

    def search_text(self, texts, k: int):
        """Rows of the best documents, best first, int64 [texts, k]; -1 pads."""
        found = np.full((len(texts), k), -1, np.int64)
        for place, text in enumerate(texts):
            scores = defaultdict(float)
            for word in sorted(set(words(text))):
                for row in self._rows.get(word, ()):
                    scores[row] += np.log(1 + self._documents / len(self._rows[word]))
            best = sorted(scores, key=lambda row: (-scores[row], row))[:k]
            found[place, : len(best)] = best
        return found
