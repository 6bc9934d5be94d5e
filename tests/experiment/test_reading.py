"""Both readings of a launch: once at its end, and at any time."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from corewrite.experiment import read_launch
from corewrite.experiment.ab.reading import AnytimeInterval, read_searches
from corewrite.experiment.sequential import contrast_bounds, ratio_bounds


def test_the_launch_is_read_as_ever_and_any_look_by_the_confidence_sequence(simulate):
    searches = simulate(np.random.default_rng(1), 6_000, change=0.7)
    reading = read_searches("x", searches, share=0.5, give_up_margin=0.2, alpha=0.1)
    assert reading.launch == read_launch("x", searches, give_up_margin=0.2, alpha=0.1)
    first = {}
    for row in searches.sort_by("timestamp").to_pylist():
        if row["impacted"]:
            first.setdefault(row["user_id"], row)
    for interval, word in (
        (reading.cqr, "changed_unsatisfied"), (reading.give_up, "gave_up"), (reading.satisfied, "satisfied")
    ):  # fmt: skip
        of_arm = {
            arm: [row["outcome"] == word for row in first.values() if row["arm"] == arm] for arm in ("control", "treatment")
        }
        counts = [f(of) for of in of_arm.values() for f in (len, sum)]
        low, high = ratio_bounds(*counts, alpha=0.1)
        assert (interval.low, interval.high) == pytest.approx((low - 1, high - 1))
        # Where the ratio is at its end, the contrast is 0.
        assert contrast_bounds(*counts, times_control=high, alpha=0.1)[1] == pytest.approx(0, abs=1e-8)
    # Whoever may look as often as they like has the wider intervals.
    for name in ("cqr", "give_up", "satisfied"):
        fixed, anytime = getattr(reading.launch, name), getattr(reading, name)
        assert anytime.low < fixed.ci_low < fixed.ci_high < anytime.high


def test_verdicts(simulate):
    good = read_searches("good", simulate(np.random.default_rng(4), 9_000, change=0.5), share=0.5, give_up_margin=0.3)
    assert good.launch.counts and good.counts_anytime and not good.harms
    assert not replace(good, cqr=AnytimeInterval(-0.3, 0.01)).counts_anytime
    assert not replace(good, give_up=AnytimeInterval(-0.1, 0.31)).counts_anytime
    unfair = replace(good.launch, srm_triggered_p_value=1e-5)
    assert not replace(good, launch=unfair).counts_anytime
    worse = read_searches("worse", simulate(np.random.default_rng(5), 6_000, change=1.5), share=0.5)
    assert worse.harms and not worse.launch.counts
    assert not replace(worse, launch=replace(worse.launch, srm_p_value=1e-5)).harms
    despair = read_searches("despair", simulate(np.random.default_rng(6), 6_000, change=0.6, despair=1.6), share=0.5)
    assert despair.harms and not despair.launch.counts and despair.launch.cqr.ci_high < 0


def test_as_dict_is_strict_json(simulate):
    reading = read_searches("x", simulate(np.random.default_rng(7), 500), share=0.5)
    reading = replace(reading, satisfied=AnytimeInterval(-0.2, math.inf))
    plain = json.loads(json.dumps(reading.as_dict(), allow_nan=False))
    assert plain["anytime"]["satisfied"] == {"low": -0.2, "high": None}
    assert plain["anytime"]["cqr"] == {"low": reading.cqr.low, "high": reading.cqr.high}
    assert plain["anytime"]["counts"] is False and plain["harms"] is False and plain["cqr"]["name"] == "cqr"
