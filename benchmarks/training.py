"""The training engine against what people use today: TRL's trainers and the sampler of transformers.

    python benchmarks/training.py                      # every timing; about half an hour on two cores
    python benchmarks/training.py --only sampler pass  # some
    python benchmarks/training.py --only reward        # time to GRPO's reward: more than an hour

Same model, prompts, reward and machine; warm-up and imports excluded; ours and the peer's runs in random order; medians.
Writes rows `measure, ours, peer, ratio, token_work_ratio, unit, repeats, machine, date` to benchmarks/results/training.json:
ratio is the peer's cost over ours, token_work_ratio what the shapes alone would give. `_as_shipped` rows have TRL as it runs on
this device, the others with its LM head on response positions only (see peers.narrow_head); `_bf16` rows have both sides in
bfloat16. Ratios on a CPU are not ratios on a GPU.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import (
    PeerSettings,
    dpo_pass,
    generate_baseline,
    grpo,
    grpo_pass,
    iterative_dpo,
    online_dpo,
)
from setting import SAMPLES as N
from setting import LongPrompts, Platform, Task, long_prompts, platform, some, write_rows

from corewrite.rewriter import Rewriter, sample
from corewrite.studies.summary import machine
from corewrite.training import TrainingConfig, train
from corewrite.training.optimise import Cursor, new_optimizer, optimise, reference_log_probs
from corewrite.training.rows import plan_steps

RESULTS = Path(__file__).parent / "results" / "training.json"
REPEATS = 3
# Without the terms' gradient norms, which are logged where a phase begins: the peers' logging is off too.
SILENT = Cursor(gradient_norms={"not measured": 0.0})


class Timings:
    """Seconds of named runs, repeated in random order."""

    def __init__(self, runs: dict[str, Callable[[], float]], repeats: int = REPEATS, seed: int = 0) -> None:
        self.seconds: dict[str, list[float]] = {name: [] for name in runs}
        self.repeats = repeats
        order = [name for name in runs for _ in range(repeats)]
        random.Random(seed).shuffle(order)
        for name in order:
            self.seconds[name].append(runs[name]())
            print(f"  {name}: {self.seconds[name][-1]:.4g}", flush=True)

    def __getitem__(self, name: str) -> float:
        return statistics.median(self.seconds[name])


def publish(measure: str, ours: float | None, peer: float, work: float | None, unit: str, repeats: int, **more: Any) -> None:
    """Print a row and put it into the results, so that a run that is stopped keeps what it measured; no `ours`: a void one."""
    ratio = None if ours is None else peer / ours
    print(f"{measure}: ours {ours}, peer {peer:.4g} {unit}, ratio {ratio}, token work {work}", flush=True)
    row = {
        "measure": measure, "ours": ours, "peer": peer, "ratio": ratio, "token_work_ratio": work, "unit": unit,
        "repeats": repeats, "machine": machine(), "date": datetime.now(UTC).date().isoformat(), **more,
    }  # fmt: skip
    write_rows([row], RESULTS)


def timed(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def ours_all_in(task: Task, instances: int, phases: int, bf16: bool) -> float:
    """Seconds per 1,000 instances of whole training runs: files, syncs and checkpoints included."""
    config = task.config(bf16, phases=phases, instances_per_phase=instances)
    with tempfile.TemporaryDirectory() as folder:
        policy = task.policy.copy()
        seconds = timed(lambda: train(policy, task.instances, task.reward, config, Path(folder), seed=0, provenance={}))
    return 1_000 * seconds / (instances * phases)


def work_of(prompt: float, rewrite: float, k: int) -> dict[str, float]:
    """Ratios of token work from the shapes alone: a forward token is 1, a token of the gradient pass 3."""
    grpo_sampling, grpo_learning = N * (prompt + rewrite), 3 * N * (prompt + rewrite)
    sampling, packed = prompt + N * rewrite, prompt + 2 * k * (rewrite - 1)
    return {
        "instances": (grpo_sampling + grpo_learning) / (sampling + packed + 3 * packed),
        "sampler": grpo_sampling / sampling,
        "pass_vs_dpo": 2 * k * (prompt + rewrite) / packed,
        "pass_vs_grpo": grpo_learning / (packed + 3 * packed),
    }


def measured_work(task: Task, n: int = 128) -> dict[str, float]:
    rows = task.rows(min(n, len(task.instances)))
    prompt = statistics.mean(map(len, task.prompts))
    return work_of(prompt, statistics.mean(len(y) for r in rows for y in r.responses), task.k)


def instances_against_grpo(task: Task, ours: int, theirs: int, measure: str, phases: int = 2, bf16_too: bool = True) -> None:
    """Everything: sampling, reward, learning, syncs."""
    work = measured_work(task)["instances"]
    for suffix, bf16, narrow, repeats in (
        ("", False, True, REPEATS),
        *([("_bf16", True, True, 1)] if bf16_too else []),
        ("_as_shipped", False, False, 1),
    ):
        settings = PeerSettings(
            1e-5, task.completions, task.limit, num_generations=N, bf16=bf16, head_on_response_only=narrow
        )  # fmt: skip

        def peer(settings: PeerSettings = settings) -> float:
            runner = grpo(task.policy.copy(), task.prompts, task.peer_reward, settings)
            runner.warm_up()
            result = runner.run(instances=theirs)
            return 1_000 * result.seconds / result.instances

        ours_all_in(task, min(64, ours), 1, bf16)
        runs = {"ours": lambda bf16=bf16: ours_all_in(task, ours, phases, bf16), "grpo": peer}
        seconds = Timings(runs, repeats)
        publish(f"{measure}{suffix}", seconds["ours"], seconds["grpo"], work, "s per 1,000 instances x 16", repeats)


def sampler_against_generate(task: Task, prompts: int, measure: str, batch: int) -> None:
    """16 samples of each prompt."""
    chosen = list(dict.fromkeys(map(tuple, task.prompts)))[:prompts]  # all different
    work = measured_work(task)["sampler"]
    for suffix, bf16 in (("", False), ("_bf16", True)):
        policy = task.policy.copy(torch.bfloat16 if bf16 else None)

        def ours(policy: Rewriter = policy) -> float:
            return timed(
                lambda: sample(policy, chosen, N, keys=range(len(chosen)), seed=0, phase=0, max_new_tokens=task.limit)
            )  # fmt: skip

        def peer(policy: Rewriter = policy) -> float:
            return timed(lambda: generate_baseline(policy, chosen, N, task.limit, rows=batch))

        ours()
        generate_baseline(policy, chosen[:16], N, task.limit, rows=batch)
        seconds = Timings({"ours": ours, "generate": peer})
        scale = 1_000 / len(chosen)
        publish(
            f"{measure}{suffix}", scale * seconds["ours"], scale * seconds["generate"], work, "s per 1,000 prompts x 16",
                REPEATS,
        )  # fmt: skip


def passes(task: Task, dpo_prompts: int, grpo_prompts: int, suffix_of: str) -> None:
    """The gradient pass alone: forward, backward, optimizer."""
    rows = task.rows(dpo_prompts)
    pairs = [(r.prompt, p.chosen.token_ids, p.rejected.token_ids) for r in rows for p in r.pairs]
    prompts = task.prompts[:grpo_prompts]
    completions = [
        [c.token_ids for c in row]
        for row in sample(
            task.policy, prompts, N, keys=range(grpo_prompts), seed=0, phase=0, max_new_tokens=task.limit
        )
    ]  # fmt: skip
    advantages = [np.random.default_rng(i).standard_normal(N).tolist() for i in range(grpo_prompts)]
    work = work_of(
        statistics.mean(len(r.prompt) for r in rows), statistics.mean(len(y) for r in rows for y in r.responses), task.k
    )  # fmt: skip
    for suffix, bf16, narrow, repeats in (
        ("", False, True, REPEATS),
        ("_bf16", True, True, REPEATS),
        ("_as_shipped", False, False, 1),
    ):
        config = task.config(bf16)
        steps = plan_steps(rows, config.pairs_per_step, config.tokens_per_micro_batch, seed=0, phase=0)

        def ours(with_reference: bool, config: TrainingConfig = config, steps: Any = steps) -> float:
            policy = task.policy.copy()
            optimizer = new_optimizer(policy, config)
            begin = time.perf_counter()
            reference = reference_log_probs(task.policy, rows, steps, config)
            begin = begin if with_reference else time.perf_counter()
            optimise(policy, optimizer, rows, steps, reference, SILENT, config, phase=0, steps_before=0)
            return time.perf_counter() - begin

        settings = PeerSettings(1e-5, task.steps, task.limit, num_generations=N, bf16=bf16, head_on_response_only=narrow)
        over = PeerSettings(1e-5, task.completions, task.limit, num_generations=N, bf16=bf16, head_on_response_only=narrow)
        dpo = dpo_pass(task.policy.copy(), task.policy, pairs, settings)
        every = grpo_pass(task.policy.copy(), prompts, completions, advantages, over)
        for peer in (dpo, every):
            peer.warm_up()
        ours(True)
        counted: dict[str, float] = {}

        def grpo_run(every: Any = every, counted: dict[str, float] = counted) -> float:
            result = every.run()
            counted["instances"] = result.instances
            return result.seconds

        seconds = Timings(
            {
                "ours": lambda ours=ours: ours(False), "ours with reference": lambda ours=ours: ours(True),
                "dpo": lambda dpo=dpo: dpo.run().seconds, "grpo": grpo_run,
            },
            repeats,
        )  # fmt: skip
        publish(
            f"pass_vs_dpo{suffix_of}{suffix}", 1_000 * seconds["ours"] / len(rows), 1_000 * seconds["dpo"] / len(rows),
                work["pass_vs_dpo"], "s per 1,000 instances", repeats,
        )  # fmt: skip
        publish(
            f"pass_vs_grpo{suffix_of}{suffix}", 1_000 * seconds["ours with reference"] / len(rows),
                1_000 * seconds["grpo"] / counted["instances"], work["pass_vs_grpo"], "s per 1,000 instances", repeats,
        )  # fmt: skip


def other_trainers(task: Task, n: int) -> None:
    """Online DPO (two rollouts of a prompt), and DPO phase by phase over our sampler: the engine told from the algorithm."""
    settings = PeerSettings(1e-5, 64, task.limit, head_on_response_only=True)
    online = online_dpo(task.policy.copy(), task.prompts, task.peer_reward, settings)
    online.warm_up()
    config = task.config(phases=1, instances_per_phase=n)
    rows = task.rows(n)
    pairs = [(r.prompt, p.chosen.token_ids, p.rejected.token_ids) for r in rows for p in r.pairs]
    mixed = PeerSettings(
        1e-5, task.steps, task.limit, head_on_response_only=True, dpo_loss=("sigmoid", "bco_pair", "sft"),
        dpo_weights=(0.8, 0.2, 0.1), beta=config.beta,
    )  # fmt: skip
    iterative = iterative_dpo(task.policy.copy(), mixed)
    iterative.warm_up(pairs)

    def iterative_run() -> float:
        begin = time.perf_counter()
        task.rows(n)  # our sampler, reward and selection
        ours = time.perf_counter() - begin
        result = iterative.phase(pairs)
        return 1_000 * (ours + result.seconds + result.reference_seconds) / n

    def online_run() -> float:
        result = online.run(instances=n)
        return 1_000 * result.seconds / result.instances

    runs = {
        "ours": lambda: ours_all_in(task, n, 1, False),
        "online": online_run,
        "iterative": iterative_run,
    }
    seconds = Timings(runs)
    unit = "s per 1,000 instances"
    publish(
        "demo_instances_vs_online_dpo", seconds["ours"], seconds["online"], None, f"{unit}, ours x 16, theirs x 2 rollouts",
        REPEATS,
    )  # fmt: skip
    publish(
        "demo_instances_vs_iterative_dpo", seconds["ours"], seconds["iterative"], None,
        f"{unit} x 16, theirs DPOTrainer over our sampler and reward", REPEATS,
    )  # fmt: skip


def utilisation(task: Task) -> None:
    """Arithmetic per second over the processor's measured best in a plain product of matrices."""
    best = 0.0
    for m, k, n in ((1_024, 512, 512), (1_024, 512, 1_536), (2_048, 512, 1_536), (4_096, 512, 1_536), (4_096, 1_536, 512)):
        a, b = torch.randn(m, k), torch.randn(n, k)
        torch.nn.functional.linear(a, b)
        rates = [2 * m * k * n / timed(lambda a=a, b=b: torch.nn.functional.linear(a, b)) for _ in range(20)]
        best = max(best, statistics.median(rates))
    model = task.policy.model.config
    body = model.num_hidden_layers * (4 * model.hidden_size**2 + 3 * model.hidden_size * model.intermediate_size)
    head = model.hidden_size * model.vocab_size
    rows = task.rows(32)
    config = task.config()
    steps = plan_steps(rows, config.pairs_per_step, config.tokens_per_micro_batch, seed=0, phase=0)
    reference = reference_log_probs(task.policy, rows, steps, config)
    tokens, scored = sum(r.tokens for r in rows), sum(len(y) for r in rows for y in r.responses)
    attention = sum(4 * model.num_hidden_layers * model.hidden_size * r.tokens**2 / 2 for r in rows)
    flops = 3 * (2 * body * tokens + attention + 2 * head * scored)

    def learn() -> float:
        policy = task.policy.copy()
        optimizer = new_optimizer(policy, config)
        return timed(
            lambda: optimise(policy, optimizer, rows, steps, reference, SILENT, config, phase=0, steps_before=0)
        )  # fmt: skip

    prompts = task.prompts[:64]

    def draw(limit: int) -> float:
        return timed(lambda: sample(task.policy, prompts, N, keys=range(64), seed=0, phase=0, max_new_tokens=limit))

    learn(), draw(2)
    seconds = Timings({"learn": learn, "prefill": lambda: draw(1), "sample": lambda: draw(task.limit)})
    completions = sample(task.policy, prompts, N, keys=range(64), seed=0, phase=0, max_new_tokens=task.limit)
    beginnings = [{c.token_ids[:t] for c in r if len(c.token_ids) > t} for r in completions for t in range(1, task.limit)]
    advanced = sum(map(len, beginnings))
    decoding = 2 * (body + head) * advanced + 4 * model.num_hidden_layers * model.hidden_size * 256 * advanced
    rate = decoding / (seconds["sample"] - seconds["prefill"])
    unit = "of the measured matmul rate"
    publish("share_of_matmul_pass", flops / seconds["learn"] / best, 1.0, None, unit, REPEATS)
    publish("share_of_matmul_decode", rate / best, 1.0, None, unit, REPEATS)


def syncs(task: Task) -> None:
    """Bytes and number of weight transfers per 1,000 optimizer steps: at every step, and once per phase."""
    config = task.config(phases=1, instances_per_phase=3_000).model_copy(
        update={
            "pairs_per_step": TrainingConfig().pairs_per_step,
            "num_generations": TrainingConfig().num_generations,
            "minimum_gap": 0.05,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        report = train(task.policy.copy(), task.instances, task.reward, config, Path(folder), seed=0, provenance={})
    steps, size = report.optimizer_steps, report.records[0]["sync_bytes"]
    publish("syncs_per_1000_steps", 1_000 / steps, 1_000, float(steps), "syncs", 1)
    publish("sync_bytes_per_1000_steps", 1_000 / steps * size, 1_000 * size, float(steps), "bytes", 1)


SWEEP = ((1e-4, 64), (3e-4, 128), (1e-3, 128))
OURS = ((2e-4, 128), (4e-4, 128), (8e-4, 128))


def time_to_reward(found: Platform, minutes: float, out: Path) -> None:
    """Wall time to the held-out reward at which the best GRPO of a sweep ends; ours is the best of a sweep as large.

    Learning rates and batches are swept on both sides. GRPO's runs are kept under `out` for this machine and not done again.
    A GRPO whose rewrites have grown to twice the warm start's length is shown with its judge and its truth; a second row has
    the best of the others as target.
    """
    start = found.measure(found.warm)
    theirs = [grpo_run(found, rate, batch, minutes, out) for rate, batch in SWEEP]
    honest = [r for r in theirs if r["words"] < 2 * start["words"]]
    ours = [our_run(found, rate, batch) for rate, batch in OURS]
    publish_reward("time_to_grpo_reward", theirs, ours, start)
    publish_reward("time_to_grpo_reward_without_hacking", honest, ours, start)


def publish_reward(measure: str, theirs: list[dict], ours: list[dict], start: dict[str, float]) -> None:
    """A row for the best of `theirs`; void where there is nothing to compare."""
    best = max(theirs, key=lambda r: r["reward"], default={"reward": -1.0, "seconds": 0.0})
    reached = [point["seconds"] for r in ours for point in r["trail"] if point["reward"] >= best["reward"]]
    more = {"warm_start": start, "best": best, "grpo": theirs, "runs": ours}
    if best["reward"] <= start["reward"] or not reached:
        why = "no GRPO beats the warm start" if best["reward"] <= start["reward"] else "ours did not get there"
        publish(measure, None, best["seconds"], None, f"s; void: {why}", 1, **more)
    else:
        publish(measure, min(reached), best["seconds"], None, "s", 1, **more)


def grpo_run(found: Platform, rate: float, batch: int, minutes: float, out: Path) -> dict[str, Any]:
    """One GRPO of so many minutes, measured at its end."""
    about = {"learning_rate": rate, "batch": batch, "minutes": minutes, "machine": machine()}
    file = out / f"grpo-{rate:g}-{batch}-{minutes:g}.json"
    if file.is_file() and (known := json.loads(file.read_text("utf-8"))).items() >= about.items():
        return known
    task = Task("demo", found.warm, found.instances, found.deployment.reward, 1, 14, 128, 128)
    policy = found.warm.copy()
    runner = grpo(
        policy, task.prompts, task.peer_reward, PeerSettings(rate, batch, 14, num_generations=N, head_on_response_only=True)
    )
    runner.warm_up()
    result = runner.run(seconds=60 * minutes)
    row = {
        **about, "seconds": result.seconds, "steps": result.steps, "instances": result.instances, **found.measure(policy)
    }  # fmt: skip
    file.write_text(json.dumps(row), "utf-8")
    print(row, flush=True)
    return row


def our_run(found: Platform, rate: float, batch: int, phases: int = 16) -> dict[str, Any]:
    """One run of ours, looked at every second phase; looking is not counted."""
    config = TrainingConfig(phases=phases, learning_rate=rate, pairs_per_step=batch)
    trail: list[dict[str, float]] = []
    spent, since = 0.0, time.perf_counter()

    def look(phase: int, now: Rewriter) -> dict[str, float]:
        nonlocal spent, since
        spent += time.perf_counter() - since
        if phase % 2 or phase == phases - 1:
            trail.append({"phase": phase, "seconds": spent, **found.measure(now)})
            print(rate, batch, trail[-1], flush=True)
        since = time.perf_counter()
        return {}

    with tempfile.TemporaryDirectory() as folder:
        reward = found.deployment.reward
        train(found.warm.copy(), found.instances, reward, config, Path(folder), seed=0, provenance={}, observe=look)
    return {"learning_rate": rate, "batch": batch, "phases": phases, "trail": trail}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("sampler", "pass", "instances", "trainers", "utilisation", "syncs", "reward")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts[:-1], help="parts to run")
    parser.add_argument("--minutes", type=float, default=10.0, help="of every GRPO run of the reward part")
    parser.add_argument("--out", type=Path, default=Path("runs/launches"), help="folder of the platforms' runs")
    arguments = parser.parse_args()
    found = platform(0, arguments.out)
    demo = Task("demo", found.warm, some(found.instances, 2_000), found.deployment.reward, 1, 14, 128, 64)
    long = long_prompts(arguments.out)
    big = Task("30m", long.policy, long.instances, LongPrompts.reward, 2, 8, 16, 32)
    work: dict[str, Callable[[], Any]] = {
        "sampler": lambda: (
            sampler_against_generate(demo, 1_000, "sampler_vs_generate_demo", 256),
            sampler_against_generate(big, 16, "sampler_vs_generate_30m", 128),
        ),
        "pass": lambda: passes(big, 16, 4, ""),
        "instances": lambda: (
            instances_against_grpo(demo, 1_000, 200, "demo_instances_vs_grpo"),
            instances_against_grpo(big, 64, 4, "instances_vs_grpo_30m", phases=1, bf16_too=False),
        ),
        "trainers": lambda: other_trainers(demo, 500),
        "utilisation": lambda: utilisation(big),
        "syncs": lambda: syncs(Task("demo", found.warm, found.instances, found.deployment.reward, 1, 14, 128, 64)),
        "reward": lambda: time_to_reward(found, arguments.minutes, arguments.out),
    }
    for name in arguments.only:
        work[name]()
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
