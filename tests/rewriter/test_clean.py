"""Cleaning what a language model wrote."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewrite.rewriter import clean
from corewrite.rewriter.clean import MAX_CHARACTERS


@pytest.mark.parametrize(
    ("text", "cleaned", "malformed"),
    [
        ("red lion", "red lion", False),
        ("  red   lion ", "red lion", False),
        ("red\u00a0lion", "red lion", False),
        ("red lion\n", "red lion", False),
        ("red lion\nand more", "red lion", True),
        ("\n\nred\r\nlion", "red", True),
        ("red\u2028lion", "red", True),
        ("red\tlion", "red lion", True),
        ("red\x00lion", "redlion", True),
        ("\u202ered lion\u202c", "red lion", True),
        ("red\u200b \ufefflion", "red lion", True),
        ("red \ud800lion", "red lion", True),
        ("red\u3164lion", "redlion", True),
        ("\u3164", "", True),
        ("red \ue000lion", "red lion", True),
        ("\ufffd\ufffd red \ufffd lion", "red lion", True),
        ("\ufffd", "", True),
        ("Löwe 🦁 東京 'quoted' C++", "Löwe 🦁 東京 'quoted' C++", False),
        ("", "", True),
        (" \n ", "", True),
        ("\u200b\nred", "", True),
        ("a" * 120, "a" * 120, False),
        ("a" * 121, "a" * 120, True),
        ("a" * 60 + " " + "b" * 60, "a" * 60, True),
        ("a" * 60 + " " + "b" * 59 + " c", "a" * 60 + " " + "b" * 59, True),
    ],
)
def test_table(text: str, cleaned: str, malformed: bool) -> None:
    found = clean(text)
    assert (found.text, found.malformed) == (cleaned, malformed)


ANY = st.text(st.characters()) | st.text(st.sampled_from("ab \n\t\x00\u200b\u2028\ud800\u3000\ufffd"), max_size=200)


@given(ANY, st.sampled_from([1, 5, MAX_CHARACTERS]))
def test_cleaned_text_is_one_short_line_without_control_characters(text: str, limit: int) -> None:
    cleaned = clean(text, limit).text
    assert len(cleaned) <= limit
    assert cleaned.splitlines() in ([], [cleaned])
    assert not any(unicodedata.category(c).startswith("C") or c == "\ufffd" for c in cleaned)
    assert cleaned == " ".join(cleaned.split())


@given(ANY, st.sampled_from([1, 5, MAX_CHARACTERS]))
def test_cleaning_twice_changes_nothing(text: str, limit: int) -> None:
    once = clean(text, limit)
    twice = clean(once.text, limit)
    assert twice.text == once.text
    assert twice.malformed == (once.text == "")
