"""The prompt builder: structure that no user text can change, and what is cut when it gets long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewrite.domain import Context, Query
from corewrite.rewriter import PromptTemplate, PromptTooLongError, Rewriter, TemplateConfig
from corewrite.rewriter.template import EARLIER, MARKS, QUERY, REWRITE, TITLE

PIECES = [*MARKS, "<|end|>", "<|pad|>", "<|", "|>", "title", "<|ti", "tle|>", " ", "lion", "<|query|", "\u200b", "\ud800"]
HOSTILE = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map("".join) | st.text()


def built(rewriter: Rewriter, **config: int) -> PromptTemplate:
    return PromptTemplate(rewriter.tokenizer, TemplateConfig(**config))


def ids(rewriter: Rewriter, mark: str) -> int:
    return rewriter.tokenizer.convert_tokens_to_ids(mark)


def sections(rewriter: Rewriter, prompt: list[int]) -> list[tuple[str, str]]:
    """The prompt taken apart at its marks."""
    names = {ids(rewriter, m): m for m in MARKS}
    out: list[tuple[str, list[int]]] = []
    for token in prompt:
        if token in names:
            out.append((names[token], []))
        else:
            out[-1][1].append(token)
    return [(mark, rewriter.tokenizer.decode(part).strip()) for mark, part in out]


def test_order_of_parts(rewriter: Rewriter) -> None:
    query = Query("red lion", Context(("cats", "eggs"), ("A", "B"), "en"))
    prompt = rewriter.template.encode(query)
    assert sections(rewriter, prompt) == [
        (TITLE, "A"), (TITLE, "B"), (EARLIER, "cats"), (EARLIER, "eggs"), (QUERY, "red lion"), (REWRITE, ""),
    ]  # fmt: skip
    assert sections(rewriter, rewriter.template.encode(Query(" red \n lion "))) == [(QUERY, "red lion"), (REWRITE, "")]


def test_targets_end_with_end_of_sequence(rewriter: Rewriter) -> None:
    target = rewriter.template.encode_target("how to cook rice")
    assert target[-1] == rewriter.tokenizer.eos_token_id
    assert rewriter.template.decode(target).strip() == "how to cook rice"
    assert rewriter.template.encode_target("") == [rewriter.tokenizer.eos_token_id]


@given(texts=st.lists(HOSTILE, min_size=3, max_size=3))
def test_user_text_cannot_make_a_reserved_token(trained: Rewriter, texts: list[str]) -> None:
    title, earlier, text = texts
    template = built(trained, max_tokens=4000, part_tokens=1000)
    reserved = {ids(trained, m) for m in (*MARKS, "<|end|>", "<|pad|>")}
    for piece in texts:
        assert not reserved & set(template.encode_text(piece))
    prompt = template.encode(Query(text, Context((earlier,), (title,))))
    assert [mark for mark, _ in sections(trained, prompt)] == [TITLE, EARLIER, QUERY, REWRITE]
    assert not reserved & set(template.encode_target(text)[:-1])
    assert "<|query|>" not in trained.tokenizer.decode(template.encode_text(text))


@given(st.text())
def test_ordinary_text_survives(trained: Rewriter, text: str) -> None:
    folded = " ".join(text.split())
    if any(mark in folded for mark in (*MARKS, "<|end|>", "<|pad|>")):
        return
    assert trained.template.decode(trained.template.encode_target(text)).strip() == folded.strip()


def test_half_characters_become_the_replacement_character(rewriter: Rewriter) -> None:
    template = rewriter.template
    assert template.encode_text("a\ud800b") == template.encode_text("a\ufffdb")
    assert template.encode_text("\ud83e\udd81") == template.encode_text("🦁")


def test_many_long_texts_do_not_stay_in_memory(rewriter: Rewriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corewrite.rewriter.template._REMEMBERED", 1_000)
    template = rewriter.template
    for i in range(50):
        template.encode_text(f"{i} " + "lion " * 10)
    assert 5 < len(template._known) < 20 and f"49 {'lion ' * 10}" in template._known
    template.encode_text("x" * 2_000)
    assert len(template._known) == 0
    assert template.encode_text("lion") == template.encode_text("lion") != ()


def test_only_the_latest_titles_and_queries_are_kept(rewriter: Rewriter) -> None:
    query = Query("rice", Context(("one", "two", "three"), ("A", "B", "C", "D")))
    prompt = built(rewriter, titles=2, queries=1).encode(query)
    assert sections(rewriter, prompt)[:-2] == [(TITLE, "C"), (TITLE, "D"), (EARLIER, "three")]
    prompt = built(rewriter, titles=0, queries=0).encode(query)
    assert sections(rewriter, prompt) == [(QUERY, "rice"), (REWRITE, "")]


def test_a_long_part_keeps_its_head(rewriter: Rewriter) -> None:
    template = built(rewriter, part_tokens=5)
    prompt = template.encode(Query("rice", Context((), ("boil eggs and cook rice",))))
    inside = prompt[1 : prompt.index(ids(rewriter, QUERY))]
    assert tuple(inside) == template.encode_text("boil eggs and cook rice")[:5]


@given(
    max_tokens=st.integers(8, 80),
    titles=st.lists(st.text(max_size=9), max_size=4),
    earlier=st.lists(st.text(max_size=9), max_size=3),
)
def test_truncation_drops_the_oldest_context_and_never_the_query(
    trained: Rewriter, max_tokens: int, titles: list[str], earlier: list[str]
) -> None:
    limits = {"titles": 4, "queries": 3, "part_tokens": 100}
    query = Query("rice", Context(tuple(earlier), tuple(titles)))
    whole = built(trained, max_tokens=10_000, **limits).encode(query)
    template = built(trained, max_tokens=max_tokens, **limits)
    prompt = template.encode(query)
    assert len(prompt) <= max_tokens
    assert template.truncated == (len(whole) > max_tokens)
    # What is left is the end of the whole prompt, cut at a mark, and one part more would not fit.
    assert whole[len(whole) - len(prompt) :] == prompt
    marks = {ids(trained, m) for m in MARKS}
    assert prompt[0] in marks
    starts = [i for i, token in enumerate(whole) if token in marks]
    earlier_starts = [i for i in starts if i < len(whole) - len(prompt)]
    assert not earlier_starts or len(whole) - earlier_starts[-1] > max_tokens


def test_a_query_that_does_not_fit_is_refused(rewriter: Rewriter) -> None:
    text = "x1 " * 10
    size = len(rewriter.template.encode(Query(text)))
    assert len(built(rewriter, max_tokens=size).encode(Query(text))) == size
    with pytest.raises(PromptTooLongError, match=rf"query of {size} tokens is over the prompt's limit of {size - 1}: 'x1 x1"):
        built(rewriter, max_tokens=size - 1).encode(Query(text, Context(("a",))))


def test_config_round_trip() -> None:
    config = TemplateConfig(max_tokens=50, titles=0, queries=1, part_tokens=7)
    assert TemplateConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting"),
        ("[]", "format that this version"),
        ("{}", "format that this version"),
        ('{"format": 2}', "format that this version"),
        ('{"format": 1, "extra": 3}', "format that this version"),
        ('{"format": 1, "titles": -1}', "titles of the prompt template must be an integer of at least 0, not -1"),
        ('{"format": 1, "max_tokens": "9"}', "max_tokens of the prompt template must be an integer"),
        ('{"format": 1, "queries": true}', "queries of the prompt template must be an integer"),
    ],
)
def test_config_refusals(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TemplateConfig.from_json(text)
