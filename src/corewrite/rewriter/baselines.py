"""Rewriters without a language model, for every table to carry: q + last query, and a spelling dictionary."""

from collections import Counter
from collections.abc import Iterable, Sequence

from rapidfuzz import process
from rapidfuzz.distance import DamerauLevenshtein

from corewrite.domain import Query, words


def last_query(query: Query) -> str | None:
    """The query behind the session's previous one; None where there is none."""
    return f"{query.context.queries[-1]} {query.text}" if query.context.queries else None


class SpellingDictionary:
    """Replaces words that documents and logs hardly hold by the closest frequent word.

    A word is taken for misspelt where it is rarer than `minimum`; candidates lie within one edit (two from eight letters on,
    Damerau-Levenshtein, so a swap is one edit) and are at least `ratio` times as frequent, the most frequent winning.
    """

    def __init__(self, texts: Iterable[str], *, minimum: int = 4, ratio: float = 4.0) -> None:
        self._counts = Counter(word for text in texts for word in words(text))
        self._known = [word for word, n in self._counts.items() if n >= minimum]
        self._minimum, self._ratio = minimum, ratio
        self._corrected: dict[str, str] = {}

    def correct(self, text: str) -> str | None:
        """The text with its misspelt words replaced; None where nothing is to be replaced."""
        own = words(text)
        fixed = [self._word(w) for w in own]
        return " ".join(fixed) if fixed != own else None

    def _word(self, word: str) -> str:
        if word not in self._corrected:
            self._corrected[word] = self._closest(word)
        return self._corrected[word]

    def _closest(self, word: str) -> str:
        own = self._counts[word]
        if own >= self._minimum or len(word) < 4:
            return word
        edits = 1 if len(word) < 8 else 2
        found = process.extract(word, self._known, scorer=DamerauLevenshtein.distance, score_cutoff=edits, limit=20)
        near = [(distance, -self._counts[w], w) for w, distance, _ in found if self._counts[w] >= self._ratio * max(1, own)]
        return min(near)[2] if near else word


def baseline_rewrites(queries: Sequence[Query], spelling: SpellingDictionary) -> dict[str, list[str | None]]:
    """Rewrites of every baseline by name: `original`, `last_query`, `spelling`, `last_query_and_spelling`."""
    joined = [last_query(q) for q in queries]
    return {
        "original": [None] * len(queries),
        "last_query": joined,
        "spelling": [spelling.correct(q.text) for q in queries],
        "last_query_and_spelling": [spelling.correct(j or q.text) or j for j, q in zip(joined, queries, strict=True)],
    }
