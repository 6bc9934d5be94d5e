"""The search engine that the simulated platform asks: the cascade with a rewriter, under each arm's fusion spec."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np

from corewrite.domain import Query
from corewrite.pipeline import served_rewrites
from corewrite.rewriter import Rewriter
from corewrite.search import Cascade
from corewrite.simulation.traffic import DISPLAYED, Ranking

_REMEMBERED = 300_000


class NoRewriter:
    """Answers every search by its original signals."""

    def __init__(self, cascade: Cascade) -> None:
        self._cascade = cascade

    def rank(self, queries: Sequence[Query], arms: Sequence[str]) -> Ranking:
        """See `simulation.traffic.Engine.rank`."""
        answers = self._cascade.search([q.text for q in queries], [None] * len(queries), DISPLAYED)
        return Ranking(answers.rows, np.zeros(len(queries), np.bool_), answers.factors)


class ArmsEngine:
    """Serves one policy under several arms' specs and computes all of them for every search (the counterfactual).

    A search is impacted where the arms' displayed lists differ, whichever arm its user is in.
    """

    def __init__(self, cascades: Mapping[str, Cascade], policy: Rewriter, max_new_tokens: int) -> None:
        """Serve `policy`; `cascades` by arm name, all over the same index."""
        self._cascades = dict(cascades)
        self._policy = policy
        self._max_new_tokens = max_new_tokens
        self._known: OrderedDict[str, str | None] = OrderedDict()

    def rank(self, queries: Sequence[Query], arms: Sequence[str]) -> Ranking:
        """See `simulation.traffic.Engine.rank`."""
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
        return Ranking(np.asarray(rows), np.asarray(impacted), {k: np.asarray(v) for k, v in columns.items()})

    def _rewrites(self, queries: Sequence[Query]) -> list[str | None]:
        keys = [q.key for q in queries]
        fresh = {k: q for k, q in zip(keys, queries, strict=True) if k not in self._known}
        found = served_rewrites(self._policy, list(fresh.values()), max_new_tokens=self._max_new_tokens)
        self._known.update(zip(fresh, found, strict=True))
        answers = [self._known[k] for k in keys]
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return answers
