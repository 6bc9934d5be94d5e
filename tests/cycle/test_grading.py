"""Pairs for a team's raters as a file, their grades among the labels, and the judge that must not have learnt from them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corewrite.cycle import read_labels, write_labels
from corewrite.cycle.grading import GradesAwaitedError, LabelsFileRaters, add_grades, read_labels_without_pairs
from corewrite.domain import Catalogue, Context, Query
from corewrite.relevance import Labels
from corewrite.relevance.pair_sample import PairsToGrade
from corewrite.search.documents import DocumentsError

N = 12


@pytest.fixture
def catalogue():
    ids = tuple(f"d{i}" for i in range(40))
    titles = tuple(f"red lion {i}" for i in range(40))
    return Catalogue(ids, titles, ("",) * 40, np.ones((40, 2), np.float32), np.full(40, 60.0), np.ones(40))


@pytest.fixture
def pairs():
    queries = [Query("lion", Context((f"earlier {i}",), ("a title",), "en")) for i in range(N)]
    return PairsToGrade([f"s{i}" for i in range(N)], queries, np.arange(N) * 3, np.linspace(0.1, 1.0, N))


@pytest.fixture
def raters(catalogue, tmp_path):
    old = Labels([Query("lion"), Query("bear")], np.array([1, 2]), np.array([2.0, 0.0]))
    write_labels(old, catalogue, tmp_path / "labels.parquet")
    return LabelsFileRaters(tmp_path / "week" / "pairs.parquet", tmp_path / "labels.parquet", catalogue)


def graded(raters, wanted, out):
    """The file that raters were given, with the grades `wanted` by search."""
    table = pq.read_table(raters.pairs)
    grades = [wanted.get(s) for s in table["search_id"].to_pylist()]
    pq.write_table(table.append_column("grade", pa.array(grades, pa.float64())), out)
    return out


def test_a_week_waits_for_its_grades_and_then_has_them(raters, pairs, catalogue, tmp_path):
    with pytest.raises(GradesAwaitedError, match=r"graded 0 of the 12 pairs in .*pairs\.parquet.*add-grades"):
        raters.grade(pairs)
    asked = pq.read_table(raters.pairs)
    assert asked.column_names == [
        "search_id", "query", "context_queries", "context_titles", "locale", "document_id", "title", "probability",
    ]  # fmt: skip
    assert asked["title"].to_pylist() == [f"red lion {d[1:]}" for d in asked["document_id"].to_pylist()]
    found = set(zip(asked["search_id"].to_pylist(), asked["document_id"].to_pylist(), strict=True))
    assert found == {(f"s{i}", f"d{3 * i}") for i in range(N)}
    wanted = {f"s{i}": float(i % 4) for i in range(8)}
    file = graded(raters, wanted, tmp_path / "graded.parquet")
    assert add_grades(file, raters.labels) == 8
    found = raters.grade(pairs)
    np.testing.assert_array_equal(found, [*(i % 4 for i in range(8)), *[np.nan] * 4])
    # Once more: nothing is added twice, and what came later is.
    assert add_grades(file, raters.labels) == 0
    assert add_grades(graded(raters, wanted | {"s9": 3.0}, tmp_path / "more.parquet"), raters.labels) == 1
    assert raters.grade(pairs)[9] == 3.0
    labels = read_labels(raters.labels, catalogue)
    assert len(labels.rows) == 11 and labels.queries[0] == Query("lion") and labels.grades[:2].tolist() == [2.0, 0.0]


def test_a_judge_learns_from_all_labels_but_those_that_are_to_correct_it(raters, pairs, catalogue, tmp_path):
    with pytest.raises(GradesAwaitedError):
        raters.grade(pairs)
    add_grades(graded(raters, {f"s{i}": 1.0 for i in range(N)}, tmp_path / "graded.parquet"), raters.labels)
    every = read_labels(raters.labels, catalogue)
    kept = read_labels_without_pairs(raters.labels, raters.pairs, catalogue)
    assert len(every.rows) == 2 + N and kept.rows.tolist() == [1, 2] and kept.queries == [Query("lion"), Query("bear")]
    # A cycle knows how many there were when its week began.
    began = read_labels(raters.labels, catalogue, first=2)
    assert began.rows.tolist() == kept.rows.tolist() and began.queries == kept.queries
    assert len(read_labels_without_pairs(raters.labels, tmp_path / "nothing was asked", catalogue).rows) == 2 + N


def test_labels_keep_their_own_columns_and_whole_grades(raters, pairs, tmp_path):
    own = pa.table({"query": ["lion"], "document_id": ["d1"], "grade": pa.array([3], pa.int64()), "rater": ["ann"]})
    pq.write_table(own, raters.labels)
    with pytest.raises(GradesAwaitedError):
        raters.grade(pairs)
    assert add_grades(graded(raters, {"s0": 2.0}, tmp_path / "graded.parquet"), raters.labels) == 1
    table = pq.read_table(raters.labels)
    assert table["rater"].to_pylist() == ["ann", None] and table["grade"].to_pylist() == [3.0, 2.0]
    assert set(table.column_names) == {
        "query", "document_id", "grade", "rater", "search_id", "context_queries", "context_titles", "locale",
    }  # fmt: skip


def test_grades_that_are_none_are_refused(raters, pairs, tmp_path):
    with pytest.raises(GradesAwaitedError):
        raters.grade(pairs)
    with pytest.raises(ValueError, match="grade 4 is not between 0 and 3"):
        add_grades(graded(raters, {"s0": 4.0}, tmp_path / "graded.parquet"), raters.labels)
    with pytest.raises(DocumentsError, match="grade"):
        add_grades(raters.pairs, raters.labels)
