from dataclasses import replace

import numpy as np
import pytest

from corewrite.domain import Context, Query
from corewrite.gate import CHECKS, Evaluation, GateConfig, Margins, PolicyOutputs, Resampling
from corewrite.gate.check import MeanCheck, TextCheck

QUERIES = [
    Query("red shoe", Context(("running shoe",), ("Trail Shoes 2024",))),
    Query("jazz"),
    Query("pasta", Context(("quick dinner",))),
    Query("Jazz"),
]
# 20 users, so that no resample can be empty; each has all four queries.
USERS = 20


def evaluation() -> Evaluation:
    candidate = PolicyOutputs(
        ["red running shoe", "live jazz piano", "", "Live  Jazz piano"],
        np.array([0.4, 0.2, 0.0, 0.2]), np.array([0.8, 0.5, 0.5, 0.4]),
    )  # fmt: skip
    champion = PolicyOutputs(
        ["red running shoe trail", "jazz", "quick pasta", "jazz music"],
        np.array([0.3, 0.0, 0.1, 0.2]), np.array([0.7, 0.5, 0.6, 0.5]),
    )  # fmt: skip

    def repeated(p: PolicyOutputs) -> PolicyOutputs:
        return PolicyOutputs(list(p.rewrites) * USERS, np.tile(p.log_reward, USERS), np.tile(p.judge_ndcg, USERS))

    slices = {
        "music": np.tile([False, True, False, True], USERS),
        "context": np.tile([True, False, True, False], USERS),
    }
    ids = [f"u{u}" for u in range(USERS) for _ in range(4)]
    original = np.tile([0.6, 0.5, 0.6, 0.45], USERS)
    return Evaluation(ids, QUERIES * USERS, slices, repeated(candidate), repeated(champion), original)


def compute(name: str, on: Evaluation, config: GateConfig = GateConfig(minimum_effective_users=20)):
    resampling = Resampling.draw(on.user_ids, resamples=200, subsamples=50, seed=0)
    return CHECKS[name](config).compute(on, resampling)


@pytest.mark.parametrize(
    ("name", "candidate", "baseline", "difference"),
    [
        ("fused_reward", 0.2, 0.15, 0.05),
        ("judge_ndcg", 0.55, 0.575, -0.025),
        ("judge_ndcg_vs_no_rewriter", 0.55, 0.5375, 0.0125),
        # music: (0.5 + 0.4) / 2 against (0.5 + 0.5) / 2; context: 0.65 against 0.65.
        ("worst_slice", 0.45, 0.5, -0.05),
        # Words served: 3, 3, 1 (the query stands), 3 against 4, 1, 2, 2.
        ("length", 10 / 4, 9 / 4, -1 / 4),
        # "running" of 3; then "running" and "trail" of 4, "quick" of 2.
        ("copying", (1 / 3) / 4, (2 / 4 + 1 / 2) / 4, (1 - 1 / 3) / 4),
        # Bigrams a user: red-running running-shoe, and live-jazz jazz-piano twice, 4 distinct of 6 * 20;
        # red-running running-shoe shoe-trail quick-pasta jazz-music, all distinct, 5 of 5 * 20.
        ("distinct_2", 4 / 120, 5 / 100, 4 / 120 - 5 / 100),
        # Of 3 a user that differ, "live jazz piano" twice; of 3 a user, each once ("jazz" repeats the query).
        ("top_rewrite_share", 2 / 3, 1 / 3, -1 / 3),
        # More than 0.05 lost: pasta; none (0.45 to 0.4 is not more than 0.05).
        ("harm_rate", 1 / 4, 0.0, -1 / 4),
        # Gains over no rewriter: 0.2, 0, -0.1, -0.05 against 0.1, 0, 0, 0.05, losses twice.
        ("risk_sensitive_ndcg", -0.1 / 4, 0.15 / 4, -0.25 / 4),
    ],
)  # fmt: skip
def test_by_hand(name, candidate, baseline, difference):
    found = compute(name, evaluation())
    assert (found.candidate, found.baseline, found.difference) == pytest.approx((candidate, baseline, difference))
    # All users are alike, so nothing is uncertain but what a user who was not seen may bring, where that has a limit.
    if name in ("fused_reward", "length", "risk_sensitive_ndcg"):
        assert (found.bounds.low, found.bounds.high) == pytest.approx((difference, difference), abs=1e-9)
    else:
        assert difference - 0.36 < found.bounds.low < difference < found.bounds.high < difference + 0.36
        assert found.bounds.high - found.bounds.low > 0.18, "20 users leave room for one in six"
    assert found.bounds.effective_users == pytest.approx(USERS)
    assert found.n == (2 * USERS if name == "worst_slice" else 4 * USERS)


def test_inflation_by_hand():
    # Gains: reward (0.1, 0.2, -0.1, 0), judge (0.1, 0, -0.1, -0.1).
    found = compute("inflation", evaluation())
    reward, judge = 0.05 / np.sqrt(0.0125), -0.025 / np.sqrt(0.006875)
    assert (found.candidate, found.baseline) == pytest.approx((reward, judge))
    assert found.difference == pytest.approx(judge - reward)


def test_top_rewrite_share_is_named_and_none_is_no_share():
    on = evaluation()
    assert "'live jazz piano'" in compute("top_rewrite_share", on).note
    silent = replace(on, champion=replace(on.champion, rewrites=[""] * len(on)))
    assert compute("top_rewrite_share", silent).baseline == 0


def test_small_slices_are_left_out_and_said_so():
    on = evaluation()
    one_user = np.arange(len(on)) < 4
    found = compute("worst_slice", replace(on, slices={**on.slices, "tiny": one_user}))
    assert found.difference == pytest.approx(-0.05)
    assert "worst of 2 slices: music; left out for want of users: tiny: 1 users; 20 are needed" in found.note
    with pytest.raises(ValueError, match=r"no slice has enough users \(tiny: 1 users; 20 are needed\)"):
        compute("worst_slice", replace(on, slices={"tiny": one_user}))


@pytest.mark.parametrize("lowest", [0.0, -0.05])
def test_worst_slice_bounds_cover(lowest):
    """Five slices that tie, or one truly lower: each bound is on the wrong side in at most 2.5 % of runs."""
    rng = np.random.default_rng(8)
    users, slices, runs = 200, 5, 300
    where = np.arange(users) % slices
    too_high = too_low = 0
    for run in range(runs):
        gain = rng.normal(0, 0.1, users) + np.where(where == 0, lowest, 0.0)
        side = [PolicyOutputs(["x"] * users, np.zeros(users), judge) for judge in (gain, np.zeros(users))]
        masks = {str(s): where == s for s in range(slices)}
        on = Evaluation([str(u) for u in range(users)], [Query("q")] * users, masks, *side, np.zeros(users))
        draws = Resampling.draw(on.user_ids, resamples=150, subsamples=50, seed=run)
        found = CHECKS["worst_slice"](GateConfig()).compute(on, draws).bounds
        too_high += found.low > lowest
        too_low += found.high < lowest
    assert too_high / runs < 0.05 and too_low / runs < 0.05
    if lowest < 0:  # The bounds are not merely wide: the one slice's own L misses as often as it may.
        assert too_high > 0


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("fused_reward", "champion.log_reward is not a finite number at query index 2"),
        ("judge_ndcg", "candidate.judge_ndcg was not given"),
        ("harm_rate", "candidate.judge_ndcg was not given"),
        ("judge_ndcg_vs_no_rewriter", "candidate.judge_ndcg was not given"),
    ],
)
def test_missing_data_are_named(name, missing):
    on = evaluation()
    reward = np.array(on.champion.log_reward)
    reward[2] = np.inf
    broken = replace(on, candidate=replace(on.candidate, judge_ndcg=None), champion=replace(on.champion, log_reward=reward))
    with pytest.raises(ValueError, match=missing):
        compute(name, broken)


def test_every_mean_says_what_a_gain_can_be():
    assert {name for name, check in CHECKS.items() if issubclass(check, MeanCheck) and check.gain_range is None} == set()
    events = {name for name, check in CHECKS.items() if issubclass(check, MeanCheck) and check.gain_range.event}
    assert events == {n for n in CHECKS if n.endswith("_rate")} | {"long_share", "entities_dropped", "head_churn", "latency"}


def test_a_check_that_says_nothing_of_its_range_is_of_events_where_it_counts_them():
    class Own(TextCheck):
        name = question = "own"
        default_margin = 0.1

        def of(self, served, evaluation):
            return np.array([float("zzz" in text) for text in served.words])

    config = GateConfig(minimum_effective_users=20)
    config = config.model_copy(update={"margins": config.margins.model_copy(update={"own": 0.1})})
    on = evaluation()
    found = Own(config).compute(on, Resampling.draw(on.user_ids, resamples=50, subsamples=50, seed=0))
    assert found.bounds.low == pytest.approx(-(1 - 0.034 ** (1 / USERS)), rel=0.1), "no user of 20 had one"
    assert found.bounds.users_needed == pytest.approx(33, abs=1)


def test_undefined_metrics_are_refused():
    on = evaluation()
    one_word = replace(on, candidate=replace(on.candidate, rewrites=["x"] * len(on)))
    with pytest.raises(ValueError, match="distinct-2 is undefined"):
        compute("distinct_2", one_word)
    constant = replace(on, candidate=replace(on.candidate, log_reward=on.champion.log_reward + 0.5))
    with pytest.raises(ValueError, match="cannot be standardised"):
        compute("inflation", constant)


def test_every_margin_belongs_to_a_check():
    # The reward and new entities must rise; a canary that is obeyed is one too many.
    assert set(Margins().as_dict()) | {"fused_reward", "new_entities", "prompt_injection"} == set(CHECKS)
    assert CHECKS["fused_reward"](GateConfig()).margin == 0
    assert CHECKS["length"](GateConfig(margins=Margins(length=0.5))).margin == 0.5


def test_malformed_evaluations_are_refused():
    on = evaluation()
    with pytest.raises(ValueError, match="user_ids has 3 entries for 80 queries"):
        replace(on, user_ids=["a"] * 3)
    with pytest.raises(ValueError, match="'head' must be a bool array"):
        replace(on, slices={"head": np.arange(80)})
    with pytest.raises(TypeError, match="rewrite 1 is None"):
        PolicyOutputs(["a", None], None, None)  # type: ignore[list-item]
