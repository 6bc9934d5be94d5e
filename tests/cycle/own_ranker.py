"""A team's own ranker, as `kind: python` names it: words and picture, with a version that is broken and one that is down."""

import numpy as np

from corewrite.domain import words
from corewrite.relevance.backends import ScorerUnavailableError

DOWN: set[str] = set()
"""Versions that do not answer."""
ASKED: dict[str, int] = {}
"""Pairs asked of each version."""


def words_and_picture(version: str):
    """From text, title, tags and picture to a probability; version `broken` prefers what matches least."""

    def score(inputs):
        texts, documents, pictures = inputs["text"], inputs["document"], inputs["picture"]
        ASKED[version] = ASKED.get(version, 0) + len(texts)
        if version in DOWN:
            raise ScorerUnavailableError(f"version {version} is down")
        out = np.empty(len(texts))
        for i, (text, document) in enumerate(zip(texts, documents, strict=True)):
            asked, said = set(words(text)), set(words(document))
            met = sum(w in said for w in asked)
            # A word's picture is a direction of its own: any will do for a test, as long as it is the word's.
            seen = sum(float(pictures[i, load_hash(w) % pictures.shape[1]]) > 0.4 for w in asked - said)
            out[i] = 2.0 * met + 0.5 * seen - 1.2 * len(asked) - 0.5
            if version == "broken":
                out[i] = 1.0 - 3.0 * met
        return 1 / (1 + np.exp(-out))

    return score


def load_hash(word: str) -> int:
    """The same in every process."""
    return sum((i + 1) * ord(c) for i, c in enumerate(word))


class ByWords:
    """A team's own engine: the documents with most words of a text, found by their ids."""

    def __init__(self, documents):
        self.documents, self.rows_with = documents, {}
        self.size = len(documents)
        for start in range(0, self.size, 100):
            rows = np.arange(start, min(start + 100, self.size))
            for row, title in zip(rows.tolist(), documents.column("title", rows), strict=True):
                for word in set(words(title)):
                    self.rows_with.setdefault(word, []).append(row)

    def search_text(self, texts, k):
        out = np.full((len(texts), k), -1, np.int64)
        for i, text in enumerate(texts):
            met = np.zeros(self.size)
            for word in set(words(text)):
                met[self.rows_with.get(word, [])] += 1
            rows = np.argsort(-met, kind="stable")[:k]
            rows = self.documents.rows(self.documents.load_ids(rows[met[rows] > 0]))  # an index answers with ids
            out[i, : len(rows)] = rows
        return out
