"""The judge: another family, graded lists, nDCG against ir_measures."""

import ir_measures
import numpy as np
import pytest
from ir_measures import nDCG

from corewrite.domain import Context, Query
from corewrite.relevance import Judge, Labels


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
    judge = Judge(catalogue)
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
        for run, rows in zip(runs, lists, strict=True):
            run[f"q{i}"] = {f"d{d}": 100.0 - k for k, d in enumerate(rows[i])}
    for run, values in zip(runs, ours, strict=True):
        expected = {m.query_id: m.value for m in ir_measures.iter_calc([nDCG(dcg="log2") @ 10], qrels, run)}
        assert [expected[f"q{i}"] for i in range(12)] == pytest.approx(values.tolist(), abs=1e-5)


def test_unfitted_and_starved_judges_say_so(catalogue, labels):
    with pytest.raises(RuntimeError, match="fit first"):
        Judge(catalogue).grade([Query("x")], np.array([[0]]))
    few = Labels(labels.queries[:50], labels.rows[:50], labels.grades[:50])
    with pytest.raises(ValueError, match="there are 50"):
        Judge(catalogue).fit(few, seed=0)
