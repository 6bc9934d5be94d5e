"""What the gate does with raters' direct grades: means are corrected, single queries are not."""

from dataclasses import replace

import numpy as np
import pytest

from corewrite.gate import CHECKS, GateConfig, Resampling, Verdict, run_gate
from corewrite.gate.checks.quality import CORRECTED

QUICK = GateConfig(resamples=200, subsamples=50)


def corrected(evaluation, gain, spread=0.5, seed=0):
    """Direct grades by which the candidate is better by `gain`; single values are all over the place."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, spread, len(evaluation))
    noise -= noise.mean()
    champion = replace(evaluation.champion, corrected_ndcg=evaluation.champion.judge_ndcg)
    candidate = replace(evaluation.candidate, corrected_ndcg=evaluation.champion.judge_ndcg + gain + noise)
    none = evaluation.original_judge_ndcg
    return replace(evaluation, candidate=candidate, champion=champion, original_corrected_ndcg=none)


def found(evaluation, name):
    sample = Resampling.draw(evaluation.user_ids, resamples=200, subsamples=50, seed=0)
    return CHECKS[name](QUICK).compute(evaluation, sample)


@pytest.mark.parametrize("name", ["judge_ndcg", "judge_ndcg_vs_no_rewriter"])
def test_a_gain_that_the_judge_does_not_hear_is_heard(simulate, name):
    plain = simulate(1, judge_gain=-0.01)
    direct = corrected(plain, 0.1)
    before, after = found(plain, name), found(direct, name)
    assert after.difference > before.difference + 0.1 and CORRECTED in after.note and CORRECTED not in before.note
    # Values outside [-1, 1] are no error, and the interval is as wide as they scatter.
    assert np.abs(direct.candidate.corrected_ndcg).max() > 1
    error = direct.candidate.corrected_ndcg.std() / np.sqrt(len(direct))
    assert 1.5 * error < after.bounds.high - after.difference < 3 * error


def test_what_is_new_hears_it_and_the_worst_slice_and_the_harm_rate_do_not(simulate):
    plain = simulate(2)
    new = np.arange(len(plain)) % 2 == 0
    plain = replace(plain, slices={**plain.slices, "new": new})
    direct = corrected(plain, 0.3)
    assert found(direct, "new_entities").difference > found(plain, "new_entities").difference + 0.1
    assert CORRECTED in found(direct, "new_entities").note
    for name in ("worst_slice", "harm_rate", "inflation"):
        assert found(direct, name) == found(plain, name)


def test_the_gain_of_the_risk_is_graded_and_its_losses_are_judged(simulate):
    plain = simulate(2, judge_gain=-0.01)
    before, after = (found(e, "risk_sensitive_ndcg") for e in (plain, corrected(plain, 0.3)))
    none = plain.original_judge_ndcg
    loss, gain = (np.maximum(sign * (none - plain.candidate.judge_ndcg), 0).mean() for sign in (1, -1))
    assert before.candidate == pytest.approx(gain - 2 * loss) and not before.note
    assert after.candidate == pytest.approx((plain.champion.judge_ndcg - none).mean() + 0.3 - loss)
    assert after.note == CORRECTED


def test_one_side_without_grades_is_judged_as_before(simulate):
    plain = simulate(3)
    half = replace(plain, candidate=replace(plain.candidate, corrected_ndcg=plain.candidate.judge_ndcg + 1))
    assert found(half, "judge_ndcg") == found(plain, "judge_ndcg")
    with pytest.raises(ValueError, match="original_corrected_ndcg has 3 entries"):
        replace(plain, original_corrected_ndcg=np.zeros(3))


def test_harm_that_only_raters_see_is_refused(simulate):
    better = simulate(5, users=400, reward_gain=0.1)
    assert "judge_ndcg" not in run_gate(corrected(better, 0.0, 0.05), QUICK).failed
    result = run_gate(corrected(better, -0.05, 0.05), QUICK)
    assert result.verdict is Verdict.REJECT and "judge_ndcg" in result.failed
    assert CORRECTED in next(c.reason for c in result.checks if c.name == "judge_ndcg")
