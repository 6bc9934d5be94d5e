"""Raters: what they read of an intent, how often they err, and that the same pair gets the same grade."""

import numpy as np
import pytest

from corewrite.domain import Query
from corewrite.relevance.pair_sample import PairsToGrade
from corewrite.simulation.intents import Intents, grades
from corewrite.simulation.raters import DRAWS, describe, rate, understood
from corewrite.simulation.vocabulary import CATEGORIES
from corewrite.simulation.world import NONE
from corewrite.studies.raters import SimulatedRaters, labels_of


@pytest.fixture(scope="module")
def world(platform):
    return platform.world


@pytest.fixture(scope="module")
def intents(world):
    """Every entity with an aspect and without, and every category with an aspect and without."""
    n = len(world.names)
    entity = np.concatenate([np.tile(np.arange(n), 2), np.full(2 * len(CATEGORIES), NONE)])
    category = np.concatenate([np.tile(world.category, 2), np.tile(np.arange(len(CATEGORIES)), 2)])
    aspect = np.array([CATEGORIES[c][1][i % len(CATEGORIES[c][1])] for i, c in enumerate(category)])
    aspect[:n] = NONE
    aspect[2 * n : 2 * n + len(CATEGORIES)] = NONE
    return Intents(entity, aspect, category)


def test_a_description_says_the_whole_intent_and_nothing_else(world, intents):
    texts = describe(world, intents)
    read = understood(world, texts)
    for name in ("entity", "aspect", "category"):
        np.testing.assert_array_equal(getattr(read, name), getattr(intents, name))
    assert texts[0] == f"videos of {world.names[0]} (also called {world.aliases[0]})"
    with pytest.raises(ValueError, match="no rater understands 'anything nice'"):
        understood(world, ["anything nice"])


def test_raters_who_never_err_give_the_truth_and_the_others_err_as_often_as_said(world, intents):
    rng = np.random.default_rng(0)
    rows = rng.integers(-1, len(world.catalogue), (len(intents), 300))
    draws = rng.random((*rows.shape, DRAWS))
    truth = grades(world, intents, rows)
    np.testing.assert_array_equal(rate(world, describe(world, intents), rows, draws, errors=0.0), truth)
    given = rate(world, describe(world, intents), rows, draws)
    one = (truth == 1) & (rows >= 0)
    # Off by one in 25 %; then 5 % are made up, a quarter of them right.
    right = 0.95 * 0.75 + 0.05 * 0.25
    assert (given[one] == 1).mean() == pytest.approx(right, abs=4 * np.sqrt(right * (1 - right) / one.sum()))
    assert set(np.unique(given)) == {0.0, 1.0, 2.0, 3.0} and not given[rows < 0].any()


def test_a_pair_gets_its_grade_whatever_is_asked_beside_it_and_none_without_a_description(world, intents):
    ids = [f"s{i}" for i in range(40)]
    raters = SimulatedRaters(world, dict(zip(ids[:30], describe(world, intents.take(np.arange(30))), strict=True)))
    rng = np.random.default_rng(1)
    rows = rng.integers(0, len(world.catalogue), 40)
    pairs = PairsToGrade(ids, [Query(i) for i in ids], rows, np.ones(40))
    given = raters.grade(pairs)
    assert np.isnan(given[30:]).all() and not np.isnan(given[:30]).any()
    some = PairsToGrade(ids[5:12], [Query(i) for i in ids[5:12]], rows[5:12], np.ones(7))
    np.testing.assert_array_equal(raters.grade(some), given[5:12])
    labels = labels_of(pairs, given)
    assert len(labels.rows) == 30 and labels.queries[3] == Query("s3") and labels.grades.tolist() == given[:30].tolist()
