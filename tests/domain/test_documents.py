"""The columns of a catalogue by name, and what its hash sees of them."""

from dataclasses import replace

import numpy as np
import pytest

from corewrite.domain import Catalogue, Documents
from corewrite.domain.documents import load_prior, number_column, text_column

FRAMES = (np.ones((2, 3), np.float32), np.empty((0, 3), np.float32), np.zeros((1, 3), np.float32))
CATALOGUE = Catalogue(
    ids=("a", "b", "c"),
    titles=("one", "two", "three"),
    texts=("", "more", "x"),
    visual=np.arange(6, dtype=np.float32).reshape(3, 2),
    seconds=np.array([10.0, np.nan, 30.0]),
    prior=np.array([0.5, 1.0, 0.25]),
    columns={
        "creator": ("ann", "", "bob"),
        "popularity": np.array([1.0, np.nan, 3.0]),
        "audio": np.array([[1, 2], [np.nan, np.nan], [3, 4]], np.float32),
        "frames": FRAMES,
    },
)


def test_columns_are_given_by_name_in_the_order_of_the_rows():
    documents: Documents = CATALOGUE
    rows = np.array([2, 0, 2])
    assert documents.column_names == (
        "id", "title", "text", "visual", "seconds", "prior", "creator", "popularity", "audio", "frames",
    )  # fmt: skip
    assert documents.column("id", rows) == documents.load_ids(rows) == ["c", "a", "c"]
    assert documents.column("title", rows) == ["three", "one", "three"]
    assert documents.column("text", rows) == ["x", "", "x"]
    assert documents.column("creator", rows) == ["bob", "ann", "bob"]
    np.testing.assert_array_equal(documents.column("visual", rows), [[4, 5], [0, 1], [4, 5]])
    np.testing.assert_array_equal(documents.column("prior", rows), [0.25, 0.5, 0.25])
    np.testing.assert_array_equal(documents.column("popularity", np.array([1, 2])), [np.nan, 3])
    assert documents.column("popularity", rows).dtype == np.float64 and documents.column("audio", rows).dtype == np.float32
    frames = documents.column("frames", np.array([1, 0]))
    assert [f.shape for f in frames] == [(0, 3), (2, 3)] and frames[1].dtype == np.float32
    assert [len(documents.column(name, np.empty(0, np.int64))) for name in documents.column_names] == [0] * 10


def test_rows_of_ids():
    assert CATALOGUE.find(["c", "z", "a", ""]).tolist() == [2, -1, 0, -1] and CATALOGUE.find([]).dtype == np.int64
    assert CATALOGUE.rows(["b", "b"]).tolist() == [1, 1] and CATALOGUE.id_at(1) == "b"
    with pytest.raises(KeyError, match="'z'"):
        CATALOGUE.rows(["a", "z", "y"])


@pytest.mark.parametrize("rows", [[-1], [0, 3]])
def test_pads_and_rows_beyond_the_end_are_refused(rows):
    for ask in (CATALOGUE.load_ids, lambda r: CATALOGUE.column("frames", r), lambda r: CATALOGUE.id_at(r[-1])):
        with pytest.raises(ValueError, match=f"row {rows[-1]} is not among the 3 documents"):
            ask(np.array(rows))


def test_a_column_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ValueError, match=r"no column 'likes'; there are id, title, text.*frames"):
        CATALOGUE.column("likes", np.array([0]))
    without = replace(CATALOGUE, columns={}, left_out={"visual": "the file has none", "tags": "lists of texts"})
    assert without.column_names == ("id", "title", "text", "seconds", "prior")
    with pytest.raises(ValueError, match=r"'visual' \(the file has none\); there are id, title, text, seconds, prior"):
        without.column("visual", np.array([0]))
    with pytest.raises(ValueError, match=r"'tags' \(lists of texts\)"):
        without.column("tags", np.array([0]))


def test_documents_of_which_only_ids_are_known():
    found = Catalogue.of_ids(["b", "a"])
    assert found.rows(["a"]).tolist() == [1] and found.column_names == ("id",)
    with pytest.raises(ValueError, match=r"no column 'title' \(only ids are known\)"):
        found.column("title", np.array([0]))


def test_a_prior_that_nobody_gave_is_one():
    rows = np.array([2, 0])
    assert load_prior(CATALOGUE, rows).tolist() == [0.25, 0.5]
    assert load_prior(replace(CATALOGUE, left_out={"prior": "the file has none"}), rows).tolist() == [1, 1]


def test_a_column_of_another_kind_is_refused_where_texts_or_numbers_are_needed():
    rows = np.array([0])
    assert text_column(CATALOGUE, "creator", rows) == ["ann"] and number_column(CATALOGUE, "popularity", rows).tolist() == [1]
    for name in ("popularity", "audio", "frames"):
        with pytest.raises(ValueError, match=f"'{name}' of the documents does not hold texts"):
            text_column(CATALOGUE, name, rows)
    for name in ("creator", "audio", "frames"):
        with pytest.raises(ValueError, match=f"'{name}' of the documents does not hold numbers"):
            number_column(CATALOGUE, name, rows)


def test_further_columns_have_the_length_of_the_catalogue_and_names_of_their_own():
    with pytest.raises(ValueError, match="column 'x' has 1 rows, ids has 3"):
        replace(CATALOGUE, columns={"x": ("a",)})
    with pytest.raises(ValueError, match="'prior' has a field of its own"):
        replace(CATALOGUE, columns={"prior": np.ones(3)})


def test_the_hash_sees_further_columns_and_is_that_of_before_without_them():
    bare = replace(CATALOGUE, columns={}, seconds=np.array([10.0, 0.0, 30.0]))
    assert bare.content_hash == "a117f5b58e10fcb2d71a754339292a74714e0d18696988af94f5355471ed4f72"
    assert replace(bare, seconds=CATALOGUE.seconds).content_hash == bare.content_hash
    others = [
        CATALOGUE,
        *(replace(CATALOGUE, columns={n: v for n, v in CATALOGUE.columns.items() if n != left}) for left in CATALOGUE.columns),
        bare,
        replace(bare, columns={"b": ("x", "y", "z")}),
        replace(bare, columns={"c": ("x", "y", "z")}),
        replace(bare, columns={"b": np.arange(6.0).reshape(3, 2)}),
        replace(bare, columns={"b": np.arange(3.0)}),
        replace(bare, columns={"b": (FRAMES[1], FRAMES[0], FRAMES[2])}),
        replace(bare, columns={"b": FRAMES}),
    ]
    assert len({c.content_hash for c in others}) == len(others)
