"""What the training benchmarks run on: the simulated platform with its warm start, and a 30 M decoder with long prompts."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from scipy import stats
from transformers import LlamaConfig, LlamaForCausalLM

from corewrite.cycle import read_catalogue, read_labels, read_window
from corewrite.cycle.steps.warm_start import warm_start
from corewrite.deployment.deployment import Deployment, embedded_deployment
from corewrite.deployment.served import fused_lists, log_rewards, served_rewrites
from corewrite.domain import Context, Query, TrainingInstance, normalise
from corewrite.fusion import FusionSpec, default_spec
from corewrite.registry import Registry
from corewrite.relevance import LateInteraction, TreeJudge
from corewrite.rewriter import (
    Completion,
    Example,
    PromptTemplate,
    Rewriter,
    TemplateConfig,
    as_rewrite,
    fine_tune,
    load_rewriter,
    new_small_decoder,
    sample,
)
from corewrite.search import top_overlap
from corewrite.simulation.intents import ndcg10
from corewrite.simulation.traffic import simulate_week
from corewrite.simulation.week import Week
from corewrite.simulation.world import World, make_world
from corewrite.studies.engine import NoRewriter
from corewrite.studies.quickstart.config import DemoConfig
from corewrite.studies.quickstart.run import run_demo
from corewrite.studies.truth import truth_slices
from corewrite.training import TrainingConfig
from corewrite.training.candidates import distinct_candidates, score_candidates
from corewrite.training.config import ScoringConfig
from corewrite.training.pairs import select_pairs
from corewrite.training.rollouts import build_prompts
from corewrite.training.rows import Row

FloatArray = npt.NDArray[np.float64]
GATE_SEARCHES = 2_000
SAMPLES = 16


@dataclass(frozen=True, eq=False)
class Platform:
    """One seed of the simulated platform, ready to train on.

    Attributes:
        config: Of the demo.
        world: Truth, for measuring only.
        deployment: What ranks and rewards.
        judge: Of the gate.
        instances: To train on.
        for_gate: Of gate users, to measure reward on.
        held_out: Fresh searches with truth.
        warm: The warm start.
    """

    config: DemoConfig
    world: World
    deployment: Deployment
    judge: TreeJudge
    instances: list[TrainingInstance]
    for_gate: list[TrainingInstance]
    held_out: Week
    warm: Rewriter

    def measure(self, policy: Rewriter) -> dict[str, float]:
        """Held-out reward and judge on gate users' searches, true nDCG@10 by slice on fresh ones, words a rewrite."""
        return self.measure_by_search(policy)[0]

    def measure_by_search(self, policy: Rewriter) -> tuple[dict[str, float], FloatArray]:
        """As `measure`, and the true nDCG@10 of each fresh search, float64 [searches]."""
        limit = self.config.pipeline.max_new_tokens
        gate = served_rewrites(policy, [x.query for x in self.for_gate], max_new_tokens=limit)
        return self.measure_rewrites(gate, served_rewrites(policy, self.held_out.queries, max_new_tokens=limit))

    def measure_rewrites(self, gate: Sequence[str | None], fresh: Sequence[str | None]) -> tuple[dict[str, float], FloatArray]:
        """As `measure_by_search`, of what a policy serves on gate users' searches and on the fresh ones."""
        queries = [x.query for x in self.for_gate]
        (judged,) = self.judge.ndcg10(queries, [fused_lists(self.deployment, queries, gate)])
        truth = ndcg10(self.world, self.held_out.intents, fused_lists(self.deployment, self.held_out.queries, fresh))
        means = {
            "reward": float(log_rewards(self.deployment, self.for_gate, gate).mean()),
            "judge": float(judged.mean()),
            **{f"ndcg10_{name}": float(truth[inside].mean()) for name, inside in truth_slices(self.held_out).items()},
            "words": float(np.mean([len((r or q.text).split()) for r, q in zip(fresh, self.held_out.queries, strict=True)])),
        }
        return means, truth

    def under(self, spec: FusionSpec) -> Deployment:
        """The same models under another spec."""
        return embedded_deployment(self.deployment.catalogue, self.deployment.ranker.embedder, spec)


def platform(seed: int, out: Path) -> Platform:
    """The platform of a seed; the demo's loop and the warm start run first where `out` does not hold them yet."""
    folder, config = out / f"seed-{seed}", DemoConfig(seed=seed)
    if not (folder / "summary.json").is_file():
        run_demo(config, folder, console=Console(stderr=True), with_launches=False)
    # Not the champion's: a seed whose first candidate was held has none, and its platform is as good.
    registry = Registry(folder / "registry")
    (model,) = (LateInteraction.load(registry.path(a)) for a in registry.artifacts() if a.kind == "relevance")
    deployment = embedded_deployment(read_catalogue(folder / "documents.parquet"), model, default_spec())
    overlap = top_overlap(deployment.cascade)
    earlier = read_window(folder / "logs" / "week-0.ndjson.gz", overlap=overlap)
    window = read_window(
        folder / "logs" / "week-1.ndjson.gz", overlap=overlap, thresholds=earlier.outcomes.thresholds
    )  # fmt: skip
    warm = out / f"seed-{seed}-warm"
    if not (warm / "prompt_template.json").is_file():
        repaired, good = (a + b for a, b in zip(earlier.reformulations(), window.reformulations(), strict=True))
        made, _ = warm_start(repaired, good, deployment, config.pipeline.warm_start, seed=seed)
        made.save(warm)
    judge = TreeJudge(deployment.catalogue)
    judge.fit(read_labels(folder / "labels.parquet", deployment.catalogue), seed=seed)
    world = make_world(config.seeded_world)
    week = simulate_week(world, config.traffic, NoRewriter(deployment.cascade), week=2, sessions=config.held_out_sessions)
    return Platform(
        config, world, deployment, judge, window.instances(deployment.catalogue, seed=seed),
        window.instances(deployment.catalogue, seed=seed, for_gate=True)[:GATE_SEARCHES], week, load_rewriter(warm),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class LongPrompts:
    """A decoder of 31 M parameters, prompts of 256 tokens, rewrites of seven words and an end.

    Attributes:
        policy: Briefly taught to write seven words of the query and stop.
        instances: With such prompts.
    """

    policy: Rewriter
    instances: list[TrainingInstance]

    @staticmethod
    def reward(instances: Sequence[TrainingInstance], texts: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """Pays for words by a fixed table: cheap, so that what is measured is the training; the query itself is neutral."""
        return [
            np.array([0.0 if t == x.query.text else np.mean([_worth(w) for w in t.split() or [""]]) for t in row])
            for x, row in zip(instances, texts, strict=True)
        ]


def long_prompts(out: Path, n: int = 256, steps: int = 300) -> LongPrompts:
    """Made in code; taught for a few minutes the first time."""
    rng = random.Random(5)
    words = sorted({"".join(rng.choice("bdfgklmnprst") + rng.choice("aeiou") for _ in range(3)) for _ in range(4_000)})
    texts = [" ".join(rng.choices(words, k=8)) for _ in range(12_000)]
    folder = out / "long-prompts"
    if not (folder / "prompt_template.json").is_file():
        small = new_small_decoder(texts, seed=0, vocabulary=8_192, width=64)
        tokenizer = small.tokenizer
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=8_192, hidden_size=512, intermediate_size=1_536, num_hidden_layers=8, num_attention_heads=8,
                num_key_value_heads=8, max_position_embeddings=1_024, tie_word_embeddings=True,
                pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
            )
        )  # fmt: skip
        template = PromptTemplate(tokenizer, TemplateConfig(max_tokens=256, titles=16, queries=0, part_tokens=24))
        made = Rewriter(model.eval(), tokenizer, template)
        # Short prompts first, which is cheap, then a few of the real length.
        for titles, n, batch, rate in ((1, 32 * steps, 32, 1e-3), (16, 16 * (steps // 6), 16, 5e-4)):
            print(fine_tune(made, taught(rng, words, titles, n), epochs=1, seed=0, batch=batch, learning_rate=rate))
        made.save(folder)
    policy = load_rewriter(folder)
    instances = []
    for i in range(n):
        context = Context(titles=tuple(" ".join(rng.choices(words, k=22)) for _ in range(16)))
        query = Query(" ".join(rng.choices(words, k=12)), context)
        instances.append(TrainingInstance(f"i{i:05d}", "u", query, ("a",), (1.0,), ("b",), (1.0,), float(i)))
    return LongPrompts(policy, instances)


def taught(rng: random.Random, words: Sequence[str], titles: int, n: int) -> list[Example]:
    """Queries of twelve words behind some titles, to be rewritten to seven of them."""
    examples = []
    for _ in range(n):
        query = rng.choices(words, k=12)
        context = Context(titles=tuple(" ".join(rng.choices(words, k=22)) for _ in range(titles)))
        examples.append(Example(Query(" ".join(query), context), " ".join(rng.sample(query, 7))))
    return examples


def _worth(word: str) -> float:
    return (load_hash(word) % 1_000) / 500 - 1


def load_hash(word: str) -> int:
    value = 7
    for c in word:
        value = (value * 31 + ord(c)) % 1_000_003
    return value


@dataclass(frozen=True)
class Task:
    """A policy, its instances and their reward.

    Attributes:
        name: In the results.
        policy: Where both sides start.
        instances: To train on.
        reward: Of texts.
        k: Pairs an instance.
        limit: New tokens at most.
        steps: Ours: pairs an optimizer step; the peer's batch takes as many pairs, or `completions`.
        completions: GRPO's completions an optimizer step.
    """

    name: str
    policy: Rewriter
    instances: list[TrainingInstance]
    reward: Callable[..., list[np.ndarray]]
    k: int
    limit: int
    steps: int
    completions: int

    @property
    def prompts(self) -> list[list[int]]:
        return [self.policy.template.encode(x.query) for x in self.instances]

    def peer_reward(self, index: Sequence[int], completions: Sequence[Sequence[int]]) -> list[float]:
        """The same reward as TRL asks for it; equal rewrites of an instance are scored once, as ours are."""
        texts: list[tuple[int, str]] = []
        for i, ids in zip(index, completions, strict=True):
            rewrite = as_rewrite(self.policy, Completion(tuple(ids), ()))
            texts.append((i, rewrite.text or normalise(self.instances[i].query.text)))
        asked: dict[int, list[str]] = {}
        for i, text in dict.fromkeys(texts):
            asked.setdefault(i, []).append(text)
        scores = self.reward([self.instances[i] for i in asked], list(asked.values()))
        known = {(i, t): float(s) for i, row in zip(asked, scores, strict=True) for t, s in zip(asked[i], row, strict=True)}
        return [known[key] for key in texts]

    def config(self, bf16: bool = False, **change: Any) -> TrainingConfig:
        precision = "bfloat16" if bf16 else "float32"
        return TrainingConfig(
            num_generations=SAMPLES, k=self.k, max_new_tokens=self.limit, pairs_per_step=self.steps, precision=precision,
            sampler_precision=precision, minimum_gap=0.0, learning_rate=1e-5, **change,
        )  # fmt: skip

    def rows(self, n: int) -> list[Row]:
        """Preferences of the first `n` instances, sampled by our sampler."""
        batch = self.instances[:n]
        prompts, place, keys = build_prompts(self.policy, batch)
        found = sample(self.policy, prompts, SAMPLES, keys=keys, seed=0, phase=0, max_new_tokens=self.limit)
        candidates = [
            distinct_candidates(x, [as_rewrite(self.policy, c) for c in found[i]], self.policy, identity=True)
            for x, i in zip(batch, place, strict=True)
        ]
        scored = score_candidates(batch, candidates, self.reward, ScoringConfig(), version="")
        rows = []
        for x in batch:
            pairs = select_pairs(scored.candidates[x.instance_id], self.k, 0.0)
            if len(pairs) == self.k:
                rows.append(Row(x.instance_id, tuple(self.policy.template.encode(x.query)), tuple(pairs)))
        return rows


def paired(users: Sequence[str], difference: FloatArray) -> list[float]:
    """Mean difference and its 95 % interval, by users."""
    _, at = np.unique(users, return_inverse=True)
    n, sums = np.bincount(at), np.bincount(at, difference)
    mean = sums.sum() / n.sum()
    error = np.sqrt(((sums - mean * n) ** 2).sum() * len(n) / (len(n) - 1)) / n.sum()
    half = float(stats.t.ppf(0.975, len(n) - 1) * error)
    return [float(mean), float(mean - half), float(mean + half)]


def write_rows(rows: Sequence[dict], file: Path) -> None:
    """Put rows into a results file, those of the same measure replaced."""
    kept = json.loads(file.read_text("utf-8")) if file.is_file() else []
    new = {r["measure"] for r in rows}
    kept = [r for r in kept if r["measure"] not in new]
    file.write_text(json.dumps([*kept, *rows], indent=1, allow_nan=False) + "\n", "utf-8")


def some(instances: Sequence[TrainingInstance], n: int, seed: int = 0) -> list[TrainingInstance]:
    """`n` of the instances, at random."""
    chosen = np.random.default_rng(seed).choice(len(instances), min(n, len(instances)), replace=False)
    return [replace(instances[i]) for i in sorted(chosen.tolist())]
