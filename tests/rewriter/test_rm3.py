"""RM3 against a second implementation by plain loops, and by hand."""

import math
import re

import numpy as np
import pytest

from corewrite.domain import Context, Query
from corewrite.rewriter.baselines import first_and_last_query, last_query
from corewrite.rewriter.rm3 import RelevanceFeedback, expand


def rm3_by_loops(query, texts, rows, scores, documents=10, terms=10, weight=0.5, share=0.1):
    """p(w | q') = weight p_ml(w | q) + (1 - weight) p(w | R), p(w | R) = sum_d p(w | d) p(q | d) / sum_d p(q | d)."""
    split = [re.findall("[a-z0-9]+", t.lower()) for t in texts]
    vocabulary = sorted({w for s in split for w in s})
    rare = [w for w in vocabulary if sum(w in s for s in split) <= share * len(texts)]
    used = [(r, s) for r, s in zip(rows, scores, strict=True) if r >= 0 and s > 0][:documents]
    model = {}
    for w in rare:
        value = 0.0
        for r, s in used:
            kept = [x for x in split[r] if x in rare]
            if kept:
                value += s / math.fsum(s for _, s in used) * kept.count(w) / len(kept)
        if value > 0:
            model[w] = value
    model = dict(sorted(model.items(), key=lambda x: (-x[1], x[0]))[:terms])
    own = query.split()
    final = {}
    for w in {*own, *model}:
        of_query = own.count(w) / len(own)
        final[w] = weight * of_query + (1 - weight) * model.get(w, 0) / sum(model.values()) if model else of_query
    return final


@pytest.mark.parametrize("seed", range(5))
def test_weights_are_those_of_a_second_implementation(seed):
    rng = np.random.default_rng(seed)
    words = [f"w{i}" for i in range(60)]
    texts = [" ".join(rng.choice(words, rng.integers(3, 9), p=np.arange(60, 0, -1) / 1830)) for _ in range(40)]
    rows, scores = np.r_[rng.permutation(40)[:14], -1], np.r_[np.sort(rng.random(14))[::-1], 0.0]
    feedback = RelevanceFeedback(texts.__getitem__, len(texts))
    query = " ".join(rng.choice(words, 3))
    found, other = feedback.weights(query, rows, scores), rm3_by_loops(query, texts, rows, scores)
    assert found.keys() == other.keys() and sum(found.values()) == pytest.approx(1.0)
    assert all(found[w] == pytest.approx(other[w]) for w in found)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_the_rewrite_says_the_query_and_the_heaviest_terms():
    texts = ["cat jumps", "cat naps", "dog runs"] + [f"x{i} y{i}" for i in range(30)]
    feedback = RelevanceFeedback(texts.__getitem__, len(texts))
    # p(w | R): cat 1/2, jumps 3/8, naps 1/8; the query's word weighs 0.5 + 0.25.
    rows, scores = np.array([0, 1]), np.array([0.75, 0.25])
    assert feedback.weights("cat", rows, scores) == pytest.approx({"cat": 0.75, "jumps": 0.1875, "naps": 0.0625})
    assert feedback.rewrite("cat", np.array([-1, -1]), np.zeros(2)) is None, "nothing found, nothing added"
    assert feedback.rewrite("", rows, scores) is None
    assert feedback.rewrite("cat", rows, scores) == "cat jumps", "half of the words are the query's"
    assert feedback.rewrite("red hat", np.array([0]), np.ones(1)) == "red hat cat jumps"
    assert expand(feedback, ["cat", "cat"], np.array([[0, 1], [1, 0]]), np.tile(scores, (2, 1))) == ["cat jumps", "cat jumps"]


def test_earlier_queries_go_in_front():
    query = Query("q", Context(queries=("a", "b", "c")))
    assert last_query(query) == "c q" and first_and_last_query(query) == "a c q"
    assert first_and_last_query(Query("q", Context(queries=("a",)))) == "a q"
    assert last_query(Query("q")) is None and first_and_last_query(Query("q")) is None
