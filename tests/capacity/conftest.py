"""A tiny policy made in the test."""

import pytest

from corewrite.domain import Context, Query
from corewrite.rewriter import Example, fine_tune, new_small_decoder

WORDS = ["cat", "dog", "fish", "bird", "song", "race", "news", "game"]


@pytest.fixture(scope="session")
def taught():
    """Writes one of three rewrites of a word, mostly. Not to be changed."""
    texts = [*WORDS, *(f"{w} show" for w in WORDS), "show"] * 4
    policy = new_small_decoder(texts, seed=0, vocabulary=320, width=32, layers=2, heads=2)
    queries = [Query(WORDS[i % 8], Context(titles=(WORDS[(3 * i + 1) % 8],))) for i in range(24)]
    examples = [Example(q, text) for q in queries for text in (q.text, f"{q.text} show", "show")]
    fine_tune(policy, examples, epochs=300, seed=0, batch=24, learning_rate=5e-3)
    return policy
