"""Search engines for the simulated platform: the cascade with a rewriter, under each arm's fusion spec."""

from collections.abc import Mapping, Sequence

import numpy as np
from cachetools import FIFOCache

from corewrite.deployment.served import served_rewrites
from corewrite.domain import Query, is_identity
from corewrite.domain.traffic_split import HOLDBACK, is_holdback_user
from corewrite.rewriter import Rewriter
from corewrite.search import Cascade
from corewrite.simulation.week import DISPLAYED, Asked, ShownRanking

_REMEMBERED = 300_000


def assign_arm(user_id: str) -> str:
    """Arm of a user of the platform: "holdback", who are served without a rewriter for good, or "served"."""
    return HOLDBACK if is_holdback_user(user_id) else "served"


class NoRewriter:
    """Answers every search by its original signals."""

    def __init__(self, cascade: Cascade) -> None:
        self._cascade = cascade

    def rank(self, asked: Sequence[Asked]) -> ShownRanking:
        """See `simulation.traffic.Engine.rank`."""
        answers = self._cascade.search([a.query.text for a in asked], [None] * len(asked), DISPLAYED)
        return ShownRanking(answers.rows, np.zeros(len(asked), np.bool_), answers.factors)


class OnePolicyEngine:
    """Serves one policy to all but the users of the arm `holdback`, who get the original signals' answer."""

    def __init__(self, cascade: Cascade, policy: Rewriter | None, max_new_tokens: int) -> None:
        self._cascade = cascade
        self._rewrites = None if policy is None else RememberedRewrites(policy, max_new_tokens)

    def rank(self, asked: Sequence[Asked]) -> ShownRanking:
        """See `simulation.traffic.Engine.rank`."""
        queries, arms = [a.query for a in asked], [a.arm for a in asked]
        rewrites: list[str | None] = [None] * len(queries)
        if self._rewrites is not None:
            served = [i for i, arm in enumerate(arms) if arm != HOLDBACK]
            for i, rewrite in zip(served, self._rewrites([queries[i] for i in served]), strict=True):
                rewrites[i] = rewrite
        answers = self._cascade.search([q.text for q in queries], rewrites, DISPLAYED)
        changed = np.array([not is_identity(q.text, r) for q, r in zip(queries, rewrites, strict=True)], np.bool_)
        return ShownRanking(answers.rows, changed, answers.factors)


class RememberedRewrites:
    """A policy's served rewrites, each computed once."""

    def __init__(self, policy: Rewriter, max_new_tokens: int) -> None:
        self._policy = policy
        self._max_new_tokens = max_new_tokens
        self._known: FIFOCache[str, str | None] = FIFOCache(_REMEMBERED)

    def __call__(self, queries: Sequence[Query]) -> list[str | None]:
        """One rewrite per query; None where nothing usable came out."""
        keys = [q.key for q in queries]
        missing = {k: q for k, q in zip(keys, queries, strict=True) if k not in self._known}
        found = served_rewrites(self._policy, list(missing.values()), max_new_tokens=self._max_new_tokens)
        fresh = dict(zip(missing, found, strict=True))
        answers = [fresh[k] if k in fresh else self._known[k] for k in keys]
        self._known.update(fresh)
        return answers


class ArmsEngine:
    """Serves one policy under several arms' specs and computes all of them for every search (the counterfactual).

    A search is impacted where the arms' displayed lists differ, whichever arm its user is in.
    """

    def __init__(self, cascades: Mapping[str, Cascade], policy: Rewriter, max_new_tokens: int) -> None:
        """Serve `policy`; `cascades` by arm name, all over the same index."""
        self._cascades = dict(cascades)
        self._rewrites = RememberedRewrites(policy, max_new_tokens)

    def rank(self, asked: Sequence[Asked]) -> ShownRanking:
        """See `simulation.traffic.Engine.rank`."""
        queries, arms = [a.query for a in asked], [a.arm for a in asked]
        texts, rewrites = [q.text for q in queries], self._rewrites(queries)
        answers = {arm: cascade.search(texts, rewrites, DISPLAYED) for arm, cascade in self._cascades.items()}
        lists = [a.rows for a in answers.values()]
        impacted = np.any([(rows != lists[0]).any(1) for rows in lists[1:]], axis=0)
        own = {arm: np.array([a == arm for a in arms], np.bool_)[:, None] for arm in answers}
        rows = sum(np.where(own[arm], a.rows, 0) for arm, a in answers.items())
        names = sorted({name for a in answers.values() for name in a.factors})
        absent = np.ones(lists[0].shape)  # a factor the arm's spec does not have
        columns = {
            name: sum(np.where(own[arm], a.factors.get(name, absent), 0.0) for arm, a in answers.items()) for name in names
        }
        return ShownRanking(np.asarray(rows), np.asarray(impacted), {k: np.asarray(v) for k, v in columns.items()})
