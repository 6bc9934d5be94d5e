"""The one normal form of text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewrite.domain import is_identity, normalise, words


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("  Hello \t\n World ", "hello world"),
        ("ＦＵＬＬ　width", "full width"),
        ("Straße", "strasse"),
        ("ﬁne", "fine"),
        ("e\u0301", "é"),
        ("ΣΊΣΥΦΟΣ", "σίσυφοσ"),
        ("x²", "x2"),
        ("\u00a0\u2003", ""),
        ("", ""),
    ],
)
def test_normalise(text: str, normal: str) -> None:
    assert normalise(text) == normal


@given(st.text())
def test_normalise_is_idempotent_and_folds_blanks(text: str) -> None:
    normal = normalise(text)
    assert normalise(normal) == normal
    assert normal == " ".join(normal.split())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("How-to: boil_eggs 3x!", ["how", "to", "boil", "eggs", "3x"]),
        ("Wi-Fi wi fi", ["wi", "fi", "wi", "fi"]),
        ("東京タワー", ["東京タワー"]),
        ("!?", []),
    ],
)
def test_words(text: str, found: list[str]) -> None:
    assert words(text) == found


@given(st.text(), st.text())
def test_words_of_a_joined_text(a: str, b: str) -> None:
    assert words(f"{a} \n {b}") == words(a) + words(b)
    assert all(w.isalnum() or w.isnumeric() for w in words(a))


@pytest.mark.parametrize(
    ("query", "rewrite", "same"),
    [
        ("cat", "cat", True),
        ("Cat  Show", "cat show", True),
        ("ＣＡＴ", "cat", True),
        ("cat", "", True),
        ("cat", None, True),
        ("cat", " \u3000", True),
        ("", "", True),
        ("cat", "cats", False),
        ("cat show", "show cat", False),
        ("cat!", "cat", False),
        ("", "cat", False),
    ],
)
def test_a_rewrite_that_says_what_the_query_says_is_none(query, rewrite, same):
    assert is_identity(query, rewrite) is same
