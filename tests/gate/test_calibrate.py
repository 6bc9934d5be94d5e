import json

import numpy as np
import pytest
import yaml
from scipy import stats

from corewrite.domain import sha256_json
from corewrite.gate import CHECKS, CheckResult, GateConfig, GateResult, Margins, Verdict, run_gate
from corewrite.gate.calibrate import Share, calibrate, tolerance_factor
from corewrite.gate.margins_file import load_margins, save_margins

LIMITS = Margins().as_dict()


def result(lows, skipped=()):
    """A gate's result of which only the lower bounds count: those given by name, 0 elsewhere."""
    rows = []
    for name, check in CHECKS.items():
        low = None if name in skipped else float(lows.get(name, 0.0))
        verdict = "skipped" if low is None else "pass"
        rows.append(
            CheckResult(name, "?", check.kind, low, low, low, low, low, 1.0, 9, None, verdict, "was not given", check.baseline)
        )
    return GateResult(Verdict.HOLD, "held", 99, 99, tuple(rows))


@pytest.mark.parametrize(
    ("n", "k"),
    # Hahn & Meeker 1991, table A.12d: one-sided, 95 % of the population, 95 % confidence.
    [(10, 2.911), (15, 2.566), (20, 2.396), (30, 2.220), (50, 2.065)],
)
def test_tolerance_factor_is_that_of_the_tables(n, k):
    assert tolerance_factor(n) == pytest.approx(k, abs=6e-4)


def test_tolerance_limit_covers_as_often_as_it_says():
    x = np.random.default_rng(0).normal(size=(40_000, 12))
    limit = x.mean(1) + tolerance_factor(12) * x.std(1, ddof=1)
    covered = (stats.norm.cdf(limit) >= 0.95).mean()
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / len(x))


def test_a_margin_is_the_tolerance_limit_of_what_retrains_need():
    lows = [-0.1, -0.2, -0.3, -0.2, -0.1, -0.2, -0.3, -0.2, -0.15, -0.25]
    found = calibrate([result({"length": low, "fused_reward": -9, "inflation": -9}) for low in lows])
    # Mean 0.2; squared deviations 4 * 0.01 + 2 * 0.0025 = 0.045 over 9.
    assert found.margins.of("length") == pytest.approx(0.2 + 2.911 * np.sqrt(0.045 / 9), abs=1e-4)
    assert found.factor == 1.0 and "length" not in found.raised + found.capped
    # All others need nothing: a tenth of their business limits. Inflation decides nothing and keeps its own.
    assert found.margins.of("copying") == pytest.approx(0.01) and "copying" in found.raised
    assert found.margins.of("inflation") == LIMITS["inflation"] and found.uncalibrated == ("inflation",)
    assert (found.retrains, found.joint_pass.share, found.aa) == (10, 1.0, None)


def test_margins_are_enlarged_until_nine_in_ten_pass():
    # Eight of twenty retrains stray, each in a check of its own, by half a business limit. A check's tolerance limit is then
    # 1 / 20 + k / sqrt(20) = 0.586 of that (mean and deviation of one 1 among nineteen 0), so that none of the eight passes.
    names = ["length", "copying", "similarity", "distinct_2", "harm_rate", "empty_rate", "no_op_rate", "head_churn"]
    stray = {i: {name: -0.5 * LIMITS[name]} for i, name in enumerate(names)}
    found = calibrate([result(stray.get(i, {})) for i in range(20)])
    k = stats.nct.ppf(0.95, 19, stats.norm.ppf(0.95) * np.sqrt(20)) / np.sqrt(20)
    alone = 0.5 * (1 / 20 + k / np.sqrt(20))
    assert alone < 0.5
    # Eight of twenty are outside by the same factor: 18 must pass, so it is theirs, and all pass.
    assert found.factor == pytest.approx(0.5 / alone)
    assert found.margins.of("length") == pytest.approx(0.5 * LIMITS["length"])
    assert found.joint_pass.share == 1.0
    # What needed nothing is enlarged too, from its tenth.
    assert found.margins.of("malformed_rate") == pytest.approx(found.factor * 0.1 * LIMITS["malformed_rate"])


def test_two_in_twenty_may_fail_and_the_factor_is_the_least():
    names = ["length", "copying", "similarity"]
    needs = [0.5, 0.6, 0.7]
    rows = [result({name: -need * LIMITS[name]}) for name, need in zip(names, needs, strict=True)]
    found = calibrate([*rows, *(result({}) for _ in range(17))])
    # All three are outside by the same factor, for their limits are in proportion: the 18th of 20 takes it.
    assert found.joint_pass.share == 1.0 and found.factor > 1
    two = calibrate([*rows[:2], *(result({}) for _ in range(18))])
    assert two.factor == 1.0 and two.joint_pass.share == 0.9


def test_the_business_limit_caps_and_helpless_retrains_enlarge_nothing():
    rng = np.random.default_rng(1)
    lows = {"length": -0.2 + rng.normal(0, 0.01, 20)}
    beyond = np.where(np.arange(20) < 6, -3 * LIMITS["head_churn"], 0.0)
    found = calibrate([result({"length": a, "head_churn": b}) for a, b in zip(lows["length"], beyond, strict=True)])
    assert found.margins.of("head_churn") == LIMITS["head_churn"] and found.capped == ("head_churn",)
    # Six can pass by no margin within the limits; the other fourteen do by the tolerance limits as they are.
    assert found.joint_pass.share == 14 / 20 and found.factor == 1.0
    assert found.margins.of("length") < 0.25
    hopeless = calibrate([result({"length": -9 * LIMITS["length"]})] * 10)
    assert (hopeless.factor, hopeless.joint_pass.share, hopeless.capped) == (1.0, 0.0, ("length",))


def test_no_margin_leaves_its_limits():
    rng = np.random.default_rng(2)
    for _ in range(5):
        scale = rng.uniform(0.01, 2, 12)
        rows = [result({n: rng.normal(-0.3, 0.3) * s * v for n, v in LIMITS.items()}) for s in scale]
        found = calibrate(rows)
        for name, margin in found.margins.as_dict().items():
            assert 0.1 * LIMITS[name] <= margin * (1 + 1e-12) and margin <= LIMITS[name]


def test_narrower_business_limits_are_kept_to():
    business = Margins(length=0.1)
    found = calibrate([result({"length": -0.09 - 0.01 * (i % 2)}) for i in range(10)], business=business)
    assert found.margins.of("length") == 0.1 and found.capped == ("length",)


def test_identical_retrains_pass():
    found = calibrate([result({"length": -0.2})] * 10)
    assert found.joint_pass.share == 1.0
    assert found.margins.of("length") == pytest.approx(0.2)


def test_refused():
    with pytest.raises(ValueError, match="9 retrains were given: margins need at least 10"):
        calibrate([result({})] * 9)
    some = [result({})] * 9 + [result({}, skipped=("latency",))]
    with pytest.raises(ValueError, match=r"retrain 9 has no bounds for latency \(was not given\)"):
        calibrate(some)
    broken = GateResult(Verdict.REJECT, "hard check failed: NaN", 99, 99, ())
    with pytest.raises(ValueError, match=r"retrain 0 has no bounds for judge_ndcg \(hard check failed: NaN\)"):
        calibrate([broken] + [result({})] * 9)
    skipped = calibrate([result({}, skipped=("latency", "kl_lineage"))] * 10)
    assert set(skipped.uncalibrated) == {"latency", "kl_lineage", "inflation"}
    assert skipped.margins.of("latency") == LIMITS["latency"]


def test_a_share_has_its_exact_interval():
    share = Share.of(9, 10)
    assert (share.share, share.low, share.high) == pytest.approx((0.9, 0.5550, 0.9975), abs=1e-4)  # Clopper & Pearson's tables.
    assert (Share.of(0, 10).low, Share.of(10, 10).high) == (0.0, 1.0)


def test_a_a_of_the_gate_itself(simulate):
    """Retrains that are draws of one policy: with the margins they give, nine in ten draws that come later pass."""
    # Every text differs between two draws here: what is held to a limit needs one that says nothing.
    business = Margins(**dict.fromkeys(LIMITS, 10.0))
    config = GateConfig(
        margins=business, resamples=60, subsamples=50, minimum_effective_users=20, required_checks=("fused_reward",)
    )  # fmt: skip
    results = [run_gate(simulate(300 + i, users=60, per_user=2), config) for i in range(40)]
    aa = [run_gate(simulate(500 + i, users=60, per_user=2), config) for i in range(40)]
    found = calibrate(results, aa=aa, business=business)
    assert found.joint_pass.share >= 0.9 and found.factor >= 1
    assert found.aa.share >= 0.75, "30 of 40 are three standard deviations below nine in ten"
    assert "latency" in found.uncalibrated
    # The hash is of what went in: the same again is the same, another retrain is not.
    assert calibrate(results, aa=aa, business=business).inputs_hash == found.inputs_hash
    assert calibrate(results[1:], aa=aa, business=business).inputs_hash != found.inputs_hash
    json.dumps(found.as_dict(), allow_nan=False)


def test_frozen_margins_come_back_and_are_never_written_over(tmp_path):
    found = calibrate([result({"length": -0.1 - 0.01 * i, "copying": -1e-6 * i}) for i in range(10)])
    path = tmp_path / "margins.yaml"
    save_margins(found, path)
    assert load_margins(path) == found.margins
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        save_margins(found, path)
    assert path.read_bytes() == before


def test_margins_that_were_frozen_under_an_earlier_name_of_a_check_are_read(tmp_path):
    path = tmp_path / "margins.yaml"
    content = {"margins": {"commonest_rewrite": 0.01, "length": 0.1}}
    path.write_text(yaml.safe_dump({**content, "content_hash": sha256_json(content)}), "utf-8")
    assert load_margins(path) == Margins(top_rewrite_share=0.01, length=0.1)


def tampered(content, change):
    return yaml.safe_dump(change(yaml.safe_load(content)), sort_keys=False)


def wider(value):
    value["margins"]["judge_ndcg"] *= 2
    return value


def added(value):
    return {**value, "note": "mine"}


def no_hash(value):
    del value["content_hash"]
    return value


@pytest.mark.parametrize(
    ("change", "message"),
    [(wider, "frozen margins were changed"), (added, "frozen margins were changed"), (no_hash, "no margins file")],
)
def test_a_margins_file_that_was_touched_is_refused(tmp_path, change, message):
    path = tmp_path / "margins.yaml"
    save_margins(calibrate([result({})] * 10), path)
    path.write_text(tampered(path.read_text("utf-8"), change), "utf-8")
    with pytest.raises(ValueError, match=message):
        load_margins(path)


@pytest.mark.parametrize("content", ["", "[1, 2]", "a: [", "\x00", "margins: 2020-01-01\ncontent_hash: x\n", "[" * 5000])
def test_what_is_no_margins_file_is_refused(tmp_path, content):
    path = tmp_path / "margins.yaml"
    path.write_text(content, "utf-8")
    with pytest.raises(ValueError, match="margins"):
        load_margins(path)


def test_a_hash_alone_makes_no_margins(tmp_path):
    path = tmp_path / "margins.yaml"
    content = {"margins": {"no_such_check": 1.0}}
    path.write_text(yaml.safe_dump({**content, "content_hash": sha256_json(content)}), "utf-8")
    with pytest.raises(ValueError, match="no check with a margin is called no_such_check"):
        load_margins(path)
