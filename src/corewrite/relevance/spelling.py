"""Spelling correction learnt from documents and a log: a query word that is rare and close to a frequent one is taken for it.

A noisy channel (Brill & Moore 2000; Cucerzan & Brill 2004, who learn from query logs) in its simplest form: all slips within
the edit distance are equally likely, so the prior decides, the word's frequency.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from pydantic import Field, ValidationError
from symspellpy import SymSpell, Verbosity

from corewrite.domain import Settings, words

_LONG = 8
"""Letters from which on two edits are allowed."""
_SHORTEST = 4
"""Letters under which a word is left as it is."""
_LONGEST = 40
"""Letters over which it is."""


def may_be_misspelt(word: str) -> bool:
    """Whether a word is neither too short to say what was meant nor too long to be a word."""
    return _SHORTEST <= len(word) <= _LONGEST


class _Stored(Settings):
    documents: dict[str, int]
    queries: dict[str, int]
    ratio: float = Field(ge=1, allow_inf_nan=False)


@dataclass(frozen=True, eq=False)
class SpellingCorrector:
    """Replaces words that are probably misspelt.

    A word that documents hold is right. Another one is corrected where a word within one edit (two from eight letters on;
    insertion, deletion, substitution, swap of neighbours) is at least `ratio` times as frequent; the closest wins, of equally
    close ones the most frequent. So a slip that many users make is still corrected, and a new word that no known word
    resembles is left alone.

    Attributes:
        documents: Texts of the documents that hold each word; words of at least `minimum` documents only.
        queries: Logged queries that hold each word that documents do not, of at least `minimum` queries.
        ratio: How many times as frequent as the word itself a correction is at least.
    """

    documents: Mapping[str, int]
    queries: Mapping[str, int]
    ratio: float = 8.0

    @classmethod
    def learn(
        cls, documents: Iterable[str], queries: Iterable[str], *, minimum: int = 3, limit: int = 50_000
    ) -> "SpellingCorrector":
        """Count words.

        Args:
            documents: Their texts.
            queries: As typed, one element per search.
            minimum: Texts that hold a word for it to be known.
            limit: Words of documents, and of queries, at most; the most frequent.
        """
        held = Counter(word for text in documents for word in set(words(text)))
        typed = Counter(word for text in queries for word in set(words(text)))
        of_documents = {w: n + typed.pop(w, 0) for w, n in held.items() if n >= minimum}
        of_queries = {w: n for w, n in typed.items() if n >= minimum}
        return cls(_most(of_documents, limit), _most(of_queries, limit))

    def to_json(self) -> str:
        """As it is stored beside a model: equal correctors give equal text."""
        return json.dumps({"documents": dict(self.documents), "queries": dict(self.queries), "ratio": self.ratio}, indent=0)

    @classmethod
    def from_json(cls, text: str) -> "SpellingCorrector":
        """Read what `to_json` gave.

        Raises:
            ValueError: it is none.
        """
        try:
            stored = _Stored.model_validate_json(text)
        except ValidationError as error:
            raise ValueError(f"the words for spelling correction are damaged: {error.errors()[0]['msg']}") from error
        return cls(stored.documents, stored.queries, stored.ratio)

    def correct(self, texts: Sequence[str]) -> list[str]:
        """The texts with their misspelt words replaced, the others as they are; words joined by single spaces."""
        return [" ".join(self._word(w) for w in words(text)) for text in texts]

    @cached_property
    def _word(self) -> Callable[[str], str]:
        # Bounded: what users type is without end.
        return lru_cache(100_000)(self._look_up)

    @cached_property
    def _speller(self) -> SymSpell:
        speller = SymSpell(max_dictionary_edit_distance=2)
        for word, count in (*self.documents.items(), *self.queries.items()):
            speller.create_dictionary_entry(word, count)
        return speller

    def prepare(self) -> None:
        """Build the index of corrections, seconds for many words, before a search waits for it."""
        _ = self._speller

    def _look_up(self, word: str) -> str:
        if word in self.documents or not may_be_misspelt(word):
            return word
        own = self.queries.get(word, 0)
        found = self._speller.lookup(word, Verbosity.ALL, max_edit_distance=1 if len(word) < _LONG else 2)
        near = [(f.distance, -f.count, f.term) for f in found if f.term != word and f.count >= self.ratio * max(1, own)]
        return min(near)[2] if near else word


def _most(counts: Mapping[str, int], limit: int) -> dict[str, int]:
    """The most frequent words, in the order of the words."""
    kept = sorted(counts, key=lambda w: (-counts[w], w))[:limit]
    return {w: counts[w] for w in sorted(kept)}
