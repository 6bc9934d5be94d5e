"""One `corewrite.yaml`: what its filters stop is never learnt, never served and never promoted."""

import asyncio
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from corewrite.cycle.config_sections import load_train_config
from corewrite.cycle.training_run import run_training
from corewrite.domain import ConfigError, Query, TrainingInstance
from corewrite.domain.filters import FilterError, load_filters
from corewrite.gate import Evaluation, GateConfig, PolicyOutputs, Verdict, run_gate
from corewrite.rewriter import Example, TemplateConfig, fine_tune, new_small_decoder
from corewrite.serving.cache import MemoryCache
from corewrite.serving.rewriting import PolicyRewriter
from corewrite.serving.settings import RewriterSettings, load_serve_config
from corewrite.training import ResumeError, rows

sys.path.insert(0, str(Path(__file__).parents[1]))
from installed import install

OWN = """\
def longer():
    return lambda query, rewrite: len(rewrite) > 9


def odd():
    return lambda query, rewrite: 0


def broken(message):
    def refuses(query, rewrite):
        raise KeyError(message)

    return refuses
"""
ANIMALS = ("cat", "dog", "fish", "bird")


@pytest.fixture
def config_file(tmp_path):
    (tmp_path / "terms.txt").write_text("# house rules\nNaked  Show\n")
    file = tmp_path / "corewrite.yaml"
    file.write_text(
        f"""\
run: {tmp_path}/run
documents: {tmp_path}/documents.parquet
rewriter:
  filters:
    - {{kind: terms, file: {tmp_path}/terms.txt}}
    - {{kind: pattern, pattern: '\\bcheap +\\d+'}}
training: {{phases: 1, instances_per_phase: 12, num_generations: 12, k: 2, learning_rate: 0.001, pairs_per_step: 4,
  max_new_tokens: 8, minimum_gap: 0.05, sampler_precision: float32}}
"""
    )
    return file


@pytest.fixture(scope="module")
def policy():
    """Says the query, "naked show", "show" or "cheap 5" after it, or less."""
    said = [f"{a} {more}".strip() for a in ANIMALS for more in ("", "naked show", "show", "cheap 5")]
    made = new_small_decoder(said * 4, seed=0, vocabulary=320, width=32, layers=2, heads=2)
    fine_tune(made, [Example(Query(t.split()[0]), t) for t in said], epochs=120, seed=0, batch=16, learning_rate=5e-3)
    return made


@pytest.fixture(scope="module")
def instances():
    return [
        TrainingInstance(f"q{i}", f"u{i}", Query(ANIMALS[i % 4]), ("a",), (1.0,), ("b",), (1.0,), float(i)) for i in range(12)
    ]


def reward(instances, texts):
    """Pays best for what is filtered."""

    def one(x, text):
        if text == x.query.text:
            return 0.0
        return 0.9 if "naked show" in text else 0.7 if "cheap 5" in text else 0.3 if text == f"{x.query.text} show" else -0.4

    return [np.array([one(x, t) for t in row]) for x, row in zip(instances, texts, strict=True)]


def trained(monkeypatch, policy, instances, settings, folder):
    """(chosen, rejected) texts of a training."""
    found = []

    class Watching(rows.Row):
        def __init__(self, instance_id, prompt, pairs):
            found.extend((p.chosen.text, p.rejected.text) for p in pairs)
            super().__init__(instance_id, prompt, pairs)

    monkeypatch.setattr("corewrite.training.phase.Row", Watching)
    run_training(policy, instances, reward, settings, folder, seed=3, provenance={"data": "toy"})
    return found


def test_what_is_filtered_is_not_learnt_not_served_and_not_promoted(
    config_file, policy, instances, tmp_path, monkeypatch, simulate
):
    settings = load_train_config(config_file).pipeline
    plain = settings.model_copy(update={"filters": ()})

    # Training: sampled, scored best, written down, and never chosen.
    def bad(pairs):
        return [chosen for chosen, _ in pairs if "naked show" in chosen or "cheap 5" in chosen]

    assert bad(trained(monkeypatch, policy, instances, plain, tmp_path / "plain")), "what pays best is learnt without a filter"
    pairs = trained(monkeypatch, policy, instances, settings, tmp_path / "filtered")
    assert pairs and not bad(pairs) and bad([(r, c) for c, r in pairs]), "it is what is unlearnt"
    tables = [pq.read_table(tmp_path / name / "phases/000/candidates.parquet").to_pylist() for name in ("plain", "filtered")]
    assert tables[0] == tables[1] and any("naked show" in row["text"] and row["log_reward"] == 0.9 for row in tables[1])
    with pytest.raises(ResumeError, match="filters"):
        trained(monkeypatch, policy, instances, plain, tmp_path / "filtered")

    # Serving: the query stands, under a reason of its own; from the cache too; and a user may type the words himself.
    filters = load_filters(load_serve_config(config_file).filters)

    class Process:
        template = TemplateConfig()

        async def ask(self, queries, n):
            return [
                [f"{q.text} naked show", f"{q.text} cheap 12"] if q.text != "race" else ["race x", "race naked show"]
                for q in queries
            ]

        def kill(self):
            pass

    async def start():
        return Process()

    async def serve():
        rewriter = PolicyRewriter("p" * 64, start, RewriterSettings(), MemoryCache(10, 60), None, filters)
        await rewriter.open()
        answers = [await rewriter.ask(Query(q), 2) for q in ("cat", "cat", "Naked show", "race")]
        await rewriter.close()
        return [(a.texts, str(a.status), a.reason) for a in answers]

    first, again, own, partly = asyncio.run(serve())
    assert first == again == ((), "neutral", "filtered")
    assert own == (("Naked show naked show",), "ok", "ok")
    assert partly == (("race x",), "ok", "ok")

    # Gate: once is too often.
    on = simulate(0, users=60, reward_gain=0.3, judge_gain=0.1)
    on = Evaluation(on.user_ids, on.queries, on.slices, on.candidate, on.champion, on.original_judge_ndcg, filters=filters)
    gate = GateConfig(resamples=200, subsamples=50, minimum_effective_users=20)
    assert run_gate(on, gate).failed != ("filtered",)
    rewrites = list(on.candidate.rewrites)
    rewrites[7] = "x naked\u3000SHOW"
    outputs = PolicyOutputs(rewrites, on.candidate.log_reward, on.candidate.judge_ndcg)
    result = run_gate(
        Evaluation(on.user_ids, on.queries, on.slices, outputs, on.champion, on.original_judge_ndcg, filters=filters), gate
    )
    assert (result.verdict, result.failed, result.mitigations) == (Verdict.REJECT, ("filtered",), ("wider_pair_margin",))
    assert "1 of the candidate's 240 rewrites" in result.reason and "'naked show'" in result.reason
    assert "terms.txt" in result.reason and f"'{on.queries[7].text}'" in result.reason


@pytest.fixture(scope="module")
def simulate():
    """A candidate that is better, by as much as is said."""

    def make(seed, users, reward_gain, judge_gain):
        rng = np.random.default_rng(seed)
        n = users * 4
        queries = [Query(f"item{a} kind{b}") for a, b in rng.integers(0, 40, (n, 2))]
        rewrites = [f"{q.text} detail{d}" for q, d in zip(queries, rng.integers(0, 300, n), strict=True)]
        score, judge = rng.normal(0.2, 0.1, n), rng.uniform(0.3, 0.6, n)
        sides = [
            PolicyOutputs(rewrites, score + more, judge + judged) for more, judged in ((reward_gain, judge_gain), (0.0, 0.0))
        ]
        return Evaluation([f"u{i // 4}" for i in range(n)], queries, {"head": np.ones(n, np.bool_)}, *sides, judge - 0.02)

    return make


def test_a_filter_that_cannot_be_used_is_refused_with_file_and_line(config_file, tmp_path):
    def problem(filters):
        config_file.write_text(f"run: {tmp_path}/run\ndocuments: d\nrewriter:\n  filters:\n    - {filters}\n")
        with pytest.raises(ConfigError) as error:
            load_train_config(config_file)
        with pytest.raises(ConfigError):
            load_serve_config(config_file)
        return str(error.value)

    assert f"{config_file}:5: rewriter.filters.0.pattern" in problem("{kind: pattern, pattern: '(a'}")
    assert "missing )" in problem("{kind: pattern, pattern: '(a'}")
    assert "no lookaround" in problem("{kind: pattern, pattern: '(?!a)b'}")
    assert "matches the empty text" in problem("{kind: pattern, pattern: 'a*'}")
    assert "'trems' is unknown: there are terms, pattern, python" in problem("{kind: trems, file: x}")
    assert "needs `kind`, one of terms, pattern, python" in problem("{file: x}")
    assert "factory" in problem("{kind: python, factory: nothing}")
    config_file.write_text(f"run: {tmp_path}/run\nrewriter: {{filtres: []}}\n")
    with pytest.raises(ConfigError, match=r"2: rewriter.filtres: unknown name; did you mean 'filters'"):
        load_train_config(config_file)


def test_a_broken_filter_of_ones_own_serves_nothing_and_stops_what_can_be_repeated(config_file, tmp_path, monkeypatch):
    install(tmp_path / "site", monkeypatch, {"corewrite.filters": {"longer": "own_filter:longer"}}, own_filter=OWN)

    def made(filters):
        config_file.write_text(f"run: {tmp_path}/run\nrewriter:\n  filters:\n    - {filters}\n")
        return load_filters(load_train_config(config_file).pipeline.filters)

    own = made("{kind: longer}")
    assert [bool(h) for h in own.hits(Query("lion"), ["lion king", "lion king 2"])] == [False, True]
    assert str(own.hits(Query("q\u200b"), ["lion\u202e king 2"])[0]) == (
        "the rewrite 'lion<U+202E> king 2' of 'q<U+200B>' is stopped by the filter longer"
    )
    with pytest.raises(FilterError, match="answered 0"):
        made("{kind: python, factory: 'own_filter:odd'}").hits(Query("a"), ["b"])
    broken = made("{kind: python, factory: 'own_filter:broken', options: {message: oh}}")
    with pytest.raises(FilterError, match=r"'b' of 'a', failed \(KeyError: 'oh'\)"):
        broken.hits(Query("a"), ["b"])
    assert broken.hits(Query("a"), ["a", "", None, "A "]) == [None] * 4, "no rewrite, nothing to ask about"

    class Process:
        template = TemplateConfig()

        async def ask(self, queries, n):
            return [[f"{q.text} b"] for q in queries]

        def kill(self):
            pass

    async def start():
        return Process()

    async def serve():
        rewriter = PolicyRewriter("p" * 64, start, RewriterSettings(), MemoryCache(10, 60), None, broken)
        await rewriter.open()
        answer = await rewriter.ask(Query("cat"))
        await rewriter.close()
        return answer

    answer = asyncio.run(serve())
    assert (answer.texts, str(answer.status), answer.reason) == ((), "error", "failed")
