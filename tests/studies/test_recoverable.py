"""The recoverable oracle between the engine alone and a mind reader, and how policies are compared with it."""

import inspect

import numpy as np
import pytest

from corewrite.deployment.deployment import embedded_deployment
from corewrite.deployment.served import fused_lists
from corewrite.fusion import default_spec
from corewrite.relevance import cold_start
from corewrite.simulation.config import TrafficConfig, WorldConfig
from corewrite.simulation.intents import Intents, ndcg10
from corewrite.simulation.possible import PossibleIntents, expected_ndcg10
from corewrite.simulation.traffic import simulate_week
from corewrite.simulation.week import Week
from corewrite.simulation.world import NONE, make_world
from corewrite.studies import recoverable
from corewrite.studies.baselines import BASELINES, UserSums, baseline_rewrites, compare
from corewrite.studies.engine import NoRewriter
from corewrite.studies.recoverable import candidate_rewrites, recoverable_rewrites
from corewrite.studies.truth import mind_readers_rewrites


@pytest.fixture(scope="module")
def searched():
    world = make_world(WorldConfig(seed=5, videos=1_500, entities=40))
    deployment = embedded_deployment(world.catalogue, cold_start(world.catalogue), default_spec())
    week = simulate_week(world, TrafficConfig(), NoRewriter(deployment.cascade), week=2, sessions=400)
    found = recoverable_rewrites(world, TrafficConfig(), 2, week.queries, deployment)
    return world, deployment, week, found


def quality(world, deployment, week, rewrites):
    return ndcg10(world, week.intents, fused_lists(deployment, week.queries, rewrites))


def test_it_lies_between_every_baseline_and_the_mind_reader(searched):
    world, deployment, week, found = searched
    mean = {name: quality(world, deployment, week, r).mean() for name, r in baseline_rewrites(deployment, week.queries).items()}
    reached = quality(world, deployment, week, found)
    oracle = quality(world, deployment, week, mind_readers_rewrites(world, week, deployment, found))
    assert set(mean) == set(BASELINES)
    assert max(mean.values()) + 0.02 < reached.mean() < oracle.mean()
    assert (reached <= oracle + 1e-9).all()


def test_it_is_the_best_of_its_candidates_in_expectation(searched):
    """By hand for a few searches: the expectation over the posterior, one intent and one candidate at a time."""
    world, deployment, week, found = searched
    some = np.arange(0, len(week), len(week) // 12)
    posterior = recoverable.IntentPosterior(
        world, TrafficConfig(), 2, lambda texts: deployment.cascade.search(texts, [None] * len(texts)).rows
    )
    for i, possible in zip(some, posterior([week.queries[i] for i in some]), strict=True):
        possible = possible.head(0.99, 30)
        worth = {}
        for text in candidate_rewrites(world, possible):
            rows = deployment.cascade.search([week.queries[i].text], [text]).rows
            parts = [
                p * ndcg10(world, possible.intents.take(np.array([k])), rows)[0] for k, p in enumerate(possible.probability)
            ]
            worth[text] = float(sum(parts))
        assert worth[found[i]] == pytest.approx(max(worth.values()))


def test_it_is_given_queries_and_no_week():
    types = inspect.get_annotations(recoverable_rewrites, eval_str=True)
    assert Week not in types.values() and "Sequence[corewrite.domain" in str(types["queries"])
    assert not any(value is Week for value in vars(recoverable).values())


def test_candidates_word_the_likely_intents_and_mix_them(searched):
    world, *_ = searched
    c = int(world.category[3])
    first, second = np.flatnonzero(world.aspect_weight[c])[:2]
    one = PossibleIntents(Intents(np.array([3]), np.array([first]), np.array([c])), np.ones(1))
    full, alone = f"{world.names[3]} {one.worded(world)[0][1]}", world.names[3]
    usual, category = one.other_words(world)[0]
    assert candidate_rewrites(world, one) == [
        None,
        full,
        alone,
        f"{full} {usual}",
        f"{full} {category}",
        f"{full} {usual} {category}",
    ]
    two = PossibleIntents(Intents(np.array([3, 3]), np.array([first, second]), np.array([c, c])), np.array([0.7, 0.3]))
    both = f"{full} {two.worded(world)[1][1]}"
    assert candidate_rewrites(world, two)[4] == both and len(candidate_rewrites(world, two)) == 8
    any_aspect = PossibleIntents(Intents(np.array([3]), np.array([NONE]), np.array([c])), np.ones(1))
    assert candidate_rewrites(world, any_aspect) == [None, alone, f"{alone} {category}"]
    rows = np.arange(10)[None]
    assert expected_ndcg10(world, [two], rows)[0] == pytest.approx(
        0.7 * ndcg10(world, two.intents.take(np.array([0])), rows)[0]
        + 0.3 * ndcg10(world, two.intents.take(np.array([1])), rows)[0]
    )


def test_the_comparison_is_the_ratio_of_means_with_its_interval():
    rng = np.random.default_rng(0)
    users = [f"u{i}" for i in rng.integers(0, 400, 1_000)]
    base = rng.random(1_000)
    by_search = {name: base * (0.8 + 0.01 * k) for k, name in enumerate(BASELINES)}
    by_search |= {"warm_start": base * 0.9, "champion": base * 0.95, "recoverable": base * 1.0}
    found = compare([UserSums.of(by_search, users)])
    assert found.best_baseline == BASELINES[-1] and found.users == len(set(users))
    # In proportion on every search, so every resample has the same ratios.
    for estimate, value in (
        (found.over_best_baseline, 0.95 / 0.83),
        (found.recoverable_share["champion"], 0.75),
        (found.recoverable_share["warm_start"], 0.5),
    ):
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((value, value, value))


def test_the_interval_is_as_wide_as_the_ratio_is_uncertain():
    """Delta method for a ratio of means over users, by hand."""
    rng = np.random.default_rng(1)
    n = 1_500
    base = rng.random(n)
    by_search = dict.fromkeys(BASELINES, base * 0.5) | {"original": base}
    by_search |= {"champion": base + rng.normal(0.03, 0.2, n), "recoverable": base + 0.2}
    parts = [
        UserSums.of({k: v[some] for k, v in by_search.items()}, [f"u{i}" for i in range(n)]) for some in (slice(None),) * 2
    ]
    for several, total in ((parts[:1], n), (parts, 2 * n)):
        found = compare(several, policies=("champion",)).over_best_baseline
        ratio = by_search["champion"].mean() / base.mean()
        error = np.std(by_search["champion"] - ratio * base) / base.mean() / np.sqrt(total)
        assert found.value == pytest.approx(ratio)
        assert (found.high - found.low) / (2 * 1.96) == pytest.approx(error, rel=0.12)
