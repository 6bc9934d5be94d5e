import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewrite.domain import Query, TrainingInstance
from corewrite.training import ScoredCandidate, TrainingConfig, select_pairs
from corewrite.training.candidates import Scored, distinct_candidates
from corewrite.training.phase import Selection, select_rows


def candidate(text: str, reward: float, **kwargs) -> ScoredCandidate:
    return ScoredCandidate(text, (*map(ord, text), 0), reward, **kwargs)


def names(pairs):
    return [(p.chosen.text, p.rejected.text) for p in pairs]


def test_ith_best_with_ith_worst():
    row = [candidate(t, r) for t, r in (("aa", 0.1), ("bb", 0.9), ("cc", -0.5), ("dd", 0.3), ("ee", -0.1))]
    assert names(select_pairs(row, k=2, minimum_gap=0.05)) == [("bb", "cc"), ("dd", "ee")]
    assert names(select_pairs(row, k=9, minimum_gap=0.05)) == [("bb", "cc"), ("dd", "ee")], "k_eff = floor(5 / 2)"
    assert names(select_pairs(row, k=1, minimum_gap=0.05)) == [("bb", "cc")]


def test_what_may_not_be_chosen():
    good = candidate("good", -1.0)
    for bad in (
        candidate("bad", -0.01),
        candidate("bad", 0.5, ended=False),
        candidate("bad", 0.5, malformed=True),
    ):
        assert select_pairs([bad, good], 1, 0.05) == []
    neutral = candidate("same", 0.0, identity=True)
    assert names(select_pairs([neutral, good], 1, 0.05)) == [("same", "good")], "identity over harmful teaches restraint"


def test_the_identity_may_be_chosen_where_it_would_be_served_as_it_is(start):
    """A rewrite over the limit of characters is cut: what was learnt would not be what is served."""
    for text, may in (("cat dog " * 10, True), ("cat dog " * 20, False), ("cat\u200bdog", False)):
        x = TrainingInstance("q", "u", Query(text), ("a",), (1.0,), ("b",), (1.0,))
        (identity,) = distinct_candidates(x, [], start, identity=True)
        assert identity.identity and identity.may_be_chosen == may, text


def test_small_gaps_and_near_identical_tokens_are_dropped():
    assert select_pairs([candidate("aa", 0.10), candidate("bb", 0.06)], 1, 0.05) == []
    open_ended = ScoredCandidate("aa ", (97, 97), -0.3, ended=False)
    assert select_pairs([ScoredCandidate("aa", (97, 97, 0), 0.3), open_ended], 1, 0.05) == []


def test_of_equal_rewards_the_fewer_tokens_rank_first():
    row = [candidate("cat cat", 0.5), candidate("cat", 0.5), candidate("dog", 0.0), candidate("dog dog", 0.0)]
    for order in (row, row[::-1]):
        assert names(select_pairs(order, 1, 0.05)) == [("cat", "dog dog")]
    empty = candidate("", 0.5, malformed=True)
    assert names(select_pairs([*row, empty], 1, 0.05)) == [("cat", "dog dog")], "what may not be chosen takes no place"
    low = [candidate("x", 0.0), candidate("y", 0.0)]
    ties = [[candidate(w, 0.5), candidate(f"{w} {w}", 0.5)] for w in ("cat", "dog", "bird", "fish")]
    earlier = [select_pairs(tie + low, 1, 0.05, shorter_first=False)[0].chosen.text for tie in ties]
    assert any(" " in text for text in earlier) and any(" " not in text for text in earlier)


def test_repeated_texts_are_an_error():
    with pytest.raises(ValueError, match="distinct"):
        select_pairs([candidate("a", 1.0), candidate("a", 0.0)], 1, 0.0)


rewards = st.lists(st.sampled_from([-0.5, -0.1, 0.0, 0.2, 0.7]), min_size=0, max_size=9)


@given(rewards, st.integers(1, 4), st.randoms())
def test_selection_ignores_the_order_of_candidates_and_never_repeats_one(values, k, random):
    row = [candidate(f"t{i}", r) for i, r in enumerate(values)]
    pairs = select_pairs(row, k, 0.05)
    shuffled = list(row)
    random.shuffle(shuffled)
    assert select_pairs(shuffled, k, 0.05) == pairs
    used = [c.text for p in pairs for c in (p.chosen, p.rejected)]
    assert len(used) == len(set(used)) and len(pairs) <= k
    assert all(p.gap >= 0.05 and p.chosen.log_reward >= 0 for p in pairs)


def test_what_drops_a_protected_word_or_a_number_counts_as_the_worst(start):
    texts = {"cat": 0.9, "cat zebra": 0.5, "zebra 7": 0.8, "cat zebra 7": 0.4, "zebra cat 7 dog": -0.3}
    x = TrainingInstance("q", "u", Query("zebra 7"), ("a",), (1.0,), ("b",), (1.0,))
    scored = Scored("", {"q": [candidate(t, r) for t, r in texts.items()]}, {}, {})
    config = TrainingConfig(minimum_gap=0.0, k=2)

    def pairs(x, protected):
        (row,) = select_rows(start, [x], scored, config, Selection(protected_words=protected), phase=0)
        return names(row.pairs)

    assert pairs(x, None)[0] == ("cat", "zebra cat 7 dog")
    for protected in (frozenset(), frozenset({"zebra"})):
        chosen, rejected = zip(*pairs(x, protected), strict=True)
        assert chosen == ("zebra 7", "cat zebra 7"), "they keep the number"
        assert {"cat", "cat zebra"} & {*rejected}
    y = TrainingInstance("q", "u", Query("zebra dog"), ("a",), (1.0,), ("b",), (1.0,))
    assert pairs(y, frozenset())[0][0] == "cat" and pairs(y, frozenset({"zebra"}))[0][0] == "zebra 7"
