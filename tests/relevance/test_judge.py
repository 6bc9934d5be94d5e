"""The judge: another family, graded lists, nDCG against ir_measures."""

from dataclasses import replace

import ir_measures
import numpy as np
import pytest
from ir_measures import nDCG

from corewrite.domain import Context, Query
from corewrite.relevance import Labels, TreeJudge, judged_documents
from corewrite.relevance.nearest_words import NearestWords
from corewrite.relevance.protocol import calibration_error
from corewrite.search.document_store import DocumentStore
from corewrite.search.documents import write_catalogue


@pytest.fixture(scope="module")
def labels(world):
    rng = np.random.default_rng(1)
    queries, rows, grades = [], [], []
    for _ in range(900):
        asked = int(rng.integers(len(world.catalogue)))
        e = world.video_entity[asked]
        query = Query(world.names[e], Context(titles=(world.catalogue.titles[int(rng.integers(len(world.catalogue)))],)))
        for row in (asked, int(rng.choice(np.flatnonzero(world.video_entity == e))), *rng.integers(0, len(world.catalogue), 3)):
            queries.append(query)
            rows.append(int(row))
            grades.append(3.0 if world.video_entity[row] == e else 0.0)
    noise = rng.random(len(rows)) < 0.1
    return Labels(queries, np.array(rows), np.where(noise, rng.integers(0, 4, len(rows)), grades).astype(float))


@pytest.fixture(scope="module")
def judge(catalogue, labels):
    judge = TreeJudge(catalogue)
    report = judge.fit(labels, seed=0)
    assert report.rank_correlation > 0.5
    return judge


def test_grades_follow_relevance(judge, world):
    e = 3
    right, wrong = np.flatnonzero(world.video_entity == e)[:20], np.flatnonzero(world.video_entity != e)[:20]
    query = Query(world.names[e])
    grades = judge.grade([query, query], np.stack([right, wrong]))
    assert grades[0].mean() > grades[1].mean() + 1
    assert (judge.grade([query], np.array([[-1, 0]]))[0, 0]) == 0


def test_ndcg_equals_ir_measures_on_the_judges_own_grades(judge, world):
    rng = np.random.default_rng(3)
    queries = [Query(world.names[e]) for e in range(12)]
    lists = [rng.permuted(np.tile(np.arange(len(world.catalogue)), (12, 1)), axis=1)[:, :10] for _ in range(2)]
    ours = judge.ndcg10(queries, lists)
    qrels, runs = {}, [{}, {}]
    for i, query in enumerate(queries):
        pool = np.unique(np.concatenate([rows[i] for rows in lists]))
        graded = judge.grade([query], pool[None, :])[0]
        # ir_measures takes whole grades: a fine grid of them keeps the ratio.
        qrels[f"q{i}"] = {f"d{d}": round(g * 1e6) for d, g in zip(pool, graded, strict=True)}
        qrels[f"q{i}"] |= {f"ideal{k}": 3_000_000 for k in range(10)}  # of the highest grade, and shown by none
        for run, rows in zip(runs, lists, strict=True):
            run[f"q{i}"] = {f"d{d}": 100.0 - k for k, d in enumerate(rows[i])}
    for run, values in zip(runs, ours, strict=True):
        expected = {m.query_id: m.value for m in ir_measures.iter_calc([nDCG(dcg="log2") @ 10], qrels, run)}
        assert [expected[f"q{i}"] for i in range(12)] == pytest.approx(values.tolist(), abs=1e-5)


def test_what_a_list_is_worth_depends_on_no_other_list(judge, world):
    queries, rng = [Query(world.names[e]) for e in range(5)], np.random.default_rng(4)
    one, other, third = (rng.integers(0, len(world.catalogue), (5, 10)) for _ in range(3))
    alone, beside = judge.ndcg10(queries, [one])[0], judge.ndcg10(queries, [third, one, other])[1]
    assert alone.tolist() == beside.tolist()


def test_a_slip_is_read_as_the_known_word(judge, world):
    name = max((n for n in world.names if " " not in n and len(n) > 5), key=len)
    slip = name[:2] + name[3] + name[2] + name[4:]
    rows = np.flatnonzero(world.video_entity == world.names.index(name))[None, :10]
    assert judge.grade([Query(slip)], rows).tolist() == judge.grade([Query(name)], rows).tolist()
    read = NearestWords(["lantern", "lanterns", "river"]).read
    assert read("Lantenr rivre xyzzy") == "lantern river xyzzy"


def test_calibration_error_against_a_loop():
    rng = np.random.default_rng(0)
    predicted = rng.uniform(0, 3, 1_003)
    given = np.clip(predicted + 0.4 + rng.normal(0, 0.1, 1_003), 0, 9)
    wanted, order = 0.0, sorted(range(1_003), key=lambda i: predicted[i])
    for k in range(7):
        some = order[sum(143 + (j < 2) for j in range(k)) :][: 143 + (k < 2)]
        wanted += len(some) / 1_003 * abs(sum(predicted[i] for i in some) / len(some) - sum(given[i] for i in some) / len(some))
    assert calibration_error(predicted, given, 7) == pytest.approx(wanted) and wanted == pytest.approx(0.4, abs=0.02)
    assert calibration_error(given, given) == 0.0


def test_unfitted_and_starved_judges_say_so(catalogue, labels):
    with pytest.raises(RuntimeError, match="fit first"):
        TreeJudge(catalogue).grade([Query("x")], np.array([[0]]))
    few = Labels(labels.queries[:50], labels.rows[:50], labels.grades[:50])
    with pytest.raises(ValueError, match="there are 50"):
        TreeJudge(catalogue).fit(few, seed=0)


def graded(judge, world):
    """Grades of searches with context, over all documents, in two calls."""
    rng = np.random.default_rng(5)
    titles = world.catalogue.titles
    queries = [Query(world.names[e], Context((world.names[0],), (titles[7 * e],))) for e in range(20)]
    rows = rng.integers(-1, len(world.catalogue), (20, 40))
    return np.concatenate([judge.grade(queries[:10], rows[:10]), judge.grade(queries[10:], rows[10:])])


@pytest.fixture(scope="module")
def store(catalogue, tmp_path_factory):
    path = tmp_path_factory.mktemp("judge") / "documents.parquet"
    write_catalogue(catalogue, path)
    return DocumentStore.open(path)


@pytest.mark.parametrize("most", [10**6, 150])
def test_documents_that_are_read_when_asked_about_are_graded_alike(judge, labels, store, world, monkeypatch, most):
    monkeypatch.setattr(judged_documents, "_LEARNT", 100)
    monkeypatch.setattr(judged_documents, "_HELD", most)
    monkeypatch.setattr(judged_documents, "sample_rows", lambda n, *_: np.arange(n))  # the statistics of all
    few = TreeJudge(store)
    few.fit(labels, seed=0)
    found = graded(few, world)
    np.testing.assert_array_equal(found, graded(judge, world))
    held = few._known.words.shape[0]
    assert held == len(few._known._place) and (held <= 420 if most == 150 else held > 1_000)


def test_statistics_of_a_sample_change_little(judge, labels, store, world, monkeypatch):
    monkeypatch.setattr(judged_documents, "_LEARNT", 1_000)
    some = TreeJudge(store)
    some.fit(labels, seed=0)
    found, wanted = graded(some, world), graded(judge, world)
    assert (found != wanted).any() and np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.9


def test_grades_without_some_pictures(judge, labels, catalogue, world):
    visual = catalogue.visual.copy()
    visual[::3] = np.nan
    found = TreeJudge(replace(catalogue, visual=visual))
    found.fit(labels, seed=0)
    grades = graded(found, world)
    assert np.isfinite(grades).all() and np.corrcoef(grades.ravel(), graded(judge, world).ravel())[0, 1] > 0.8
