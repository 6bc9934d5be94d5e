"""Words that a rewrite should not drop: entities that users ask for, estimated from the results that satisfied them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from corewrite.domain import Documents, TrainingInstance, words
from corewrite.domain.documents import text_column

_USERS = 3
_DOCUMENTS = 2
_SAID = 2 / 3
_COMMON = 0.05
_SAMPLE = 200_000


def find_protected_words(instances: Sequence[TrainingInstance], documents: Documents, *, seed: int) -> frozenset[str]:
    """Words of queries that nearly always stand in the title of what satisfies.

    A word is protected where
    - at least 3 users typed it in searches that were satisfied,
    - on average at least two thirds of the satisfying documents of such a search say it in their title, and two documents do,
    - and at most 5 % of all titles say it: what stands everywhere names nothing.

    A name is like that, and so is what else a search is about. A misspelt word is not: titles do not say it. Nor are padding
    ("best", "video"), words that titles have others for, and a short name that most titles spell out, which a rewrite may
    spell out too. Numbers are protected anyway (`entities_dropped`).

    Args:
        instances: Satisfied searches of users who may be trained on, so that the gate's own searches tell nothing.
        documents: Those that exist.
        seed: Of the sample of 200,000 titles from which word frequencies are taken, where there are more.

    Returns:
        Normalised words.
    """
    titles = _titles(instances, documents)
    users, shares, saying = (
        defaultdict[str, set[str]](set),
        defaultdict[str, list[float]](list),
        defaultdict[str, set[str]](set),
    )
    for x in instances:
        satisfying = [d for d in x.positives if d in titles]
        if not satisfying:
            continue
        for word in set(words(x.query.text)):
            said = [d for d in satisfying if word in titles[d]]
            users[word].add(x.user_id)
            shares[word].append(len(said) / len(satisfying))
            saying[word].update(said)
    found = {
        word
        for word, share in shares.items()
        if len(users[word]) >= _USERS and len(saying[word]) >= _DOCUMENTS and sum(share) / len(share) >= _SAID
    }
    return frozenset(found - _common(found, documents, seed))


def _titles(instances: Iterable[TrainingInstance], documents: Documents) -> dict[str, frozenset[str]]:
    """Words of the title of every satisfying document that exists, by id."""
    ids = list(dict.fromkeys(d for x in instances for d in x.positives))
    rows = documents.find(ids)
    there = np.flatnonzero(rows >= 0)
    texts = text_column(documents, "title", rows[there])
    return {ids[i]: frozenset(words(text)) for i, text in zip(there.tolist(), texts, strict=True)}


def _common(candidates: set[str], documents: Documents, seed: int) -> set[str]:
    """Those of the candidates that more than 5 % of the titles say."""
    rows = np.arange(len(documents))
    if len(rows) > _SAMPLE:
        rows = np.sort(np.random.default_rng([seed, 82]).choice(len(rows), _SAMPLE, replace=False))
    count = dict.fromkeys(candidates, 0)
    for start in range(0, len(rows), 10_000):
        for text in text_column(documents, "title", rows[start : start + 10_000]):
            for word in candidates.intersection(words(text)):
                count[word] += 1
    return {word for word, n in count.items() if n > _COMMON * len(rows)}
