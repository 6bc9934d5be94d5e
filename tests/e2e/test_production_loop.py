"""Three weeks of production in small, under a ranker that is not ours: see `demo.production_loop`."""

import math
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from corewrite.cycle.mined_week import MinedWindow
from corewrite.deployment.pins import load_pins
from corewrite.domain import Outcome
from corewrite.domain.traffic_split import assign_bucket
from corewrite.studies.production.loop import CONTROL, TREATMENT, build_launch, week_figures

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def figures(loop):
    return [week_figures(loop.team, week) for week in loop.weeks]


def test_the_first_cycle_promotes_and_the_second_mines_what_was_served(loop):
    first, second, _ = loop.cycles
    assert first["verdict"] == "promote"
    assert second["week"] == "w2" and second["verdict"] in ("promote", "hold", "reject")
    window = MinedWindow(loop.team.folder / "run" / "windows" / "w2")
    assert window.about["searches"] == len(loop.weeks[0].happened)
    assert len(window.instances()) > 30, "it was trained on what users did to what was served"


def test_who_was_held_back_is_exactly_who_was_served_as_such(loop, figures):
    assert all(f.holdback_exact for f in figures)
    week, outcomes = loop.weeks[0], loop.team.outcomes(loop.weeks[0])
    buckets = dict(zip(outcomes.user_id, outcomes.bucket, strict=True))
    assert sorted(buckets.values()) == sorted(assign_bucket(u) for u in set(week.happened.user_ids))
    # The cycle's own figures of the week go by the arm that was served, too.
    arms = outcomes.arm[outcomes.outcome != Outcome.CENSORED]
    searches = Counter("holdback" if arm == "holdback" else "served" for arm in arms)
    assert {k: v["searches"] for k, v in loop.cycles[1]["traffic"].items()} == dict(searches)


def test_the_trigger_is_known_everywhere_and_alike_in_both_arms(loop, figures):
    outcomes = loop.team.outcomes(loop.weeks[0])
    for arm in (CONTROL, TREATMENT):
        assert figures[0].impacted[arm][1] == int((outcomes.arm == arm).sum()), "every search says whether the lists differ"
    (a, n), (b, m) = (figures[0].impacted[arm] for arm in (CONTROL, TREATMENT))
    assert 0 < a < n and 0 < b < m
    assert stats.fisher_exact([[a, n - a], [b, m - b]]).pvalue > 0.001


def test_what_the_served_log_says_is_what_happened(loop, figures):
    for f in figures:
        assert f.same_outcomes == 1.0, f
        np.testing.assert_allclose(f.cqr[0], f.cqr[1])
        np.testing.assert_allclose(f.give_up[0], f.give_up[1])
    launch = build_launch(loop.team, loop.weeks[0])
    assert math.isfinite(launch.cqr.control) and launch.srm_p_value > 0.001


def test_the_log_replays(figures):
    assert all(f.replayed >= 0.999 and f.same_lists == 1.0 for f in figures), figures


def test_a_better_version_is_taken_and_a_broken_one_refused(loop):
    registry = loop.team.registry

    def pin_of(record):
        return load_pins(registry.path(registry.artifact("relevance", record["relevance"]))).signals["relevance"]["pin"]

    before, after, last = map(pin_of, loop.cycles)
    assert before != after, loop.cycles[1]["alarms"]
    assert last == after, "the broken one is refused, the one before stays in ranker and reward"
    assert any("the champion's stays" in alarm for alarm in loop.cycles[2]["alarms"]), loop.cycles[2]["alarms"]


def test_a_promote_begins_a_rollout_that_is_looked_at(loop):
    if loop.cycles[1]["verdict"] != "promote":
        assert loop.rollout is None
        pytest.skip("so few users let the gate hold: no rollout was under way")
    assert loop.rollout.kind in ("complete", "wait", "rollback")
