"""Words that most of a query's first results hold: what a rewrite can add to find documents that call the same thing otherwise.

Pseudo-relevance feedback (Rocchio 1971) by majority instead of weight: a text has no weights, and a word that half of the first
results share is rarely one result's accident.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from corewrite.domain import words

_HELD = 0.5
"""Share of a query's results that hold a usual word, at least."""
_GENERIC = 0.2
"""Words that are usual for a larger share of the queries say nothing of any."""
_MOST = 6
"""Usual words of a query, at most."""


def usual_words(results: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Of each query, up to six words that it lacks and at least half of its first results hold, the most widely held first.

    Words that are usual for more than a fifth of the queries (`the`, `video`) are left out.

    Args:
        results: Texts of the first results by query; a query without results has no usual words.
    """
    held = {query: _held(query, texts) for query, texts in results.items()}
    queries = Counter(word for found in held.values() for word in found)
    generic = {word for word, n in queries.items() if n > 1 and n > _GENERIC * len(held)}
    return {query: tuple(word for word in found if word not in generic)[:_MOST] for query, found in held.items()}


def _held(query: str, texts: Iterable[str]) -> list[str]:
    each = [set(words(text)) for text in texts]
    count = Counter(word for found in each for word in found)
    own = set(words(query))
    kept = [word for word, n in count.items() if n >= _HELD * len(each) and word not in own]
    return sorted(kept, key=lambda word: (-count[word], word))
