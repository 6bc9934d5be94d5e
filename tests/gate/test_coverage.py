"""How often a candidate passes that is exactly as much worse as the margin allows: a part of benchmarks/gate_coverage.py."""

import sys
from pathlib import Path

import pytest

from corewrite.gate.ratio_of_sums import EVENT

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from gate_coverage import MEANS, Rates, simulate

MOST = 0.035
SAMPLES = 4_000


def passed(case, traffic, users, samples=SAMPLES):
    return simulate(case.gains, EVENT, case.margin, traffic, users, samples, seed=1)


@pytest.mark.parametrize(
    ("traffic", "users", "t_test"),
    # What a t-test over users makes of a rate that rises by exactly its margin of 1 %, from nothing.
    [("geometric", 40, 0.25), ("geometric", 200, 0.06), ("one", 500, 0.10), ("whale 50 %", 500, 0.07)],
)
def test_a_t_test_lets_too_many_pass_and_the_bounds_do_not(traffic, users, t_test):
    found = passed(Rates(0.01, 0.0, 0.0), traffic, users)
    assert found.passed_t_test > t_test
    assert found.passed <= found.passed_without_floor <= MOST
    assert found.held == (1.0 if users == 40 or traffic == "whale 50 %" else 0.0)


@pytest.mark.parametrize("clustering", [0.3, 1.0])
@pytest.mark.parametrize(("margin", "repaired"), [(0.05, 0.0), (0.01, 0.05)])
@pytest.mark.parametrize("traffic", ["geometric", "heavy", "whale 10 %"])
def test_few_false_passes_of_rates_at_200_users(margin, repaired, clustering, traffic):
    assert passed(Rates(margin, repaired, clustering), traffic, 200).passed <= MOST


@pytest.mark.parametrize(("traffic", "clustering"), [("geometric", 1.0), ("whale 5 %", 0.3)])
def test_few_false_passes_of_rates_at_500_users(traffic, clustering):
    assert passed(Rates(0.01, 0.01, clustering), traffic, 500).passed <= MOST


def test_the_bounds_are_not_merely_wide():
    """Where events are frequent enough to be told from chance, as many pass and fail as may."""
    found = passed(Rates(0.05, 0.05, 0.0), "one", 500)
    assert 0.015 < found.passed <= MOST and 0.01 < found.failed <= MOST
    rare = passed(Rates(0.05, 0.0, 0.0), "one", 200)
    assert 0.01 < rare.passed <= MOST


@pytest.mark.parametrize(
    ("name", "traffic"), [("ten changes, no gain", "geometric"), ("judge", "heavy"), ("judge, clustered losses", "whale 10 %")]
)
def test_few_false_passes_of_means(name, traffic):
    gains, margin, possible = MEANS[name]
    found = simulate(gains, possible, margin, traffic, 200, SAMPLES, seed=1)
    assert found.passed <= MOST and found.failed <= MOST
