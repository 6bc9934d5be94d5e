"""What to show a rewriter before it meets the reward: self-supervision from queries that satisfied.

Each maker damages good queries in one way, so that the rewriter learns to undo it, or leaves them whole, so that it learns when
not to rewrite.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from corewrite.domain import Context, Query, normalise, words


@dataclass(frozen=True)
class Example:
    """A query and the rewrite to be learnt for it.

    Attributes:
        query: With its context.
        target: Text.
    """

    query: Query
    target: str


def slips(good: Sequence[Query], *, seed: int, copies: int = 1) -> list[Example]:
    """Queries with one slip of typing (a letter dropped, doubled, swapped or replaced), to be restored."""
    rng = np.random.default_rng([seed, 62])
    examples = []
    for query in [q for q in good for _ in range(copies)]:
        own = normalise(query.text).split()
        if not own:
            continue
        place = max(range(len(own)), key=lambda i: len(own[i])) if rng.random() < 0.8 else int(rng.integers(len(own)))
        slipped = _slip(own[place], rng)
        if slipped != own[place]:
            damaged = " ".join(slipped if i == place else w for i, w in enumerate(own))
            examples.append(Example(Query(damaged, query.context), " ".join(own)))
    return examples


def omissions(good: Sequence[Query]) -> list[Example]:
    """Queries without the words their own context already says, to be completed: what users leave unsaid."""
    examples = []
    for query in good:
        said = {w for text in (*query.context.titles, *query.context.queries) for w in words(text)}
        if (left := _leave_out(query.text, said)) is not None:
            examples.append(Example(Query(left, query.context), normalise(query.text)))
    return examples


def told_by_titles(good: Sequence[Query], titles: Sequence[str], *, seed: int) -> list[Example]:
    """Queries of several words after a video whose title says some of them, those left out: omissions in made-up contexts.

    The title is any of `titles` that holds a word of the query, watched last behind the query's own context.
    """
    rng = np.random.default_rng([seed, 65])
    holding: dict[str, list[int]] = defaultdict(list)
    for row, title in enumerate(titles):
        for word in set(words(title)):
            holding[word].append(row)
    examples = []
    for query in good:
        known = [w for w in words(query.text) if w in holding]
        if not known:
            continue
        rows = holding[known[int(rng.integers(len(known)))]]
        title = titles[rows[int(rng.integers(len(rows)))]]
        if (left := _leave_out(query.text, set(words(title)))) is not None:
            context = Context(query.context.queries, (*query.context.titles, title), query.context.locale)
            examples.append(Example(Query(left, context), normalise(query.text)))
    return examples


def other_contexts(good: Sequence[Query], *, seed: int) -> list[Example]:
    """Satisfied queries in the context of somebody else's search, to be left as they are: contexts often mislead."""
    rng = np.random.default_rng([seed, 63])
    borrowed = rng.permutation(len(good))
    return [
        Example(Query(q.text, Context(good[j].context.queries, good[j].context.titles, q.context.locale)), normalise(q.text))
        for q, j in zip(good, borrowed, strict=True)
    ]


def _leave_out(text: str, said: set[str]) -> str | None:
    """`text` without the words in `said`; None where that leaves nothing or all."""
    own = normalise(text).split()
    left = [w for w in own if w not in said]
    return " ".join(left) if left and len(left) < len(own) else None


def _slip(word: str, rng: np.random.Generator) -> str:
    if len(word) < 4:
        return word
    i = int(rng.integers(1, len(word)))
    kind = int(rng.integers(4))
    letter = chr(ord("a") + int(rng.integers(26)))
    if kind == 0:
        return word[:i] + word[i + 1 :]
    if kind == 1:
        return word[:i] + word[i] + word[i:]
    if kind == 2 and i + 1 < len(word):
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    return word[:i] + letter + word[i + 1 :]
