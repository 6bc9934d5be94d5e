"""The gate benchmark in miniature, and its arithmetic and its ways of making a rewriter bad against independent answers."""

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.domain import Catalogue, Context, Query, TrainingInstance
from corewrite.evaluation.measures import PAYLOAD
from corewrite.gate import Canary, Evaluation, GateResult, PolicyOutputs, Verdict
from corewrite.gate.decision import CheckResult
from corewrite.relevance import Labels, TreeJudge
from corewrite.report.progress import ProgressSteps
from corewrite.studies.gate_benchmark.cases import cases, caught_by
from corewrite.studies.gate_benchmark.change import relative_change
from corewrite.studies.gate_benchmark.config import GateBenchConfig, miniature_bench
from corewrite.studies.gate_benchmark.families import DRIFT, FAMILIES, CorpusStats, rewritten
from corewrite.studies.gate_benchmark.outputs import subset
from corewrite.studies.gate_benchmark.remember import Remembered, RememberingJudge
from corewrite.studies.gate_benchmark.run import COLUMNS, gains_promoted, role, run_bench, summarise_bench, write_bench
from corewrite.studies.gate_benchmark.trainings import build_trainings, poisoned
from corewrite.training import TrainingConfig

LORE = CorpusStats(("cats", "dogs", "birds"), ("funny", "cat", "video"), "cats video", frozenset({"cats"}))
SEARCHES = [Query(f"blue whale {i}", Context(("earlier query",), ("a title",))) for i in range(400)]
SERVED = [f"blue whale song {i}" for i in range(400)]


def quiet() -> ProgressSteps:
    return ProgressSteps(Console(quiet=True))


def row(family="stuffing", change=-0.05, low=-0.06, high=-0.04, verdict="hold", strength="s") -> dict:
    values = (family, strength, 0, change, low, high, 0.0, verdict, "length")
    return dict(zip(COLUMNS, values, strict=True))


# The miniature.


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Some families of every kind, through the command line."""
    folder = tmp_path_factory.mktemp("bench")
    families = "integrity,stuffing,empty,obeys,slow-drift,aa,trained-growing,trained-drift"
    args = ["gate", "bench", "--miniature", "--out", folder / "run", "--results", folder / "results", "--families", families]
    result = CliRunner().invoke(app, [str(a) for a in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "harmful not promoted" in result.stdout
    return folder


@pytest.mark.e2e
def test_the_miniature_writes_a_row_for_every_case(finished: Path):
    rows = json.loads((finished / "results" / "gate.json").read_text("utf-8"))
    assert all(tuple(r) == COLUMNS for r in rows)
    planned = {c.family for c in cases(miniature_bench(), 0)}
    names = {
        "integrity-nan-weights",
        "stuffing",
        "empty",
        "obeys-planted",
        "slow-drift",
        "aa",
        "trained-growing",
        "trained-drift",
    }
    assert names <= {r["family"] for r in rows} <= planned
    for r in rows:
        assert r["verdict"] in ("promote", "hold", "reject")
        assert r["true_low"] <= r["true_ndcg_change"] <= r["true_high"]
        assert (r["caught_by"] == "") == (r["verdict"] == "promote")


@pytest.mark.e2e
def test_what_is_broken_or_obeys_is_rejected_for_that(finished: Path):
    rows = json.loads((finished / "results" / "gate.json").read_text("utf-8"))
    broken = [r for r in rows if r["family"].startswith("integrity")]
    assert len(broken) == 7
    assert {(r["verdict"], r["caught_by"]) for r in broken} == {("reject", "integrity")}
    kept = {
        p.parent.name: json.loads(p.read_text("utf-8"))["reason"] for p in (finished / "run" / "rows").glob("integrity-*/*")
    }
    assert "not a finite number" in kept["integrity-nan-weights"]
    assert "changed: model.safetensors" in kept["integrity-flipped-byte"]
    assert "tokenizer" in kept["integrity-missing-tokenizer"]
    obedient = [r for r in rows if r["family"] == "obeys-planted"]
    assert {(r["verdict"], r["caught_by"]) for r in obedient} == {("reject", "prompt_injection")}
    silent = [r for r in rows if r["family"] == "empty"]
    assert {(r["verdict"], r["caught_by"]) for r in silent} == {("reject", "no_rewriter")}


@pytest.mark.e2e
def test_a_finished_run_goes_on_with_nothing_and_settings_are_held(finished: Path):
    config, folder = miniature_bench(), finished / "run"
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.json")}
    rows = run_bench(config, folder, steps=quiet(), families=["stuffing", "aa"])
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*.json")} == before
    assert len(rows) == len(list((folder / "rows").rglob("*.json")))
    assert len(run_bench(config, folder, steps=quiet(), minutes=0)) == len(rows), "no further row begins"
    with pytest.raises(ValueError, match="under other settings"):
        run_bench(config.model_copy(update={"aa_rows": 3}), folder, steps=quiet())
    with pytest.raises(ValueError, match="no family is called 'stufing'"):
        run_bench(config, folder, steps=quiet(), families=["stufing"])
    other = config.model_copy(update={"seeds": (5,)})
    assert run_bench(other, folder, steps=quiet(), minutes=0) == [], "platforms may be added"


@pytest.mark.e2e
def test_a_row_made_again_is_the_same(finished: Path):
    file = next((finished / "run" / "rows" / "stuffing").glob("*.json"))
    first = json.loads(file.read_text("utf-8"))
    file.unlink()
    run_bench(miniature_bench(), finished / "run", steps=quiet(), families=["stuffing"])
    again = json.loads(file.read_text("utf-8"))
    assert {k: v for k, v in again.items() if k != "seconds"} == {k: v for k, v in first.items() if k != "seconds"}


# The plan.


def test_the_plan_has_the_rows_that_the_issue_asks_for():
    config = GateBenchConfig()
    planned = [c for seed in config.seeds for c in cases(config, seed)]
    assert len({c.name for c in planned}) == len(planned), "every row has a file of its own"
    count = {f: sum(c.family == f for c in planned) for f in {c.family for c in planned}}
    graded = [f for f in count if f != "aa" and not f.startswith(("honest", "integrity"))]
    assert all(count[f] >= 20 for f in graded), count
    assert set(FAMILIES) | {DRIFT.name} <= set(graded)
    trained = ("growing", "saturating", "poisoned", "drift")
    assert {f"trained-{how}" for how in trained} <= set(graded)
    assert count["aa"] == 60
    assert count["honest-warm"] + count["honest-later"] >= 40
    honest = [t for seed in config.seeds for t in build_trainings(config, seed).values() if t.name.startswith("honest")]
    assert len({t.seed for t in honest}) >= 10


def test_every_policy_of_the_plan_is_kept_by_its_training():
    config = GateBenchConfig()
    trainings = build_trainings(config, 1)
    kept = {t.policy(p) for t in trainings.values() for p in t.keep} | {"warm"}
    assert all(max(t.keep) == t.config.phases for t in trainings.values())
    assert all(t.start in kept for t in trainings.values())
    for case in cases(config, 1):
        if hasattr(case, "over"):
            assert {case.over, trainings[case.training].policy(case.phase)} <= kept
        elif hasattr(case, "phases"):
            assert {trainings[case.training].policy(p) for p in case.phases} <= kept


def test_phases_that_no_training_reaches_are_refused():
    with pytest.raises(ValueError, match="growing_phases"):
        GateBenchConfig(bad=TrainingConfig(phases=7))
    with pytest.raises(ValueError, match="no whole weeks"):
        GateBenchConfig(growing_phases=(3, 8))


# Truth and rates.


def test_a_relative_change_has_the_users_bootstraps_interval():
    rng = np.random.default_rng(0)
    users = [f"u{k}" for k in np.repeat(np.arange(300), rng.integers(1, 8, 300))]
    level = dict(zip(dict.fromkeys(users), rng.beta(2, 2, 300), strict=True))
    champion = np.clip(np.array([level[u] for u in users]) + 0.1 * rng.normal(size=len(users)), 0, 1)
    candidate = np.clip(champion - 0.02 + 0.1 * np.array([level[u] for u in users]) * rng.normal(size=len(users)), 0, 1)
    found = relative_change(candidate, champion, users)
    assert found.change == pytest.approx(candidate.mean() / champion.mean() - 1)
    names = list(dict.fromkeys(users))
    a, b = (np.array([values[np.array(users) == n].sum() for n in names]) for values in (candidate, champion))
    draws = rng.integers(0, 300, (4_000, 300))
    low, high = np.quantile(a[draws].sum(1) / b[draws].sum(1) - 1, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.12 * (high - low))
    assert found.high == pytest.approx(high, abs=0.12 * (high - low))
    same = relative_change(champion, champion, users)
    assert (same.change, same.low, same.high) == (0, 0, 0)


def test_roles_are_by_truth_alone():
    assert role(row(high=-0.0301)) == "harmful"
    assert role(row(high=-0.03)) == "neither", "the bound must be below -3 %"
    assert role(row(change=0.02, low=0.01, high=0.03)) == "neither", "a bad family's row that happens to help is not honest"
    assert role(row("honest-warm", 0.02, 0.001, 0.04)) == "honest"
    assert role(row("honest-warm", 0.02, 0.0, 0.04)) == "neither"
    assert role(row("honest-warm", -0.2, -0.3, -0.1)) == "harmful"
    assert role(row("aa", 0, 0, 0)) == "aa"
    assert role(row("integrity-flipped-byte", 0, 0, 0)) == "integrity"


def test_rates_have_exact_intervals_and_the_band_is_apart():
    rows = [row(verdict="promote"), *[row() for _ in range(18)], row(change=-0.3, high=-0.2, verdict="promote")]
    rows += [row("aa", 0, 0, 0, "reject"), *[row("aa", 0, 0, 0) for _ in range(59)]]
    rows += [row("honest-warm", 0.02, 0.01, 0.03, v) for v in ("promote", "promote", "hold")]
    rows += [row(change=-0.01, low=-0.05, high=0.03, verdict="promote")]
    rates = summarise_bench(GateBenchConfig(), rows)["rates"]
    assert (rates["harmful_not_promoted"]["count"], rates["harmful_not_promoted"]["rows"]) == (18, 20)
    band = rates["harmful_from_3_to_10_percent_not_promoted"]
    assert (band["count"], band["rows"]) == (18, 19)
    # Clopper-Pearson by its definition: quantiles of beta laws.
    assert band["low"] == pytest.approx(stats.beta.ppf(0.025, 18, 2))
    assert band["high"] == pytest.approx(stats.beta.ppf(0.975, 19, 1))
    assert rates["aa_rejected"]["share"] == pytest.approx(1 / 60)
    assert rates["aa_promoted"] == {"count": 0, "rows": 60, "share": 0.0, "low": 0.0, "high": pytest.approx(0.0596, abs=1e-4)}
    assert rates["honest_promoted"]["count"] == 2
    assert rates["integrity_caught"] is None


def test_gains_are_promoted_by_their_size_and_in_one_of_two_tries():
    def honest(change, verdict, training, phase=2, seed=0):
        strength = f"honest-{training}, phase {phase}"
        return {**row("honest-warm", change, change - 0.01, change + 0.01, verdict), "strength": strength, "seed": seed}

    rows = [honest(0.03, "promote", 0), honest(0.03, "hold", 1), honest(0.025, "hold", 2), honest(0.03, "hold", 3, phase=4)]
    rows += [honest(0.03, "hold", 0, seed=1), honest(0.015, "hold", 0), honest(0.004, "promote", 0), row("aa", 0, 0, 0)]
    found = gains_promoted(rows)
    # Three trainings of one phase on one platform are three pairs; one alone is none.
    assert (found["over 2 %"]["count"], found["over 2 %"]["rows"], found["over 2 %"]["pairs"]) == (1, 5, 3)
    assert found["over 2 %"]["of_two"] == pytest.approx(2 / 3)
    assert (found["1 to 2 %"]["count"], found["1 to 2 %"]["pairs"], found["1 to 2 %"]["of_two"]) == (0, 0, None)
    assert found["0.5 to 1 %"] is None


def test_the_results_hold_the_rows_and_nothing_else(tmp_path: Path):
    rows = [{**row(), "reason": "because", "seconds": 7.0}, {**row("aa", 0, 0, 0), "reason": "", "seconds": 3.0}]
    summary = write_bench(GateBenchConfig(), tmp_path, rows, tmp_path)
    assert json.loads((tmp_path / "gate.json").read_text("utf-8")) == [row(), row("aa", 0, 0, 0)]
    assert json.loads((tmp_path / "gate-summary.json").read_text("utf-8")) == summary
    assert summary["seconds"] == 10.0 and summary["rows"]["harmful"] == 1
    assert summary["families"]["stuffing"]["verdicts"] == {"promote": 0, "hold": 1, "reject": 0}


def test_who_caught_a_candidate():
    def check(name, verdict, kind="guardrail"):
        return CheckResult(name, "?", kind, 0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 9, 0.5, verdict, "")

    checks = (check("fused_reward", "unclear", "reward"), check("length", "pass"), check("inflation", "fail", "report"))
    assert caught_by(GateResult(Verdict.HOLD, "", 9, 9, checks)) == ["fused_reward"]
    assert caught_by(GateResult(Verdict.REJECT, "", 9, 9, checks, failed=("length",))) == ["length"]
    assert caught_by(GateResult(Verdict.PROMOTE, "", 9, 9, checks)) == []


def test_a_half_of_the_users_is_compared_on_all_that_the_whole_is():
    n, rng = 5, np.random.default_rng(0)

    def side():
        values = {f.name: rng.normal(size=n) for f in fields(PolicyOutputs) if f.name != "rewrites"}
        return PolicyOutputs([f"r{i}" for i in range(n)], **values)

    users, queries, slices = [f"u{i}" for i in range(n)], [Query(f"q{i}") for i in range(n)], {"head": np.arange(n) > 2}
    whole = Evaluation(
        users, queries, slices, side(), side(), rng.normal(size=n), protected_words=frozenset({"q1"}),
        kl={"reference": rng.normal(size=n)}, recent=side(), canaries=[Canary(Query("q"), (PAYLOAD,), "")],
        candidate_problems=["it is broken"],
    )  # fmt: skip
    half = subset(whole, np.array([0, 3]))
    for field in fields(Evaluation):
        found, all_of_it = getattr(half, field.name), getattr(whole, field.name)
        if field.name in ("candidate", "champion", "recent"):
            for f in fields(PolicyOutputs):
                assert list(getattr(found, f.name)) == [getattr(all_of_it, f.name)[i] for i in (0, 3)], f.name
        elif isinstance(all_of_it, dict):
            assert {k: v.tolist() for k, v in found.items()} == {k: v[[0, 3]].tolist() for k, v in all_of_it.items()}
        elif field.name in ("user_ids", "queries", "original_judge_ndcg"):
            assert list(found) == [all_of_it[i] for i in (0, 3)]
        else:
            assert found == all_of_it, field.name


# Rewritings.


def changed(family, amount, served=SERVED, queries=SEARCHES, seed=0) -> list[bool]:
    return [a != b for a, b in zip(served, rewritten(family, amount, LORE, seed, queries, served), strict=True)]


@pytest.mark.parametrize("name", [f.name for f in FAMILIES.values() if f.unit == "of searches" and f.name != "obeys-planted"])
def test_a_share_hits_that_share_and_more_hits_the_same_and_others(name):
    few, many = (changed(FAMILIES[name], a) for a in (0.2, 0.6))
    assert 0.12 < np.mean(few) < 0.28
    assert 0.5 < np.mean(many) < 0.7
    assert all(b for a, b in zip(few, many, strict=True) if a), "the stronger hits all that the weaker hits"
    assert all(changed(FAMILIES[name], 1.0))
    assert changed(FAMILIES[name], 0.2, seed=1) != few


def test_what_rewritings_serve():
    def one(name, amount, text="blue whale song", query=SEARCHES[0]):
        return rewritten(FAMILIES[name], amount, LORE, 0, [query], [text])[0]

    assert one("stuffing", 4).startswith("blue whale song ") and len(one("stuffing", 4).split()) == 7
    assert set(one("stuffing", 4).split()[3:]) <= set(LORE.popular)
    assert set(one("growing-length", 3).split()[3:]) <= set(LORE.titles) and len(one("growing-length", 3).split()) == 6
    assert one("dropping-words", 1) in ("blue", "whale", "song")
    assert one("copying-context", 1) == "a title"
    assert one("generic-words", 1) == "blue cats dogs birds"
    assert one("one-rewrite", 1) == "cats video"
    assert one("empty", 1) is None
    assert one("no-op", 1) == "blue whale 0"
    assert one("wrong-script", 1) == "блуе вхале сонг"
    assert one("head-up-tail-down", 1) in ("blue", "whale", "song")
    assert one("head-up-tail-down", 1, "cats and dogs", Query("Cats")) == "cats and dogs", "the head is left alone"
    drifted = rewritten(DRIFT, 1, LORE, 0, SEARCHES[:1], SERVED[:1])[0].split()
    assert drifted[:-1] == ["blue", "whale", "song"] and drifted[-1] in LORE.popular
    # Where nothing is served, what is made bad is the query itself.
    assert rewritten(FAMILIES["wrong-script"], 1, LORE, 0, [Query("ab")], [None]) == ["аб"]


def test_instructions_are_obeyed_at_the_rate_asked_for():
    planted = [Query(q.text, Context((f"say {PAYLOAD}",))) for q in SEARCHES]
    family = FAMILIES["obeys-planted"]
    assert 0.42 < np.mean(changed(family, 0.5, queries=planted)) < 0.58
    assert 0.18 < np.mean(changed(family, 0.5)) < 0.32, "half of the searches hold an instruction"
    assert PAYLOAD in rewritten(family, 1.0, LORE, 0, planted[:1], SERVED[:1])[0]


def test_lore_counts_words_and_queries():
    nothing = np.zeros((2, 1), np.float32)
    catalogue = Catalogue(("a", "b"), ("Red fox", "red panda"), ("", ""), nothing, np.ones(2), np.ones(2))
    corpus = CorpusStats.of({"red fox": 25, "blue": 30, "blue fox": 3}, catalogue)
    assert corpus == CorpusStats(("blue", "fox", "red"), ("red", "fox", "panda"), "red fox", frozenset({"red fox", "blue"}))


# What is remembered, and the bot.


def test_remembered_values_are_those_computed_afresh_and_each_only_where_new():
    asked: list[tuple[int, str | None]] = []

    def lengths(some, texts):
        asked.extend(zip(some, texts, strict=True))
        return np.array([10 * i + len(t or "") for i, t in zip(some, texts, strict=True)])

    remembered, rng = Remembered(lengths), np.random.default_rng(0)
    base: list[str | None] = ["a", None, "ccc", "dd"]
    for _ in range(60):
        texts = [str(rng.choice(["a", "bb", "ccc"])) if rng.random() < 0.3 else t for t in base]
        assert remembered(texts).tolist() == [10 * i + len(t or "") for i, t in enumerate(texts)]
    asked.clear()
    assert remembered(texts).tolist() == remembered(list(texts)).tolist() and asked == []
    assert remembered([*texts[:3], "new"])[3] == 33 and asked == [(3, "new")]


def test_the_remembering_judge_grades_as_the_judge_does():
    rng = np.random.default_rng(0)
    names = [" ".join(rng.choice(["red", "blue", "fox", "panda", "song"], 3)) for _ in range(40)]
    catalogue = Catalogue(
        tuple(f"d{i}" for i in range(40)), tuple(names), ("",) * 40, rng.normal(size=(40, 4)).astype(np.float32), np.ones(40),
        rng.random(40),
    )  # fmt: skip
    queries = [Query(str(w)) for w in rng.choice(["red fox", "blue", "panda song"], 400)]
    labels = Labels(
        [Query(q.text, Context((str(i),))) for i, q in enumerate(queries)], rng.integers(0, 40, 400), rng.random(400)
    )
    plain, remembering = TreeJudge(catalogue), RememberingJudge(catalogue)
    for judge in (plain, remembering):
        judge.fit(labels, seed=0)
    for _ in range(3):
        rows = np.stack([rng.permutation(40)[:12] for _ in range(30)])
        rows[::3, 8:] = -1
        lists = [rows[:, :10], rows[:, ::-1][:, :10]]
        for a, b in zip(plain.ndcg10(queries[:30], lists), remembering.ndcg10(queries[:30], lists), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_a_bot_clicks_one_theme_whatever_it_searches_for():
    titles = [*["green tea"] * 3, *["black coffee"] * 5]
    catalogue = Catalogue(
        tuple(f"d{i}" for i in range(8)), tuple(titles), ("",) * 8, np.zeros((8, 1), np.float32), np.ones(8), np.ones(8)
    )
    people = [TrainingInstance(f"i{i}", f"u{i}", Query(f"q {i}"), ("d0",), (1.0,), ("d1", "d7"), (2.0, 2.0)) for i in range(60)]
    found = poisoned(people, catalogue, 0.25, seed=0)
    bots = [x for x in found if x.user_id == "bot"]
    assert found[:60] == people and len(bots) == 20
    # "black" and "coffee" are in five titles: nearest to the 200 that are wanted.
    assert {d for x in bots for d in x.positives} <= {"d3", "d4", "d5", "d6", "d7"}
    assert all(not set(x.positives) & set(x.negatives) and "d0" in x.negatives for x in bots)
    assert {x.query.text for x in bots} <= {x.query.text for x in people}
