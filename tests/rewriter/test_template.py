"""The prompt builder: structure that no user text can change, and what is cut when it gets long."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewrite.domain import Context, Query
from corewrite.rewriter import PromptTemplate, PromptTooLongError, Rewriter, TemplateConfig, folded_locale
from corewrite.rewriter.template import EARLIER, MARKS, QUERY, REWRITE, TITLE

PIECES = [*MARKS, "<|end|>", "<|pad|>", "<|", "|>", "title", "<|ti", "tle|>", " ", "lion", "<|query|", "\u200b", "\ud800"]
HOSTILE = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map("".join) | st.text()


def built(rewriter: Rewriter, **config: Any) -> PromptTemplate:
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
    parts = [(TITLE, "A"), (TITLE, "B"), (EARLIER, "cats"), (EARLIER, "eggs"), (QUERY, "red lion"), (REWRITE, "")]
    assert sections(rewriter, rewriter.template.encode(query)) == [(REWRITE, "en"), *parts]
    assert sections(rewriter, built(rewriter, format=1).encode(query)) == parts
    assert sections(rewriter, rewriter.template.encode(Query(" red \n lion "))) == [(QUERY, "red lion"), (REWRITE, "")]


@given(texts=st.lists(HOSTILE, min_size=3, max_size=3), blank=st.sampled_from(["", " ", "\n\u3000"]))
def test_without_a_locale_a_prompt_is_that_of_format_1(trained: Rewriter, texts: list[str], blank: str) -> None:
    limits = {"max_tokens": 60, "part_tokens": 20}
    old, new = built(trained, format=1, **limits), built(trained, **limits)
    title, earlier, text = texts
    for locale in (blank, "de"):
        query = Query(text, Context((earlier,), (title,), locale))
        if why := new.too_long(query):
            assert why == old.too_long(query)
            continue
        assert (new.encode(query) == old.encode(query)) == (locale == blank)
        # Format 1 knows no locale.
        assert old.encode(query) == old.encode(Query(text, Context((earlier,), (title,))))
    assert old.truncated >= new.truncated - 1


def test_the_home_locale_goes_without_saying(rewriter: Rewriter) -> None:
    def encoded(locale: str, **config: Any) -> list[int]:
        return built(rewriter, **config).encode(Query("lion", Context(("cats",), (), locale)))

    plain = encoded("de", format=1)
    for home in ("en-US", "en-us"):
        assert encoded("EN_us", home_locale=home) == encoded("", home_locale=home) == plain
        assert encoded("de", home_locale=home) == encoded("de") != plain
        assert encoded("en", home_locale=home) == encoded("en") != plain


@pytest.mark.parametrize("other", ["en-us", "EN-US", "en_US", " En-Us "])
def test_a_language_tag_has_one_form(rewriter: Rewriter, other: str) -> None:
    def encoded(locale: str) -> list[int]:
        return rewriter.template.encode(Query("lion", Context(locale=locale)))

    assert encoded(other) == encoded("en-US") != encoded("en-GB")
    assert sections(rewriter, encoded(other))[0] == (REWRITE, "en-us")


@given(locale=HOSTILE, texts=st.lists(HOSTILE, min_size=3, max_size=3))
def test_no_text_can_stand_for_a_locale_nor_a_locale_for_a_text(trained: Rewriter, locale: str, texts: list[str]) -> None:
    template = built(trained, max_tokens=4000, part_tokens=1000)
    title, earlier, text = texts
    marks = [mark for mark, _ in sections(trained, template.encode(Query(text, Context((earlier,), (title,), locale))))]
    rest = [TITLE, EARLIER, QUERY, REWRITE]
    assert marks == ([REWRITE, *rest] if template.encode_text(folded_locale(locale)) else rest)


def test_a_locale_goes_last(rewriter: Rewriter) -> None:
    query = Query("rice", Context(("eggs",), ("A long title of cats",), "de"))
    own, whole = len(built(rewriter).encode(Query("rice"))), len(built(rewriter).encode(query))
    tag = len(rewriter.template.encode_text("de")) + 1
    seen = []
    for limit in range(whole, own - 1, -1):
        template = built(rewriter, max_tokens=limit)
        marks = [m for m, _ in sections(rewriter, template.encode(query))]
        assert template.truncated == (limit < whole)
        assert (marks[0] == REWRITE) == (limit >= own + tag)
        seen += [marks] if marks not in seen else []
    assert seen == [
        [REWRITE, TITLE, EARLIER, QUERY, REWRITE], [REWRITE, EARLIER, QUERY, REWRITE], [REWRITE, QUERY, REWRITE],
        [QUERY, REWRITE],
    ]  # fmt: skip
    # A log may hold anything: no more than a part's tokens.
    assert len(built(rewriter, part_tokens=5).encode(Query("rice", Context(locale="x" * 900)))) == own + 6


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
    monkeypatch.setattr("corewrite.rewriter.text_encoder._REMEMBERED", 1_000)
    template = PromptTemplate(rewriter.template._tokenizer, rewriter.template.config)
    for i in range(50):
        template.encode_text(f"{i} " + "lion " * 10)
    assert 5 < len(template._texts._known) < 20 and f"49 {'lion ' * 10}" in template._texts._known
    template.encode_text("x" * 2_000)
    assert "x" * 2_000 not in template._texts._known and template._texts._known.currsize <= 1_000
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


@pytest.mark.parametrize("number", [1, 2])
def test_config_round_trip(number: int) -> None:
    config = TemplateConfig(max_tokens=50, titles=0, queries=1, part_tokens=7, format=number)
    assert TemplateConfig.from_json(config.to_json()) == config


def test_format_1_reads_and_writes_as_it_did() -> None:
    """Byte by byte: the text is part of the policy's hash."""
    text = '{"format": 1, "max_tokens": 60, "part_tokens": 7, "queries": 0, "titles": 1}'
    assert TemplateConfig.from_json(text) == TemplateConfig(60, 1, 0, 7, format=1)
    assert TemplateConfig.from_json(text).to_json() == text
    assert TemplateConfig(60, 1, 0, 7, "de").to_json() == text.replace('1, "max', '2, "home_locale": "de", "max')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting"),
        ("[]", "format that this version"),
        ("{}", "format that this version"),
        ('{"titles": 2}', "format that this version"),
        ('{"format": 4}', "format that this version"),
        ('{"format": 1, "home_locale": "de"}', "format that this version"),
        ('{"format": 2, "home_locale": 7}', "home_locale of the prompt template must be a language tag, not 7"),
        ('{"format": true}', "format of the prompt template must be an integer"),
        ('{"format": 1, "extra": 3}', "format that this version"),
        ('{"format": 1, "titles": -1}', "titles of the prompt template must be an integer of at least 0, not -1"),
        ('{"format": 1, "max_tokens": "9"}', "max_tokens of the prompt template must be an integer"),
        ("[" * 100_000, "nested too deeply"),
        ('{"format": 1, "queries": true}', "queries of the prompt template must be an integer"),
    ],
)
def test_config_refusals(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TemplateConfig.from_json(text)
