"""Graded truth against an independent implementation of nDCG."""

import ir_measures
import numpy as np
from ir_measures import nDCG

from corewrite.simulation.intents import Intents, grades, intent_named, ndcg10, oracle_rewrites


def test_ndcg_equals_ir_measures(platform):
    week, world = platform.week, platform.world
    some = np.arange(0, len(week), len(week) // 60)
    intents, rows = week.intents.take(some), week.ranking.rows[some]
    every = np.arange(len(world.catalogue))[None, :]
    qrels, run = {}, {}
    for i in range(len(some)):
        truth = grades(world, intents.take(np.array([i])), every)[0]
        qrels[f"q{i}"] = {f"d{row}": int(g) for row, g in enumerate(truth) if g > 0}
        run[f"q{i}"] = {f"d{row}": 10.0 - k for k, row in enumerate(rows[i]) if row >= 0}
    measure = nDCG(dcg="log2") @ 10
    expected = {m.query_id: m.value for m in ir_measures.iter_calc([measure], qrels, run)}
    ours = ndcg10(world, intents, rows)
    for i, value in enumerate(ours):
        if qrels[f"q{i}"]:
            assert abs(value - expected[f"q{i}"]) < 1e-9


def test_grades_by_hand(platform):
    world = platform.world
    video = int(np.flatnonzero((world.video_second == -1) & (world.video_quality >= 0.5))[0])
    e, a = int(world.video_entity[video]), int(world.video_aspect[video])
    other_aspect, other_entity = (a + 1) % 45, (e + 1) % len(world.names)

    def grade(entity, aspect):
        intent = Intents(np.array([entity]), np.array([aspect]), np.array([int(world.category[e])]))
        return int(grades(world, intent, np.array([[video]]))[0, 0])

    assert (grade(e, a), grade(e, other_aspect), grade(other_entity, a), grade(e, -1)) == (3, 1, 0, 3)


def test_oracle_rewrites_name_the_intent(platform):
    intents = platform.week.intents
    assert intent_named(platform.world, intents, oracle_rewrites(platform.world, intents)).all()
    typed = [q.text for q in platform.week.queries]
    assert 0.3 < intent_named(platform.world, intents, typed).mean() < 0.95
