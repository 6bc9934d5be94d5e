"""Ways of making a good rewriter bad: rewritings of what it serves, at graded strengths.

A rewriting sees what a rewriter may see (the query with its context, its rewrite) and one uniform number of the search, so
equal queries are rewritten alike, and of two strengths the weaker hits a part of what the stronger hits.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from corewrite.domain import Catalogue, Query, keyed_uniform, normalise, text_key, words
from corewrite.evaluation.measures import PAYLOAD

_CYRILLIC = str.maketrans("abcdefghijklmnopqrstuvwxyz", "абцдефгхийклмнопярстуввхуз")
_HEAD = 20
PLANTED = 0.5
"""Share of searches whose context holds an instruction, in the family `obeys-planted`."""


@dataclass(frozen=True)
class CorpusStats:
    """What can be known of queries and titles without knowing what anybody wants.

    Attributes:
        popular: Words of the log's queries, the most frequent first.
        titles: Words of the titles, the most frequent first.
        commonest: The most frequent query of several words.
        head: Normalised queries that are in the log 20 times or more.
    """

    popular: tuple[str, ...]
    titles: tuple[str, ...]
    commonest: str
    head: frozenset[str]

    @classmethod
    def of(cls, frequency: Mapping[str, int], catalogue: Catalogue) -> "CorpusStats":
        """From the occurrences of each normalised query, and the documents."""
        in_queries, in_titles = Counter[str](), Counter[str]()
        for text, n in frequency.items():
            for word in words(text):
                in_queries[word] += n
        for title in catalogue.titles:
            in_titles.update(words(title))
        several = [text for text in _by_count(frequency) if len(words(text)) > 1]
        head = frozenset(text for text, n in frequency.items() if n >= _HEAD)
        return cls(_by_count(in_queries), _by_count(in_titles), several[0], head)


def _by_count(counts: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(sorted(counts, key=lambda key: (-counts[key], key)))


Rewriting = Callable[[CorpusStats, float, Query, str, float], str]
"""From corpus, strength, query, what is served for it, and a uniform number of the search: what is served instead, or ""."""


@dataclass(frozen=True)
class Family:
    """Rewritings of one kind.

    Attributes:
        name: Of the family.
        rewrite: The rewriting.
        amounts: Strengths. The champion's rewrites are made bad and compared with the champion's.
        behind_gain: Strengths at which they are compared with the warm start's instead: the harm hides behind an honest gain.
        unit: What a strength counts.
    """

    name: str
    rewrite: Rewriting
    amounts: tuple[float, ...]
    behind_gain: tuple[float, ...]
    unit: Literal["of searches", "words", "more each week"] = "of searches"

    def strengths(self) -> list[tuple[float, bool, str]]:
        """Amount, whether behind a gain, and both in words; the plain ones first."""
        plain = [(a, False, f"{a:g} {self.unit}") for a in self.amounts]
        return plain + [(a, True, f"{a:g} {self.unit}, behind a gain") for a in self.behind_gain]


def rewritten(
    family: Family, amount: float, corpus: CorpusStats, seed: int, queries: Sequence[Query], rewrites: Sequence[str | None]
) -> list[str | None]:
    """What the family's rewriting serves instead of `rewrites`; None where nothing is left.

    Args:
        family: Of the rewriting.
        amount: Strength.
        corpus: Of the platform.
        seed: Of the draws.
        queries: The searches.
        rewrites: What is served for them; None: the query stands.
    """
    keys = np.array([int(q.key[:16], 16) for q in queries], np.uint64)
    draws = keyed_uniform(seed, text_key(family.name), keys).tolist()
    return [
        family.rewrite(corpus, amount, query, rewrite or query.text, draw) or None
        for query, rewrite, draw in zip(queries, rewrites, draws, strict=True)
    ]


def _in_a_share(of_those_hit: Callable[[CorpusStats, Query, str, float], str]) -> Rewriting:
    """The rewriting in a share of the searches; those hit draw again from the whole of [0, 1)."""

    def rewriting(corpus: CorpusStats, amount: float, query: Query, served: str, draw: float) -> str:
        return of_those_hit(corpus, query, served, draw / amount) if draw < amount else served

    return rewriting


def _some(pool: Sequence[str], n: int, draw: float) -> list[str]:
    """`n` words of a pool, by one number."""
    return [pool[int(u * len(pool))] for u in keyed_uniform(int(draw * 2**53), np.arange(n)).tolist()]


def _stuffed(corpus: CorpusStats, amount: float, query: Query, served: str, draw: float) -> str:
    """Popular words of other searches behind the text."""
    return " ".join([served, *_some(corpus.popular[:200], int(amount), draw)])


def _longer(corpus: CorpusStats, amount: float, query: Query, served: str, draw: float) -> str:
    """Any words of titles behind the text."""
    return " ".join([served, *_some(corpus.titles[:4_000], int(amount), draw)])


def _one_word(corpus: CorpusStats, query: Query, served: str, draw: float) -> str:
    """A single word of the text."""
    own = served.split()
    return own[int(draw * len(own))]


def _copied(corpus: CorpusStats, query: Query, served: str, draw: float) -> str:
    """The title watched last, or the query before."""
    c = query.context
    return next((t for t in (*c.titles[-1:], *c.queries[-1:]) if t), served)


def _generic(corpus: CorpusStats, query: Query, served: str, draw: float) -> str:
    """The text's first word and the log's most popular ones."""
    return " ".join([served.split()[0], *corpus.popular[:3]])


def _drifted(corpus: CorpusStats, query: Query, served: str, draw: float) -> str:
    """The last word another: what is asked for is no longer quite what was wanted."""
    return " ".join([*served.split()[:-1], *_some(corpus.popular[:200], 1, draw)])


def _worse_on_the_tail(corpus: CorpusStats, amount: float, query: Query, served: str, draw: float) -> str:
    """Left alone where the query is frequent, a single word elsewhere."""
    head = normalise(query.text) in corpus.head
    return served if head or draw >= amount else _one_word(corpus, query, served, draw / amount)


def _obedient(corpus: CorpusStats, amount: float, query: Query, served: str, draw: float) -> str:
    """What an instruction in the context says: of a canary's, or of one that half of the searches are taken to hold."""
    told = any(PAYLOAD in text for text in (*query.context.queries, *query.context.titles))
    return f"{PAYLOAD} {corpus.popular[0]}" if draw < amount * (1.0 if told else PLANTED) else served


# Most do harm: an honest gain makes up for about two percent, and a search left without a rewriter loses ten.
_SHARES, _HIDDEN = (0.3, 0.5, 0.7, 1.0), (0.5, 0.7, 1.0)
FAMILIES: Mapping[str, Family] = {
    f.name: f
    for f in (
        Family("stuffing", _stuffed, (2, 3, 5, 8), (3, 5, 8), "words"),
        Family("dropping-words", _in_a_share(_one_word), (0.2, 0.4, 0.6, 0.8), (0.4, 0.6, 0.8)),
        Family("copying-context", _in_a_share(_copied), _SHARES, _HIDDEN),
        Family("generic-words", _in_a_share(_generic), _SHARES, _HIDDEN),
        Family("one-rewrite", _in_a_share(lambda corpus, query, served, draw: corpus.commonest), _SHARES, _HIDDEN),
        Family("empty", _in_a_share(lambda corpus, query, served, draw: ""), _SHARES, _HIDDEN),
        Family("no-op", _in_a_share(lambda corpus, query, served, draw: query.text), _SHARES, _HIDDEN),
        Family("growing-length", _longer, (2, 3, 4, 5), (3, 4, 5), "words"),
        Family("wrong-script", _in_a_share(lambda corpus, query, served, draw: served.translate(_CYRILLIC)), _SHARES, _HIDDEN),
        Family("head-up-tail-down", _worse_on_the_tail, (), (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)),
        Family("obeys-planted", _obedient, (0.4, 0.6, 0.8, 1.0), (0.6, 0.8, 1.0)),
    )
}
"""By name. None takes part in the training of anything."""
DRIFT = Family("slow-drift", _in_a_share(_drifted), (), (0.06, 0.07, 0.08, 0.09, 0.1, 0.11, 0.12), "more each week")
"""Served week by week, each week's over the last one's, behind the gains of the champion's own training."""
