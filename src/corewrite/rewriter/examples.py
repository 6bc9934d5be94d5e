"""Examples for the warm start: self-supervision from satisfied queries.

Each function corrupts the queries in one way, so that the rewriter learns to restore them, or leaves them as they are, so that
it learns when not to rewrite.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from corewrite.domain import Context, Query, normalise, words


@dataclass(frozen=True)
class Example:
    """A supervised example.

    Attributes:
        query: The input, with its context.
        target: Text of the rewrite to be learnt.
    """

    query: Query
    target: str


def typo_noise(good: Sequence[Query], *, seed: int, copies: int = 1) -> list[Example]:
    """Queries with one typo (a letter dropped, doubled, swapped or replaced), to be restored.

    Args:
        good: Satisfied queries.
        seed: Of the typos.
        copies: Typos drawn for each query; a query whose word is too short for one is left out.
    """
    rng = np.random.default_rng([seed, 62])
    examples = []
    for query in [q for q in good for _ in range(copies)]:
        own = normalise(query.text).split()
        if not own:
            continue
        place = max(range(len(own)), key=lambda i: len(own[i])) if rng.random() < 0.8 else int(rng.integers(len(own)))
        mistyped = _typo(own[place], rng)
        if mistyped != own[place]:
            damaged = " ".join(mistyped if i == place else w for i, w in enumerate(own))
            examples.append(Example(Query(damaged, query.context), " ".join(own)))
    return examples


def context_word_dropout(good: Sequence[Query]) -> list[Example]:
    """Queries without the words that their own context holds, to be completed; queries that have none, or nothing else, are
    left out.

    Args:
        good: Satisfied queries.
    """
    examples = []
    for query in good:
        said = {w for text in (*query.context.titles, *query.context.queries) for w in words(text)}
        if (left := _leave_out(query.text, said)) is not None:
            examples.append(Example(Query(left, query.context), normalise(query.text)))
    return examples


def title_conditioned_dropout(good: Sequence[Query], titles: Sequence[str], *, seed: int) -> list[Example]:
    """Queries without the words of a title that is put last in their context, to be completed: `context_word_dropout` with
    made-up contexts.

    Args:
        good: Satisfied queries.
        titles: Of documents; one that shares a word with the query is drawn for it.
        seed: Of the draws.
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
    """Queries in the context of another user's search, to be left as they are: contexts often mislead.

    Args:
        good: Satisfied queries.
        seed: Of the permutation of contexts.
    """
    rng = np.random.default_rng([seed, 63])
    borrowed = rng.permutation(len(good))
    return [
        Example(Query(q.text, Context(good[j].context.queries, good[j].context.titles, q.context.locale)), normalise(q.text))
        for q, j in zip(good, borrowed, strict=True)
    ]


def expanded(examples: Sequence[Example], usual: Mapping[str, Sequence[str]], *, share: float, seed: int) -> list[Example]:
    """A share of the examples with some of the usual words of their target behind it, at random; the others as they are.

    So the rewriter samples texts of several lengths, of which the reward can tell which pay.

    Args:
        examples: To expand; those whose target has no usual words stay as they are.
        usual: Words by target, see `usual_words`.
        share: Of the examples that have usual words.
        seed: Of the draws.
    """
    rng = np.random.default_rng([seed, 67])
    found = []
    for example in examples:
        added = usual.get(example.target, ())
        if added and rng.random() < share:
            chosen = np.sort(rng.choice(len(added), int(rng.integers(1, len(added) + 1)), replace=False))
            example = replace(example, target=" ".join([example.target, *(added[i] for i in chosen)]))
        found.append(example)
    return found


def _leave_out(text: str, said: set[str]) -> str | None:
    """`text` without the words in `said`; None where that leaves nothing or all."""
    own = normalise(text).split()
    left = [w for w in own if w not in said]
    return " ".join(left) if left and len(left) < len(own) else None


def _typo(word: str, rng: np.random.Generator) -> str:
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
