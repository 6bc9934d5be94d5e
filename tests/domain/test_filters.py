"""Filters of rewrites: whole words, linear time, and a plain word about what cannot be used."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewrite.domain import Query, words
from corewrite.domain.filter_settings import PatternFilter, TermsFilter
from corewrite.domain.filters import FilterError, PatternRule, RewriteFilters, TermsRule, load_filters, read_terms

WORDS = st.lists(st.sampled_from(["a", "b", "c", "é"]), max_size=6).map(" ".join)


def reasons(rule, query, *texts):
    return [bool(hit) for hit in RewriteFilters((rule,)).hits(Query(query), texts)]


@given(WORDS, WORDS, st.lists(WORDS.filter(bool), min_size=1, max_size=4))
def test_a_term_is_a_run_of_whole_words_that_the_query_does_not_have(query, text, terms):
    """Against the same by texts with blanks around."""
    rule = TermsRule("t", tuple(tuple(words(t)) for t in terms))
    new = [t for t in terms if f" {t} " in f" {text} " and f" {t} " not in f" {query} "]
    assert reasons(rule, query, text) == [bool(new) and text != query]


@pytest.mark.parametrize(
    ("term", "text", "stopped"),
    [
        ("bad", "a BAD day", True),
        ("bad", "badly", False),
        ("bad word", "bad-word", True),  # marks are no words
        ("bad word", "bad, then a word", False),
        ("ﬁne", "fine", True),  # NFKC
        ("straße", "STRASSE", True),  # folded, not lowered
        ("c++", "c sharp", True),  # its word is "c"
    ],
)
def test_terms_are_compared_normalised(term, text, stopped):
    assert reasons(TermsRule("t", (tuple(words(term)),)), "q", text) == [stopped]


@pytest.mark.parametrize(
    ("pattern", "query", "text", "stopped"),
    [
        (r"\d{4}", "q", "q 2024", True),
        (r"\d{4}", "q 1999", "q 2024", False),  # the user has one himself
        (r"VIAGRA", "q", "buy viagra", True),
        (r"^buy ", "q", "  Buy   now", True),  # blanks are folded first
        (r"脱衣", "舞", "脱衣舞", True),  # languages without blanks
        (r"\p{Cyrillic}", "q", "танец", True),
    ],
)
def test_patterns_are_searched_for_in_the_normalised_text(pattern, query, text, stopped):
    assert reasons(PatternRule(pattern), query, text) == [stopped]


@pytest.mark.parametrize("pattern", [r"(a+)+b", r"(a|a)*b", r"(a|aa)+$", r"(.*a){12}b", r"(\w+\s?)*!"])
def test_no_pattern_hangs_a_server(pattern):
    """Python's own `re` needs more than 2^40 steps for the first on the longest rewrite; this is linear."""
    text = "a" * 119 + "c"
    began = time.process_time()
    assert reasons(PatternRule(pattern), "q", text) == [False]
    assert time.process_time() - began < 1.0
    # The same answer as a backtracking search on a text that one can finish.
    assert reasons(PatternRule(pattern), "q", "aac") == [re.search(pattern, "aac") is not None]


def test_a_pattern_that_every_search_would_wait_for_is_refused():
    with pytest.raises(FilterError, match=r"takes \d+ ms .* smaller counted repetitions"):
        load_filters([PatternFilter(kind="pattern", pattern=r"(\pL{1,100})+x")])
    with pytest.raises(ValueError, match="too large"):
        PatternFilter(kind="pattern", pattern=r"\pL{1,1000}")
    assert load_filters([PatternFilter(kind="pattern", pattern=r"\bfoo \d{1,4}\b")]).rules


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"# none\n\n", r"terms.txt: holds no term"),
        (b"good\n!!!\n", r"terms.txt:2: '!!!' holds no letter"),
        (b"good\n\nb\xe4d\n", r"terms.txt:3: this is not UTF-8"),
        (None, r"terms.txt: cannot read the terms: No such file"),
    ],
)
def test_what_is_wrong_with_a_term_file_is_said_with_its_line(tmp_path, data, message):
    path = tmp_path / "terms.txt"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(FilterError, match=message):
        load_filters([TermsFilter(kind="terms", file=path)])


def test_terms_are_read_whatever_wrote_the_file(tmp_path):
    path = tmp_path / "terms.txt"
    path.write_bytes("\ufeffBad Word\r\n# no\r\nworse\r\nbad  word".encode())
    assert read_terms(path) == (("bad", "word"), ("worse",))


def test_a_training_is_known_by_what_its_filters_stop(tmp_path):
    a, b = tmp_path / "a.txt", tmp_path / "b.txt"
    a.write_text("one\ntwo words\n")
    b.write_text("# moved, sorted otherwise\nTwo  words\nONE\n")
    identities = [load_filters([TermsFilter(kind="terms", file=f)]).identity for f in (a, b)]
    assert identities[0] == identities[1]
    b.write_text("one\n")
    assert load_filters([TermsFilter(kind="terms", file=b)]).identity != identities[0]
    assert RewriteFilters().identity == []


def test_the_query_stands_where_its_one_rewrite_is_stopped():
    filters = RewriteFilters((PatternRule("x"), PatternRule("y")))
    queries = [Query("a"), Query("a x"), Query("b"), Query("c")]
    assert filters.as_served(queries, ["a x", "a x y", "b b", None]) == [None, None, "b b", None]
    assert RewriteFilters().as_served(queries, ["a x"] * 4) == ["a x"] * 4
