"""Words that most first results hold, and examples that learn to add them."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewrite.domain import Query
from corewrite.rewriter import Example, expanded, usual_words

WORDS = st.sampled_from(list("abcdefgh"))
TEXTS = st.lists(WORDS, max_size=6).map(" ".join)


def test_what_most_results_hold_and_the_query_lacks_most_widely_held_first():
    results = ["car crash", "crash cars now", "crash cars", "old crash"]
    assert usual_words({"wreck car": results, "goal": []}) == {"wreck car": ("crash", "cars"), "goal": ()}


@given(st.dictionaries(TEXTS.filter(bool), st.lists(TEXTS, max_size=6), max_size=8))
def test_brute_force(results):
    def held(query):
        texts = results[query]
        inside = {w: sum(w in t.split() for t in texts) for w in "abcdefgh"}
        return {w: n for w, n in inside.items() if n and 2 * n >= len(texts) and w not in query.split()}

    usual = Counter(w for q in results for w in held(q))
    found = usual_words(results)
    for query, words in found.items():
        kept = {w: n for w, n in held(query).items() if usual[w] == 1 or usual[w] <= len(results) / 5}
        assert list(words) == sorted(kept, key=lambda w: (-kept[w], w))[:6]


def test_a_share_of_the_examples_says_more_in_the_order_of_the_usual_words():
    usual = {"goal": ("football", "score", "net")}
    examples = [Example(Query("gaol"), "goal") for _ in range(2_000)] + [Example(Query("x"), "x")]
    found = expanded(examples, usual, share=0.3, seed=1)
    assert found == expanded(examples, usual, share=0.3, seed=1)
    assert [e.query for e in found] == [e.query for e in examples]
    assert found[-1] == examples[-1]
    longer = [e.target for e in found[:-1] if e.target != "goal"]
    assert len(longer) / 2_000 == pytest.approx(0.3, abs=0.04)
    subsets = ["football", "score", "net", "football score", "football net", "score net", "football score net"]
    assert set(longer) == {f"goal {s}" for s in subsets}
    assert expanded(examples, usual, share=0.0, seed=1) == examples
