"""Rewriters without a language model, for every table to carry: q + last query, and a spelling dictionary."""

from collections import Counter
from collections.abc import Iterable, Sequence

from corewrite.domain import Query, words
from corewrite.domain.extras import from_extra


def last_query(query: Query) -> str | None:
    """The query behind the session's previous one; None where there is none."""
    return f"{query.context.queries[-1]} {query.text}" if query.context.queries else None


class SpellingDictionary:
    """Replaces words that documents and logs hardly hold by the closest frequent word, found by SymSpell.

    A word is taken for misspelt where it is rarer than `minimum` and has at least four letters; candidates lie within one edit
    (two from eight letters on; insertion, deletion, substitution, swap of neighbours) and are at least `ratio` times as
    frequent. The closest wins, of equally close ones the most frequent.

    Args:
        texts: Texts with the words that are known: documents and logged queries.
        minimum: Occurrences from which on a word is known.
        ratio: How many times as frequent as the word itself a correction is at least.

    Raises:
        MissingExtraError: SymSpell is not installed.
    """

    def __init__(self, texts: Iterable[str], *, minimum: int = 4, ratio: float = 4.0) -> None:
        with from_extra("train", "the spelling baseline looks words up with SymSpell"):
            from symspellpy import SymSpell, Verbosity

        self._all_close = Verbosity.ALL
        self._counts = Counter(word for text in texts for word in words(text))
        self._minimum, self._ratio = minimum, ratio
        self._speller = SymSpell(max_dictionary_edit_distance=2, count_threshold=minimum)
        for word, count in self._counts.items():
            self._speller.create_dictionary_entry(word, count)

    def correct(self, text: str) -> str | None:
        """The text with its misspelt words replaced; None where nothing is to be replaced."""
        own = words(text)
        fixed = [self._word(w) for w in own]
        return " ".join(fixed) if fixed != own else None

    def _word(self, word: str) -> str:
        own = self._counts[word]
        if own >= self._minimum or len(word) < 4:
            return word
        found = self._speller.lookup(word, self._all_close, max_edit_distance=1 if len(word) < 8 else 2)
        near = [(f.distance, -f.count, f.term) for f in found if f.count >= self._ratio * max(1, own)]
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
