"""The cache asks once; the probe tells an exploitable model from an honest one."""

from dataclasses import replace

import numpy as np
import pytest

from corewrite.domain import Context, Query, TrainingInstance, words
from corewrite.relevance import probe
from corewrite.relevance.cache import CachedScorer
from corewrite.relevance.probe import adversarial_rewrites


class Counting:
    def __init__(self):
        self.model_hash, self.asked, self.broken = "v1", 0, set()

    def one(self, text, row):
        return hash((self.model_hash, text, row)) % 1000 / 1000

    def score(self, texts, rows):
        self.asked += int((rows >= 0).sum())
        values = np.array([[self.one(t, int(r)) for r in row] for t, row in zip(texts, rows, strict=True)])
        values = np.where(np.isin(rows, list(self.broken)), np.nan, values)
        return np.where(rows < 0, 0.0, values)


def test_cache_gives_the_same_scores_and_asks_only_what_is_new():
    plain, cached = Counting(), CachedScorer(Counting())
    rows = np.array([[1, 2, -1], [2, 3, 4]])
    for _ in range(2):
        assert np.array_equal(cached.score(["a", "b"], rows), plain.score(["a", "b"], rows))
    assert cached._scorer.asked == 5 and (cached.hits, cached.misses) == (5, 5)
    cached.score(["a"], np.array([[1, 9]]))
    assert cached._scorer.asked == 6


def test_a_new_model_empties_the_cache_and_nan_is_never_kept():
    scorer = Counting()
    cached = CachedScorer(scorer)
    rows = np.array([[1, 2]])
    first = cached.score(["a"], rows)
    scorer.model_hash = "v2"
    assert not np.array_equal(cached.score(["a"], rows), first)
    scorer.broken = {5}
    assert np.isnan(cached.score(["a"], np.array([[5]]))[0, 0])
    scorer.broken = set()
    assert np.isfinite(cached.score(["a"], np.array([[5]]))[0, 0])


def test_capacity_is_a_bound():
    cached = CachedScorer(Counting(), capacity=10)
    for i in range(8):
        cached.score([f"t{i}"], np.arange(4)[None, :])
    assert sum(map(len, cached._known.values())) <= 10


def test_texts_of_a_model_that_is_down_are_not_kept():
    scorer = Counting()
    scorer.broken = {1, 2}
    cached = CachedScorer(scorer, capacity=10)
    for i in range(50):
        cached.score([f"t{i}"], np.array([[1, 2]]))
    assert not cached._known


def test_the_text_asked_longest_ago_goes_first():
    cached = CachedScorer(Counting(), capacity=8)
    rows = np.arange(4)[None, :]
    for text in ("a", "b", "a", "c"):
        cached.score([text], rows)
    asked = cached._scorer.asked
    cached.score(["a"], rows)
    assert cached._scorer.asked == asked, "a was asked after b"
    cached.score(["b"], rows)
    assert cached._scorer.asked == asked + 4


TITLES = {"a": "cat song", "b": "dog race"}


def instance(i):
    return TrainingInstance(
        f"q{i}", f"u{i}", Query("cat", Context(queries=("dog race",), titles=("dog news",))), ("a",), (1.0,), ("b",), (1.0,)
    )  # fmt: skip


def reward_of(score):
    def log_ratio(text, query, document):
        return np.log(score(text, document) / score(query, document))

    def reward(instances, texts):
        return [
            np.array([log_ratio(t, x.query.text, "a") - log_ratio(t, x.query.text, "b") for t in row])
            for x, row in zip(instances, texts, strict=True)
        ]

    return reward


def honest(text, document):
    """Overlap over words of the text: what is not met costs."""
    own, title = set(words(text)), set(TITLES[document].split())
    return 0.05 + 0.9 * len(own & title) / max(1, len(own))


def pays_for_length(text, document):
    return 0.05 + 0.02 * len(words(text)) * (3.0 if document == "a" else 1.0)


def test_probe_passes_an_honest_model_and_names_what_an_exploitable_one_pays_for():
    instances = [instance(i) for i in range(30)]
    assert probe(instances, reward_of(honest)).passed
    found = probe(instances, reward_of(pays_for_length))
    assert not found.passed
    assert {f.name for f in found.findings if f.paid} >= {"stuffing", "repetition", "copying"}


def test_probe_refuses_nothing_and_nan():
    with pytest.raises(ValueError, match="at least one instance"):
        probe([], reward_of(honest))
    with pytest.raises(ValueError, match="'q0'"):
        probe([instance(0)], lambda xs, ts: [np.full(len(row), np.nan) for row in ts])


@pytest.mark.parametrize("score", [honest, pays_for_length])
def test_probe_leaves_out_what_has_no_reward(score):
    """A score that failed in the end is none: the finding is that of the instances that have one, and they are counted."""
    instances = [replace(instance(i), query=Query("cat song"[: 3 + 5 * (i % 2)])) for i in range(40)]
    failing = {("q3", "stuffing"), ("q4", "empty"), ("q4", "one_word"), ("q9", "stuffing")}
    kinds = adversarial_rewrites(instances)

    def reward(xs, texts):
        kind = next(name for name, rows in kinds.items() if [[t] for t in rows] == texts)
        rewards = reward_of(score)(xs, texts)
        return [np.full(1, np.nan) if (x.instance_id, kind) in failing else row for x, row in zip(xs, rewards, strict=True)]

    found = probe(instances, reward)
    assert (found.instances, found.lost) == (40, 3)
    for finding in found.findings:
        left = [i for i, x in enumerate(instances) if (x.instance_id, finding.name) not in failing]
        texts = [[kinds[finding.name][i]] for i in left]
        values = np.concatenate(reward_of(score)([instances[i] for i in left], texts))
        assert finding.reward == pytest.approx(values.mean())
        assert finding.low == pytest.approx(values.mean() - 1.96 * values.std(ddof=1) / len(left) ** 0.5)
    assert found.passed == (score is honest)


def test_probe_refuses_to_judge_by_what_is_left_of_too_little():
    def reward(xs, texts):
        return [np.array([np.nan if i < 5 else -0.1]) for i in range(len(xs))]

    assert probe([instance(i) for i in range(50)], reward).passed
    with pytest.raises(ValueError, match="no reward for 5 of 49 instances of the probe, the first 'q0'"):
        probe([instance(i) for i in range(49)], reward)
