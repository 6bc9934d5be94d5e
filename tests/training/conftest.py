"""A tiny policy and instances made in the test."""

import numpy as np
import pytest

from corewrite.domain import Context, Query, TrainingInstance
from corewrite.rewriter import Example, fine_tune, new_small_decoder

WORDS = ["cat", "dog", "fish", "bird", "song", "race", "news", "game"]
TARGETS = {w: f"{w} show" for w in WORDS[:4]} | {w: w for w in WORDS[4:]}


def instance(i: int) -> TrainingInstance:
    word = WORDS[i % len(WORDS)]
    context = Context(titles=(WORDS[(i * 3 + 1) % len(WORDS)],))
    return TrainingInstance(f"q{i}", f"u{i % 7}", Query(word, context), ("a",), (1.0,), ("b",), (1.0,), float(i))


@pytest.fixture(scope="session")
def instances():
    return [instance(i) for i in range(24)]


def decoder(instances, epochs):
    texts = [*WORDS, *(f"{w} show" for w in WORDS), "show"] * 4
    policy = new_small_decoder(texts, seed=0, vocabulary=320, width=32, layers=2, heads=2)
    examples = [Example(x.query, t) for x in instances for t in (x.query.text, f"{x.query.text} show", "show")]
    fine_tune(policy, examples, epochs=epochs, seed=0, batch=24, learning_rate=5e-3)
    return policy


@pytest.fixture(scope="session")
def start(instances):
    """Says anything. Not to be changed, as all of these."""
    return decoder(instances, 12)


@pytest.fixture(scope="session")
def taught(instances):
    """Says one of the three things it was shown for a query, mostly."""
    return decoder(instances, 300)


def reward(instances, texts):
    """Pays for the target of each query, charges for anything else; the identity is neutral."""

    def one(x, text):
        if text == x.query.text:
            return 0.0
        return 0.5 if text == TARGETS[x.query.text] else -0.4

    return [np.array([one(x, t) for t in row]) for x, row in zip(instances, texts, strict=True)]


@pytest.fixture
def toy_reward():
    return reward
