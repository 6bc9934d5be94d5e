"""The training engine on one GPU: random weights of real sizes, the share of the card's matrix rate, whole phases.

    python benchmarks/gpu.py [--only card,pass] [--budget 480] [--out benchmarks/results]

A row is written to gpu.json as soon as it is there, the most important first; sections that do not fit the budget are left
out and named. Measures: `pass_0.6b_share`, `sampler_0.6b`, `sync_0.6b`, `checkpoint_blocked`, `phase_0.6b`, `pass_3b_share`,
`sync_3b` and what explains them. Share: useful floating-point operations, forward and backward with head, over the rate of a
large bfloat16 product on this card. Weights are random with a bias on the head, so that rewrites end and share beginnings.
`gpu-profile.txt` has the largest kernels of a step. With --tiny everything runs small, to be tried on a processor.
"""

import argparse
import contextlib
import json
import math
import os
import random
import shutil
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import transformers

from corewrite.domain import Context, Query, TrainingInstance
from corewrite.rewriter import PromptTemplate, Rewriter, TemplateConfig, new_small_decoder, weights_checksum
from corewrite.training import ScoredCandidate, TrainingConfig, train
from corewrite.training.gradient_pass import GradientPass
from corewrite.training.optimise import Cursor, new_optimizer, optimise, reference_log_probs
from corewrite.training.pairs import Pair
from corewrite.training.rollouts import Rollouts
from corewrite.training.rows import Row, plan_steps
from corewrite.training.samplers.in_process import InProcessEngine

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
N, K, LIMIT = 16, 2, 8
SIZES = {
    "0.6b": (
        transformers.Qwen3Config,
        {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16,
         "num_key_value_heads": 8, "head_dim": 128, "rope_theta": 1e6},
    ),
    "3b": (
        transformers.Qwen2Config,
        {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
         "num_key_value_heads": 2, "rope_theta": 1e6},
    ),
    "tiny": (
        transformers.Qwen3Config,
        {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 16},
    ),
}  # fmt: skip


def wait() -> None:
    if CUDA:
        torch.cuda.synchronize()


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds until the device has done it, and what it gave."""
    wait()
    begun = time.perf_counter()
    found = run()
    wait()
    return time.perf_counter() - begun, found


@dataclass
class Bench:
    """What is measured, and where it is written."""

    out: Path
    budget: float
    tiny: bool
    rows: list[dict[str, Any]] = field(default_factory=list)
    ceiling: float = math.nan
    begun: float = field(default_factory=time.perf_counter)
    policies: dict[str, Rewriter] = field(default_factory=dict)

    @property
    def left(self) -> float:
        return self.budget - (time.perf_counter() - self.begun)

    def say(self, text: str) -> None:
        print(f"[{time.perf_counter() - self.begun:6.1f}s] {text}", flush=True)

    def add(self, measure: str, ours: float, unit: str, repeats: int = 1, **facts: Any) -> None:
        """Write a row down at once."""
        card = torch.cuda.get_device_name() if CUDA else "no GPU"
        row = {"measure": measure, "ours": ours, "peer": None, "ratio": None, "unit": unit, "repeats": repeats}
        row |= {
            "machine": f"{card}; {os.cpu_count()} cores; torch {torch.__version__}, transformers {transformers.__version__}"
        }
        self.rows.append({**row, "date": datetime.now(UTC).date().isoformat(), **({"facts": facts} if facts else {})})
        self.out.mkdir(parents=True, exist_ok=True)
        partial = self.out / "gpu.json.part"
        partial.write_text(json.dumps(self.rows, indent=1) + "\n", "utf-8")
        partial.replace(self.out / "gpu.json")
        self.say(f"  {measure} = {ours:.4g} {unit} {facts or ''}")

    def policy(self, size: str) -> Rewriter:
        """Random weights, made once."""
        if size not in self.policies:
            self.policies.clear()
            free()
            self.policies[size] = build(size, tiny=self.tiny)
        return self.policies[size]


def free() -> None:
    import gc

    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()


def peak() -> float:
    """Most memory held since the last call, GB."""
    if not CUDA:
        return 0.0
    found = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return found


# What is trained.

_WORDS: list[str] = []
_TOKENIZERS: list[Any] = []


def words_and_tokenizer(tiny: bool) -> tuple[list[str], Any]:
    if not _TOKENIZERS:
        draw = random.Random(5)
        count = 300 if tiny else 4000
        syllables = [c + v for c in "bdfgklmnprst" for v in "aeiou"]
        _WORDS.extend(sorted({"".join(draw.choice(syllables) for _ in range(3)) for _ in range(count)}))
        texts = [" ".join(draw.choices(_WORDS, k=8)) for _ in range(3 * count)]
        _TOKENIZERS.append(new_small_decoder(texts, seed=0, vocabulary=1024 if tiny else 8192, width=64).tokenizer)
    return _WORDS, _TOKENIZERS[0]


def build(size: str, *, tiny: bool) -> Rewriter:
    words, tokenizer = words_and_tokenizer(tiny)
    kind, shape = SIZES["tiny" if tiny else size]
    config = kind(
        vocab_size=2048 if tiny else 151_936, max_position_embeddings=4096, tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None, **shape,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(DEVICE):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    head = model.get_output_embeddings()
    head.bias = torch.nn.Parameter(prior(tokenizer, words, config.vocab_size).to(DEVICE))
    longest = 48 if tiny else 256
    template = PromptTemplate(tokenizer, TemplateConfig(max_tokens=longest, titles=16, queries=0, part_tokens=24))
    return Rewriter(model.to(DEVICE).eval(), tokenizer, template)


def prior(tokenizer: Any, words: Sequence[str], vocabulary: int, end: float = 0.13) -> torch.Tensor:
    """Bias of the head: whole words by Zipf's law with exponent 2 (about 1.6 nats a token), and the end."""
    have = tokenizer.get_vocab()
    ids = [have["Ġ" + w] for w in words if "Ġ" + w in have]
    np.random.default_rng(3).shuffle(ids)
    bias = torch.full((vocabulary,), -30.0)
    share = np.arange(1, len(ids) + 1, dtype=float) ** -2.0
    bias[torch.tensor(ids)] = torch.tensor(np.log((1 - end) * share / share.sum()), dtype=torch.float32)
    bias[tokenizer.eos_token_id] = math.log(end)
    return bias


def instances_of(count: int, words: Sequence[str], tiny: bool) -> list[TrainingInstance]:
    draw, found = random.Random(11), []
    for i in range(count):
        titles = tuple(" ".join(draw.choices(words, k=22)) for _ in range(3 if tiny else 16))
        query = Query(" ".join(draw.choices(words, k=7)), Context(titles=titles))
        found.append(TrainingInstance(f"i{i:06d}", "u", query, ("a",), (1.0,), ("b",), (1.0,), float(i)))
    return found


def rows_of(count: int, policy: Rewriter, length: int = 8) -> list[Row]:
    """Full prompts with two pairs of responses each."""
    g, found = np.random.default_rng(0), []
    prompt_tokens, most = policy.template.config.max_tokens, len(policy.tokenizer) - 10
    for i in range(count):
        prompt = tuple(g.integers(10, most, prompt_tokens).tolist())
        said = [
            ScoredCandidate(f"{i}-{j}", (*g.integers(10, most, length - 1).tolist(), policy.tokenizer.eos_token_id), 1 - j / 2)
            for j in range(4)
        ]
        found.append(Row(f"r{i}", prompt, (Pair(said[0], said[3]), Pair(said[1], said[2]))))
    return found


def reward(xs: Sequence[TrainingInstance], texts: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """Pays for words by a fixed table; the query itself is neutral."""

    def worth(word: str) -> float:
        return (zlib.crc32(word.encode()) % 1000) / 500 - 1

    return [
        np.array([0.0 if t == x.query.text else float(np.mean([worth(w) for w in t.split() or [""]])) for t in row])
        for x, row in zip(xs, texts, strict=True)
    ]


# What it costs at least.


def forward_operations(policy: Rewriter, tokens: int, squares: int, scored: int) -> float:
    """Floating-point operations of a forward pass, causal attention counted once, the head at scored positions only."""
    c = policy.model.config
    size = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    heads, shared, width = c.num_attention_heads, c.num_key_value_heads, c.hidden_size
    body = c.num_hidden_layers * (2 * width * heads * size + 2 * width * shared * size + 3 * width * c.intermediate_size)
    return 2 * body * tokens + 2 * c.num_hidden_layers * heads * size * squares + 2 * width * c.vocab_size * scored


def card(bench: Bench) -> None:
    n = 256 if bench.tiny else 8192
    a, b = (torch.randn(n, n, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    seconds, _ = timed(lambda: [a @ b for _ in range(10)])
    bench.ceiling = 2 * n**3 * 10 / seconds
    bench.add("matmul_bf16", bench.ceiling / 1e12, "TFLOP/s", 10)
    x = torch.empty(2**20 if bench.tiny else 2**30, device=DEVICE)
    y = torch.empty_like(x)
    y.copy_(x)
    seconds, _ = timed(lambda: [y.copy_(x) for _ in range(10)])
    bench.add("copy", 2 * x.numel() * 4 * 10 / seconds / 1e12, "TB/s", 10)


def pass_config(budget: int, **changes: Any) -> TrainingConfig:
    shape = {"num_generations": N, "k": K, "pairs_per_step": 128, "learning_rate": 1e-6, "minimum_gap": 0.0}
    return TrainingConfig(**(shape | {"tokens_per_micro_batch": budget, "precision": "bfloat16"} | changes))


def gradient_pass(bench: Bench, size: str, budget: int, count: int, repeats: int, compiled: bool | None = None) -> None:
    """The gradient pass as a phase runs it: steps of 128 pairs with their optimizer steps; and the reference's."""
    policy = bench.policy(size)
    rows, config = rows_of(8 if bench.tiny else count, policy), pass_config(budget)
    steps = plan_steps(rows, config.pairs_per_step, budget, seed=0, phase=0)
    passes, optimizer = GradientPass(policy, config, compiled=compiled), new_optimizer(policy, config)
    peak()
    first, reference = timed(lambda: reference_log_probs(policy, rows, steps, config, gradient_pass=passes))

    def learn(part: Sequence[Any]) -> Cursor:
        silent = Cursor(gradient_norms={"not measured": 0.0})
        return optimise(
            policy, optimizer, rows, part, reference, silent, config, phase=0, steps_before=0, gradient_pass=passes
        )  # fmt: skip

    begun, cursor = timed(lambda: learn(steps[:1]))
    if cursor.sums["rho_chosen"] or cursor.sums["rho_rejected"]:
        raise AssertionError(f"rho of equal weights is {cursor.sums['rho_chosen']:.3g}, not 0")
    seconds = median(timed(lambda: learn(steps))[0] for _ in range(repeats))
    of_reference = timed(lambda: reference_log_probs(policy, rows, steps, config, gradient_pass=passes))[0]
    scored = sum(len(y) for row in rows for y in row.responses)
    useful = forward_operations(policy, sum(r.tokens for r in rows), sum(r.tokens**2 for r in rows), scored)
    facts = {
        "instances_per_second": round(len(rows) / seconds, 1), "micro_batch_tokens": budget, "compiled": passes.compiled,
        "reference_share": round(useful / of_reference / bench.ceiling, 4),
        "reference_per_second": round(len(rows) / of_reference, 1),
        "first_reference_seconds": round(first, 1), "first_step_seconds": round(begun, 1), "peak_gb": round(peak(), 1),
        "optimizer_steps": len(steps),
    }  # fmt: skip
    name = f"pass_{size}_share" + ("" if compiled is None else "_compiled" if compiled else "_eager")
    bench.add(name, 3 * useful / seconds / bench.ceiling, "share", repeats, **facts)
    profile(bench, name, lambda: learn(steps[:1]))
    optimizer.zero_grad(set_to_none=True)


def twice(bench: Bench) -> None:
    """Two equal runs: of the bitwise same weights, gradient norms and sums?"""
    found = []
    for _ in range(2):
        policy = bench.policy("0.6b").copy()
        config = pass_config(20_480, learning_rate=1e-4)
        rows = rows_of(8 if bench.tiny else 96, policy)
        steps = plan_steps(rows, 128, 20_480, seed=0, phase=0)
        passes = GradientPass(policy, config)
        reference = reference_log_probs(policy, rows, steps, config, gradient_pass=passes)
        optimizer, begin = new_optimizer(policy, config), Cursor()
        cursor = optimise(
            policy, optimizer, rows, steps, reference, begin, config, phase=0, steps_before=20, gradient_pass=passes
        )  # fmt: skip
        found.append((weights_checksum(policy.trained_state()), cursor))
        del policy, passes, optimizer
        free()
    bench.add("pass_twice_bitwise", float(found[0] == found[1]), "same", 2, norms=[c.gradient_norms for _, c in found])


def sampler(bench: Bench, size: str, count: int, repeats: int) -> None:
    policy = bench.policy(size)
    engine = InProcessEngine(policy, "auto")
    sync = engine.sync(policy)
    xs = instances_of(8 if bench.tiny else count, words_and_tokenizer(bench.tiny)[0], bench.tiny)
    prompts = list(dict.fromkeys(tuple(policy.template.encode(x.query)) for x in xs))

    def draw(some: Sequence[tuple[int, ...]]) -> Any:
        return engine.sample(
            some, N, expected=sync.version, keys=range(len(some)), seed=0, phase=0, max_new_tokens=LIMIT
        )  # fmt: skip

    found = draw(prompts)
    peak()
    seconds = median(timed(lambda: draw(prompts))[0] for _ in range(repeats))
    grown = sum(len({c.token_ids[:t] for c in row if len(c.token_ids) > t}) for row in found for t in range(1, LIMIT))
    tokens = sum(len(c.token_ids) for row in found for c in row)
    lengths = [len(p) for p in prompts]
    squares = sum(n * n for n in lengths) + 2 * grown * int(np.mean(lengths))
    useful = forward_operations(policy, sum(lengths) + grown, squares, len(prompts) + grown)
    facts = {
        "tokens_per_second": round(tokens / seconds), "share": round(useful / seconds / bench.ceiling, 4), "rows": grown,
        "mean_prompt_tokens": round(float(np.mean(lengths)), 1), "peak_gb": round(peak(), 1),
    }  # fmt: skip
    bench.add(f"sampler_{size}", len(prompts) / seconds, "instances/s", repeats, **facts)
    profile(bench, f"sampler_{size}", lambda: draw(prompts[: len(prompts) // 2]))


def sync(bench: Bench, size: str, repeats: int) -> None:
    """What a phase waits for: weights to the sampler, compared there, and log-probabilities of a few samples compared."""
    policy = bench.policy(size)
    engine = InProcessEngine(policy, "auto")
    xs = instances_of(64, words_and_tokenizer(bench.tiny)[0], bench.tiny)
    config = pass_config(8192, max_new_tokens=LIMIT)
    rollouts = Rollouts(engine, policy, reward, config, 0)
    weights, hashed, whole = [], [], []
    for _ in range(repeats + 1):
        whole.append(timed(lambda: rollouts.sync(xs, 0))[0])
        seconds, done = timed(lambda: engine.sync(policy))
        weights.append(seconds)
        hashed.append(timed(lambda done=done: done.policy_hash)[0] + seconds)
    facts = {"weights_only": round(median(weights[1:]), 3), "until_sha256": round(median(hashed[1:]), 2)}
    bench.add(f"sync_{size}", median(whole[1:]), "s", repeats, **facts)


def phases(bench: Bench, size: str, count: int, budget: int) -> None:
    """Two whole phases into a folder in memory; the second counts."""
    policy = bench.policy(size).copy()
    bench.policies.clear()
    free()
    count = 24 if bench.tiny else count
    xs = instances_of(2 * count, words_and_tokenizer(bench.tiny)[0], bench.tiny)
    config = pass_config(budget, phases=3, instances_per_phase=count, max_new_tokens=LIMIT, precision="auto")
    need = 1.2 * 14 * sum(p.numel() for p in policy.model.parameters())
    shared = Path("/dev/shm")
    where = shared if shared.is_dir() and shutil.disk_usage(shared).free > need else None
    folder, ends = Path(tempfile.mkdtemp(dir=where)), []

    def observe(phase: int, _policy: Rewriter) -> dict[str, float]:
        wait()
        ends.append(time.perf_counter())
        return {}

    peak()
    try:
        seconds, report = timed(
            lambda: train(policy, xs, reward, config, folder, seed=0, provenance={}, observe=observe)
        )  # fmt: skip
        size_gb = (folder / "state.safetensors").stat().st_size / 1e9
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    parts = [r["seconds"] for r in report.records]
    name = "checkpoint_blocked" + ("" if size == "0.6b" else f"_{size}")
    bench.add(name, parts[-1]["checkpoint"], "s", 1, parts=parts, file_gb=round(size_gb, 2))
    facts = {"parts": parts[-1], "train_seconds": round(seconds, 2), "peak_gb": round(peak(), 1)}
    facts |= {"pairs": report.records[-1]["pairs"], "steps": report.records[-1]["optimizer_steps"]}
    bench.add(f"phase_{size}", ends[-1] - ends[-2], "s", 1, **facts)


def profile(bench: Bench, name: str, run: Callable[[], Any]) -> None:
    """The largest kernels of a run, and their time over the run's."""
    if not CUDA:
        return
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    plain, _ = timed(run)
    with profiler(activities=[ProfilerActivity.CUDA]) as found:
        timed(run)
    events = found.key_averages()
    total = sum(e.self_device_time_total for e in events) / 1e6
    lines = [f"{name}: {plain:.3f} s, kernels {total:.3f} s ({total / plain:.2f}), launched {sum(e.count for e in events)}"]
    for e in sorted(events, key=lambda e: -e.self_device_time_total)[:25]:
        lines.append(f"  {e.self_device_time_total / 1e3:9.2f} ms {e.count:7d}  {e.key[:110]}")
    bench.out.mkdir(parents=True, exist_ok=True)
    with (bench.out / "gpu-profile.txt").open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n\n")
    for line in lines[:13]:
        bench.say(line)


SECTIONS: dict[str, tuple[float, Callable[[Bench], None]]] = {
    "card": (5, card),
    "pass": (40, lambda b: gradient_pass(b, "0.6b", 20_480, 256, 3)),
    "sampler": (25, lambda b: sampler(b, "0.6b", 512, 3)),
    "phase": (60, lambda b: phases(b, "0.6b", 1024, 24_576)),
    "sync": (15, lambda b: sync(b, "0.6b", 3)),
    "twice": (10, twice),
    "sync3": (25, lambda b: sync(b, "3b", 2)),
    "pass3": (45, lambda b: gradient_pass(b, "3b", 4096, 128, 2)),
    "sampler3": (30, lambda b: sampler(b, "3b", 256, 2)),
    "phase3": (45, lambda b: phases(b, "3b", 64, 2048)),
    "eager": (20, lambda b: gradient_pass(b, "0.6b", 8192, 64, 1, compiled=False)),
}
"""By name: the seconds that must be left, and what it does."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SECTIONS))
    parser.add_argument("--budget", type=float, default=480.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    bench = Bench(given.out, given.budget, given.tiny)
    with contextlib.suppress(FileNotFoundError):
        (bench.out / "gpu-profile.txt").unlink()
    for name in given.only.split(","):
        need, run = SECTIONS[name]
        if bench.left < need and not given.tiny:
            bench.say(f"{name}: left out, {bench.left:.0f} s are left and {need:.0f} needed")
            continue
        bench.say(name)
        try:
            run(bench)
        except Exception:  # the other sections still count
            bench.say(f"{name} FAILED: {traceback.format_exc()[-2500:]}")
        free()


if __name__ == "__main__":
    main()
