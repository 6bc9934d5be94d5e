import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import OSA

from corewrite.simulation.vocabulary import ASPECTS, CATEGORIES, misspell, pseudo_words


@given(st.text("abcdefgh", min_size=1, max_size=12), st.floats(0, 1, exclude_max=True))
def test_a_slip_is_one_edit_away(word, draw):
    assert OSA.distance(word, misspell(word, draw)) <= 1
    if len(word) < 4:
        assert misspell(word, draw) == word


def test_pseudo_words_are_distinct_and_none_of_the_fixed_ones():
    found = pseudo_words(2000, np.random.default_rng(0))
    fixed = {w for c, s in ASPECTS for w in (c, *s)} | {c for c, _ in CATEGORIES}
    assert len(set(found)) == 2000 and not fixed & set(found)


@pytest.mark.parametrize("category", CATEGORIES)
def test_aspects_of_categories_exist(category):
    assert all(0 <= a < len(ASPECTS) for a in category[1])
