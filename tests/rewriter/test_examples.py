"""Self-supervision: what is damaged, how, and what is left whole."""

from rapidfuzz.distance import OSA

from corewrite.domain import Context, Query, words
from corewrite.rewriter import context_word_dropout, other_contexts, title_conditioned_dropout, typo_noise

GOOD = [
    Query("Red Lion trailer", Context(("zoo",), ("The red lion",), "en")),
    Query("how to cook rice", Context(("boil eggs",), ("Eggs",), "de")),
    Query("interesting documentary"),
    Query(""),
    Query("x"),
] * 20


def test_a_typo_is_one_edit_in_one_word_and_is_restored() -> None:
    made = typo_noise(GOOD, seed=1)
    contexts = {q.text.lower(): q.context for q in GOOD}
    for example in made:
        assert example.query.context == contexts[example.target]
        pairs = zip(example.query.text.split(), example.target.split(), strict=True)
        wrong = [(a, b) for a, b in pairs if a != b]
        assert len(wrong) == 1
        assert OSA.distance(*wrong[0]) == 1
    assert len({e.query.text for e in made if e.target == "interesting documentary"}) > 5
    # Nothing to damage in an empty query or a very short word.
    assert {e.target for e in made} == {"red lion trailer", "how to cook rice", "interesting documentary"}
    assert made == typo_noise(GOOD, seed=1) != typo_noise(GOOD, seed=2)


def test_context_word_dropout_leaves_out_what_the_own_context_says() -> None:
    made = context_word_dropout(GOOD)
    assert {(e.query.text, e.target) for e in made} == {("trailer", "red lion trailer")}
    assert made[0].query.context == GOOD[0].context


def test_title_conditioned_dropout_puts_the_words_left_out_into_a_title() -> None:
    titles = ["a red lion at night", "rice for two", "red lion trailer", "nothing of it"]
    made = title_conditioned_dropout(GOOD, titles, seed=1)
    assert made == title_conditioned_dropout(GOOD, titles, seed=1) != title_conditioned_dropout(GOOD, titles, seed=2)
    for example in made:
        title = example.query.context.titles[-1]
        left = set(example.query.text.split())
        assert title in titles
        assert set(example.target.split()) - left == set(example.target.split()) & set(words(title)) != set()
    # A title that says the whole query leaves nothing to type, so it makes no example.
    assert {(e.query.text, e.target) for e in made} == {("trailer", "red lion trailer"), ("how to cook", "how to cook rice")}


def test_other_contexts_ask_for_no_change() -> None:
    made = other_contexts(GOOD, seed=1)
    assert [e.target for e in made] == [q.text.lower() for q in GOOD]
    assert [e.query.text for e in made] == [q.text for q in GOOD]
    assert [e.query.context.locale for e in made] == [q.context.locale for q in GOOD]
    # The contexts are those of the others, dealt out anew.
    borrowed = sorted((e.query.context.queries, e.query.context.titles) for e in made)
    assert borrowed == sorted((q.context.queries, q.context.titles) for q in GOOD)
    assert sum(e.query.context.titles != q.context.titles for e, q in zip(made, GOOD, strict=True)) > len(GOOD) / 3
