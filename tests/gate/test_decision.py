import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corewrite.gate import CHECKS, GateConfig, Margins, Verdict, run_gate

QUICK = GateConfig(resamples=200, subsamples=100)


def check(result, name):
    return next(c for c in result.checks if c.name == name)


def with_candidate(evaluation, **changes):
    return replace(evaluation, candidate=replace(evaluation.candidate, **changes))


def test_clear_improvement_is_promoted(simulate):
    result = run_gate(simulate(0, reward_gain=0.1, judge_gain=0.02), QUICK)
    assert result.verdict is Verdict.PROMOTE
    assert result.reason.startswith("fused_reward rises and all 8 guardrails pass: candidate 0.")
    assert [c.name for c in result.checks] == list(CHECKS)
    assert all(c.verdict == "pass" for c in result.checks if c.kind != "report")
    assert (result.users, result.queries) == (100, 400)
    for c in result.checks:
        assert c.low <= c.difference <= c.high


def one_for_all(evaluation):
    return with_candidate(evaluation, rewrites=["best videos today"] * len(evaluation))


def long(evaluation):
    return with_candidate(evaluation, rewrites=[f"{r or 'query'} very much longer now" for r in evaluation.candidate.rewrites])


def copied(evaluation):
    texts = [f"{q.text} {q.context.titles[0]}" for q in evaluation.queries]
    return with_candidate(evaluation, rewrites=texts)


def judge_drop(evaluation):
    return with_candidate(evaluation, judge_ndcg=evaluation.candidate.judge_ndcg - 0.04)


def slice_drop(evaluation):
    # Nothing lost in the mean: what the slice loses, the others gain.
    tail = evaluation.slices["tail"]
    moved = np.where(tail, -0.06, 0.06 * tail.sum() / (~tail).sum())
    return with_candidate(evaluation, judge_ndcg=evaluation.candidate.judge_ndcg + moved)


def harmed(evaluation):
    # Every sixth query loses, the others gain more.
    loses = np.arange(len(evaluation)) % 6 == 0
    return with_candidate(evaluation, judge_ndcg=evaluation.candidate.judge_ndcg + np.where(loses, -0.2, 0.06))


@pytest.mark.parametrize(
    ("harm", "by"),
    [
        (judge_drop, "judge_ndcg"),
        (slice_drop, "worst_slice"),
        (harmed, "harm_rate"),
        (long, "length"),
        (copied, "copying"),
        (one_for_all, "commonest_rewrite"),
        (one_for_all, "distinct_2"),
    ],
)
def test_harm_is_rejected_whatever_the_reward(simulate, harm, by):
    result = run_gate(harm(simulate(1, reward_gain=0.3, judge_gain=0.02)), QUICK)
    assert check(result, by).verdict == "fail"
    assert check(result, "fused_reward").verdict == "pass"
    assert result.verdict is Verdict.REJECT
    failed = {c.name for c in result.checks if c.verdict == "fail" and c.kind == "guardrail"}
    named = result.reason.split(" fails")[0]
    assert named in failed and all(name in result.reason for name in failed)
    if harm is slice_drop:
        assert failed == {"worst_slice"} or failed == {"worst_slice", "harm_rate"}
        assert "tail" in check(result, by).reason


def test_no_gain_is_held(simulate):
    same = simulate(2)
    result = run_gate(replace(same, candidate=same.champion), QUICK)
    assert result.verdict is Verdict.HOLD and result.reason.startswith("fused_reward is unclear: ")
    assert check(result, "fused_reward").difference == 0 and check(result, "judge_ndcg").verdict == "pass"


def test_too_few_users_are_held(simulate):
    good = simulate(3, users=39, per_user=20, reward_gain=1.0, judge_gain=0.1)
    result = run_gate(good, QUICK)
    assert result.verdict is Verdict.HOLD and "39 users" in result.reason and result.checks == ()


def test_nan_reward_is_rejected_and_named(simulate):
    good = simulate(4, reward_gain=0.3, judge_gain=0.02)
    reward = good.candidate.log_reward.copy()
    reward[[17, 30]] = np.nan
    result = run_gate(with_candidate(good, log_reward=reward), QUICK)
    assert result.verdict is Verdict.REJECT and result.checks == ()
    assert "log_reward is nan at query index 17" in result.reason and "2 of 400" in result.reason


def test_other_hard_checks_are_rejected(simulate):
    good = simulate(5, reward_gain=0.3, judge_gain=0.02)
    short = run_gate(with_candidate(good, rewrites=good.candidate.rewrites[1:]), QUICK)
    assert short.verdict is Verdict.REJECT and "rewrites has 399 entries for 400" in short.reason
    echo = run_gate(with_candidate(good, rewrites=[q.text.upper() for q in good.queries]), QUICK)
    assert echo.verdict is Verdict.REJECT and "none of the candidate's 400 rewrites differs" in echo.reason


@pytest.mark.parametrize("judge", [None, "one nan"])
def test_missing_judge_is_held(simulate, judge):
    good = simulate(6, reward_gain=0.3, judge_gain=0.02)
    if judge is not None:
        judge = good.candidate.judge_ndcg.copy()
        judge[3] = np.nan
    result = run_gate(with_candidate(good, judge_ndcg=judge), QUICK)
    assert result.verdict is Verdict.HOLD
    assert result.reason.startswith("judge_ndcg could not be computed")
    assert check(result, "judge_ndcg").verdict == "error" and check(result, "judge_ndcg").candidate is None
    assert check(result, "length").verdict == "pass"


def test_harm_is_rejected_even_where_other_data_are_missing(simulate):
    result = run_gate(one_for_all(with_candidate(simulate(7), judge_ndcg=None)), QUICK)
    assert result.verdict is Verdict.REJECT


def test_a_check_that_breaks_is_held(simulate, monkeypatch):
    def broken(self, evaluation, resampling):
        raise ZeroDivisionError("by design")

    monkeypatch.setattr(CHECKS["length"], "compute", broken)
    result = run_gate(simulate(8, reward_gain=0.3, judge_gain=0.02), QUICK)
    assert result.verdict is Verdict.HOLD
    assert result.reason == "length could not be computed: ZeroDivisionError: by design."


def test_a_report_decides_nothing(simulate):
    evaluation = simulate(9, reward_gain=1.0, judge_gain=0.02)
    result = run_gate(evaluation, GateConfig(resamples=200, subsamples=100, margins=Margins(inflation=0.01)))
    assert check(result, "inflation").verdict == "fail" and result.verdict is Verdict.PROMOTE


def test_below_the_margin_but_not_by_holm_is_held(simulate):
    evaluation = simulate(10, reward_gain=0.3, judge_gain=0.02)
    extra = np.random.default_rng(0).integers(0, 5, len(evaluation))
    texts = [f"{q.text} more{e}" + f" word{e}" * e for q, e in zip(evaluation.queries, extra, strict=True)]
    longer = with_candidate(evaluation, rewrites=texts)
    length = check(run_gate(longer, QUICK), "length")
    error = (length.high - length.difference) / 1.984  # The t quantile at 99 degrees of freedom.
    # 2.2 standard errors below the margin: p about 0.015, and nine times that is over 5 %.
    margin = -length.difference - 2.2 * error
    lenient = Margins(**dict.fromkeys(Margins.model_fields, 10.0) | {"length": margin})
    result = run_gate(longer, QUICK.model_copy(update={"margins": lenient}))
    found = check(result, "length")
    assert found.high < -margin and 0.05 / 9 < found.p_value < 0.025
    assert found.verdict == "unclear" and "not by Holm" in found.reason and result.verdict is Verdict.HOLD


@pytest.mark.parametrize(
    ("margin", "verdict", "low", "high"),
    [(10.0, Verdict.PROMOTE, 0.002, 0.06), (1e-9, Verdict.REJECT, 0.002, 0.07)],
)
def test_equal_policies_are_rarely_told_apart(simulate, margin, verdict, low, high):
    """A/A: 2.5 % are promoted by margins that let all through, at most 5 % rejected by none at all."""
    margins = Margins(**dict.fromkeys(Margins.model_fields, margin))
    config = GateConfig(resamples=100, subsamples=50, margins=margins)
    runs = 300
    share = sum(run_gate(simulate(100 + r, users=60, per_user=2), config).verdict is verdict for r in range(runs)) / runs
    assert low <= share <= high


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.randoms(use_true_random=False))
def test_order_of_queries_does_not_matter(simulate, order):
    evaluation = simulate(11, users=50, per_user=2, reward_gain=0.05, judge_gain=0.01)
    places = list(range(len(evaluation)))
    order.shuffle(places)

    def moved(p):
        return type(p)([p.rewrites[i] for i in places], p.log_reward[places], p.judge_ndcg[places])

    shuffled = type(evaluation)(
        [evaluation.user_ids[i] for i in places], [evaluation.queries[i] for i in places],
        {name: mask[places] for name, mask in evaluation.slices.items()},
        moved(evaluation.candidate), moved(evaluation.champion), evaluation.original_judge_ndcg[places],
    )  # fmt: skip
    a, b = run_gate(evaluation, QUICK), run_gate(shuffled, QUICK)
    assert a.verdict is b.verdict
    for x, y in zip(a.checks, b.checks, strict=True):
        assert (x.low, x.high, x.p_value) == pytest.approx((y.low, y.high, y.p_value), abs=1e-9)


def test_results_are_json_and_repeatable(simulate):
    evaluation = with_candidate(simulate(12), judge_ndcg=None)
    result = run_gate(evaluation, QUICK)
    data = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert data["verdict"] == "hold" and data["checks"][1]["low"] is None
    assert data["checks"][0]["low"] == check(result, "fused_reward").low
    assert run_gate(evaluation, QUICK) == result
