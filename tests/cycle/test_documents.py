import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corewrite.cycle import DocumentsError, read_catalogue, read_labels, write_catalogue, write_labels
from corewrite.cycle.catalogue_files import LabelsWarning
from corewrite.cycle.judges import fitted_judge
from corewrite.domain import Context, Query
from corewrite.relevance import Labels
from corewrite.simulation.config import WorldConfig
from corewrite.simulation.world import make_world


@pytest.fixture(scope="module")
def catalogue():
    return make_world(WorldConfig(videos=500, entities=20)).catalogue


def test_documents_come_back_as_they_were(catalogue, tmp_path):
    write_catalogue(catalogue, tmp_path / "deep" / "d.parquet")
    assert read_catalogue(tmp_path / "deep" / "d.parquet").content_hash == catalogue.content_hash


def test_labels_come_back_as_they_were(catalogue, tmp_path):
    queries = [Query("a", Context(("x", "y"), ("t",), "en")), Query("b")]
    labels = Labels(queries, np.array([3, 7]), np.array([0.0, 3.0]))
    write_labels(labels, catalogue, tmp_path / "l.parquet")
    found = read_labels(tmp_path / "l.parquet", catalogue)
    assert list(found.queries) == queries and found.rows.tolist() == [3, 7] and found.grades.tolist() == [0.0, 3.0]


def test_only_id_and_title_are_needed(tmp_path):
    pq.write_table(pa.table({"id": ["a", "b"], "title": ["x", None]}), tmp_path / "d.parquet")
    found = read_catalogue(tmp_path / "d.parquet")
    assert found.titles == ("x", "") and found.prior.tolist() == [1, 1] and not found.visual.any()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a"]}, "column 'title' is missing"),
        ({"id": ["a", "a"], "title": ["x", "y"]}, "not unique"),
        ({"id": ["a"], "title": ["x"], "prior": [1.5]}, "prior 1.5 of 'a'"),
        ({"id": ["a", "b"], "title": ["x", "y"], "visual": [[1.0], [1.0, 2.0]]}, r"found \[1, 2\]"),
        ({"id": ["a"], "title": ["x"], "visual": [[float("nan")]]}, "not finite"),
    ],
)
def test_bad_documents_are_refused_with_the_value(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "d.parquet")
    with pytest.raises(DocumentsError, match=message):
        read_catalogue(tmp_path / "d.parquet")


def test_unreadable_files_and_unknown_documents(catalogue, tmp_path):
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(DocumentsError, match="cannot be read as Parquet"):
        read_catalogue(tmp_path / "x.parquet")
    pq.write_table(pa.table({"query": ["a"], "document_id": ["nope"], "grade": [1.0]}), tmp_path / "l.parquet")
    with pytest.raises(
        DocumentsError,
        match="1 of 1 rated results are left out, 1 of documents that are not there, such as document 'nope' for query 'a'",
    ):
        read_labels(tmp_path / "l.parquet", catalogue)


def test_labels_of_documents_that_went_are_left_out(catalogue, tmp_path):
    rated = pa.table({"query": ["a", "b"], "document_id": ["gone", catalogue.ids[4]], "grade": [1.0, 2.0]})
    pq.write_table(rated, tmp_path / "l.parquet")
    with pytest.warns(
        LabelsWarning, match="1 of 2 rated results are left out, 1 of documents .*'gone' for query 'a' with grade 1"
    ):
        found = read_labels(tmp_path / "l.parquet", catalogue)
    assert (list(found.queries), found.rows.tolist(), found.grades.tolist()) == ([Query("b")], [4], [2.0])


def test_labels_that_lack_something_are_left_out_and_counted(catalogue, tmp_path):
    a, b = catalogue.ids[4], catalogue.ids[9]
    rated = pa.table(
        {
            "query": ["a", None, "None", "c", "d", "e", "f"],
            "document_id": [a, a, None, b, "gone", b, b],
            "grade": [1.0, 2.0, 2.0, None, 1.0, 3.0, 0.0],
        }
    )
    pq.write_table(rated, tmp_path / "l.parquet")
    with pytest.raises(DocumentsError, match=r"4 of 7 .* 1 of documents .* 3 without a query, .* for query None with grade 2"):
        read_labels(tmp_path / "l.parquet", catalogue)
    pq.write_table(pa.concat_tables([rated, rated.slice(5)]), tmp_path / "l.parquet")
    with pytest.warns(LabelsWarning, match="4 of 9 .* 1 of documents that are not there and 3 without"):
        found = read_labels(tmp_path / "l.parquet", catalogue)
    assert [q.text for q in found.queries] == ["a", "e", "f", "e", "f"] and np.isfinite(found.grades).all()
    assert found.counts() == {
        "used": 5,
        "left_out": {
            "count": 4, "of": 9, "unknown_documents": 1, "incomplete": 3,
            "example": f"document {a!r} for query None with grade 2.0",
        },
    }  # fmt: skip


def test_labels_that_are_all_used_say_so(catalogue, tmp_path):
    write_labels(Labels([Query("a")], np.array([3]), np.array([2.0])), catalogue, tmp_path / "l.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_labels(tmp_path / "l.parquet", catalogue).counts() == {"used": 1, "left_out": None}


def test_the_judge_is_fitted_again_when_raters_have_added_to_the_file(catalogue, tmp_path):
    rng = np.random.default_rng(0)

    def rate(n: int) -> None:
        rows = rng.integers(0, len(catalogue), n)
        grades = rng.integers(0, 4, n).astype(np.float64)
        write_labels(Labels([Query(catalogue.titles[r]) for r in rows], rows, grades), catalogue, tmp_path / "l.parquet")

    write_catalogue(catalogue, tmp_path / "d.parquet")
    rate(200)
    before = fitted_judge(tmp_path / "l.parquet", tmp_path / "d.parquet", 0)
    assert fitted_judge(tmp_path / "l.parquet", tmp_path / "d.parquet", 0) is before
    rate(400)
    after = fitted_judge(tmp_path / "l.parquet", tmp_path / "d.parquet", 0)
    asked, rows = [Query(catalogue.titles[0])], np.arange(50)[None, :]
    assert (after.grade(asked, rows) != before.grade(asked, rows)).any()
