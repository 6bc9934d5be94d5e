"""eps beside the scores of random pairs, by counting."""

import re
from types import SimpleNamespace

import numpy as np

from corewrite.deployment.random_pairs import RandomPairs, random_pairs
from corewrite.fusion import default_spec


class Told:
    """Scores that are written down: the row over 100, and a score that failed for one text."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def score(self, texts, rows):
        self.asked += [(t, int(r)) for t, (r,) in zip(texts, rows, strict=True)]
        return np.array([[np.nan if t == "q3" else int(r) / 100] for t, (r,) in zip(texts, rows, strict=True)])


def test_the_quartile_of_random_pairs_is_set_beside_eps():
    relevance, dense = Told(), Told()
    ranker = SimpleNamespace(signals={"relevance": relevance, "dense": dense})
    deployment = SimpleNamespace(ranker=ranker, spec=default_spec(), documents=range(20))
    queries = [f"q{i}" for i in range(400)]
    raw, fine = random_pairs(deployment, queries, seed=0)
    assert (raw.stage, raw.signal, raw.rewarded) == ("rawrank", "dense", False)
    assert (fine.stage, fine.signal, fine.eps, fine.rewarded) == ("finerank", "relevance", 0.03, True)
    assert {r for _, r in relevance.asked} == set(range(20)) and [t for t, _ in relevance.asked] == queries
    counted = sorted(r / 100 for t, r in relevance.asked if t != "q3")
    assert fine.third_quartile == np.quantile(counted, 0.75) and sum(x <= fine.third_quartile for x in counted) >= 0.75 * 399
    assert "eps 0.03" in fine.advice and "'relevance' in finerank" in fine.advice and "write eps: 0.15 in" in fine.advice
    assert raw.advice is None, "a stage that is not rewarded"


def test_the_floor_that_is_advised_is_enough():
    for quartile in (0.1541, 0.031, 0.99999, 0.5):
        found = RandomPairs("finerank", "relevance", 0.03, quartile, True)
        wanted = float(re.search(r"write eps: (\S+)", found.advice)[1])
        assert quartile <= wanted <= quartile * 1.01
        assert RandomPairs("finerank", "relevance", wanted, quartile, True).advice is None


def test_a_floor_that_is_high_enough_is_left_alone():
    signals = dict.fromkeys(("relevance", "dense"), SimpleNamespace(score=lambda texts, rows: np.full(rows.shape, 0.03)))
    deployment = SimpleNamespace(ranker=SimpleNamespace(signals=signals), spec=default_spec(), documents=range(20))
    assert [x.advice for x in random_pairs(deployment, ["a", "b"], seed=0)] == [None, None]
