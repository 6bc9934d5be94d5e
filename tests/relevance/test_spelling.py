"""Spelling correction: against a brute force over the dictionary, and as a part of the relevance model and the engine."""

import string
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import OSA

from corewrite.domain import Catalogue
from corewrite.relevance import DenseScorer, LateInteraction, cold_start
from corewrite.relevance.spelling import SpellingCorrector
from corewrite.search.engines import EmbeddedEngine

DOCUMENTS = ["interview paris"] * 30 + ["concert berlin"] * 20 + ["cat"] * 9 + ["cats"] * 3
QUERIES = ["interviev"] * 3 + ["newsingername"] * 4 + ["conzert"] * 5


@pytest.fixture(scope="module")
def corrector() -> SpellingCorrector:
    return SpellingCorrector.learn(DOCUMENTS, QUERIES)


@pytest.mark.parametrize(
    ("typed", "corrected"),
    [
        ("interveiw paris", "interview paris"),  # a swap is one edit
        ("interviev", "interview"),  # typed three times, and ten times as often right
        ("conzert", "conzert"),  # typed five times: only four times as often right
        ("intervieww", "interview"),
        ("inttervieww", "interview"),  # two edits from eight letters on
        ("pariss", "paris"),
        ("parisss", "parisss"),  # two edits in seven letters
        ("newsingername", "newsingername"),  # like nothing that is known
        ("cats", "cats"),  # documents hold it
        ("catt", "cat"),  # "cats" is as close, and rarer
        ("ca", "ca"),
        ("", ""),
        ("x" * 4000, "x" * 4000),
    ],
)
def test_words_are_corrected_where_a_close_one_is_far_more_frequent(corrector, typed, corrected):
    found = corrector.correct([typed])
    if typed == "catt":
        corrected = "cat"  # nine is at least eight
    assert found == [corrected]


@given(st.text(string.ascii_lowercase[:5], min_size=1, max_size=10), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_corrections_are_those_of_a_search_through_all_words(word, seed):
    rng = np.random.default_rng(seed)
    known = {"".join(rng.choice(list("abcde"), rng.integers(4, 10))): int(n) for n in rng.integers(3, 200, 60)}
    documents = dict(list(known.items())[:30])
    queries = {w: n for w, n in list(known.items())[30:] if w not in documents}
    corrector = SpellingCorrector(documents, queries)
    allowed = 1 if len(word) < 8 else 2
    near = [
        (OSA.distance(word, w), -n, w)
        for w, n in {**documents, **queries}.items()
        if w != word and OSA.distance(word, w) <= allowed and n >= 8.0 * max(1, queries.get(word, 0))
    ]
    expected = word if word in documents or len(word) < 4 or not near else min(near)[2]
    assert corrector.correct([word]) == [expected]


def test_it_is_stored_with_the_model_and_part_of_its_hash(corrector, catalogue: Catalogue, tmp_path):
    model = replace(cold_start(catalogue), spelling=corrector)
    model.save(tmp_path / "with")
    loaded = LateInteraction.load(tmp_path / "with")
    assert loaded.model_hash == model.model_hash
    assert loaded.spelling is not None and loaded.spelling.correct(["interveiw"]) == ["interview"]
    without = replace(model, spelling=None)
    assert without.model_hash != model.model_hash
    without.save(tmp_path / "without")
    assert LateInteraction.load(tmp_path / "without").model_hash == without.model_hash


@pytest.mark.parametrize("text", ["", "{}", '{"documents": {"a": "many"}, "queries": {}, "ratio": 8}', "[1]"])
def test_a_damaged_dictionary_is_refused(catalogue: Catalogue, tmp_path, text):
    cold_start(catalogue).save(tmp_path)
    (tmp_path / "spelling.json").write_text(text, "utf-8")
    with pytest.raises(ValueError, match="damaged"):
        LateInteraction.load(tmp_path)


def test_a_misspelt_word_scores_and_recalls_as_the_right_one(catalogue: Catalogue):
    model = cold_start(catalogue)
    assert model.spelling is not None
    word = max((w for w in model.spelling.documents if len(w) >= 6), key=lambda w: model.spelling.documents[w])
    slip = word[:2] + word[3] + word[2] + word[4:] if word[2] != word[3] else word[:2] + word[3:]
    assert slip not in model.spelling.documents and model.correct([slip]) == [word]
    dense = DenseScorer(model.bind(catalogue))
    rows = np.arange(20)[None, :]
    for scorer in (dense, dense.full):
        assert np.array_equal(scorer.score([slip], rows), scorer.score([word], rows))
    engine = EmbeddedEngine(catalogue, dense.document_vectors, model.correct)
    assert np.array_equal(engine.search_text([slip], 20), engine.search_text([word], 20))
    assert (engine.search_text([slip], 20) >= 0).any()


def test_the_beginning_of_a_word_finds_documents_that_hold_it(catalogue: Catalogue):
    dense = DenseScorer(cold_start(catalogue).bind(catalogue))
    engine = EmbeddedEngine(catalogue, dense.document_vectors)
    everything = " ".join(catalogue.titles).split()
    word = max((w for w in set(everything) if len(w) >= 8), key=everything.count)
    begun = word[:-2]
    assert begun not in everything
    found = engine.search_text([begun], 50)[0]
    assert (found >= 0).any()
    assert any(word in catalogue.titles[row].split() for row in found[found >= 0])
