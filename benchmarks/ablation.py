"""One factor at a time around the default, on the simulated platform; GRPO and offline DPO beside it.

    python benchmarks/ablation.py [--seeds 0 1 2] [--only beta k] [--minutes 115]

Every variant starts from its seed's warm start. A run once done is kept under --out and not done again, so the study can be
stopped and gone on with; after --minutes no further run begins. Writes benchmarks/results/ablation.json: mean and sample
standard deviation over seeds of held-out reward, judge, nDCG@10 by slice, words a rewrite, and seconds of training.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from peers import PeerSettings, grpo, iterative_dpo
from setting import Platform, Task, platform

from corewrite.deployment.reward import FusedReward, build_document_rows
from corewrite.domain import TrainingInstance
from corewrite.fusion import arithmetic_log_reward, evaluate_stage
from corewrite.rewriter import Rewriter
from corewrite.studies.summary import machine
from corewrite.training import TrainingConfig, train

RESULTS = Path(__file__).parent / "results" / "ablation.json"
# What the published study varies around. Its outcome, the refreshed reference, is the package's default since.
DEFAULT = TrainingConfig(sync_ref_model=False, patience=0)
TOTAL = DEFAULT.phases * DEFAULT.instances_per_phase


@dataclass(frozen=True)
class Variant:
    """One departure from the default.

    Attributes:
        factor: What is varied.
        value: To what.
        change: Settings that differ.
        reward: Makes another reward of a platform.
        run: Trains in another way.
    """

    factor: str
    value: str
    change: dict[str, Any] = field(default_factory=dict)
    reward: Callable[[Platform], Any] | None = None
    run: Callable[[Platform, Rewriter], None] | None = None

    @property
    def name(self) -> str:
        return f"{self.factor} {self.value}"


def steps_per_phase(steps: int) -> dict[str, int]:
    """Phases of about so many optimizer steps, over as many instances in all."""
    # About 0.8 of the instances give a pair.
    instances = round(steps * DEFAULT.pairs_per_step / 0.8)
    return {"instances_per_phase": instances, "phases": max(1, round(TOTAL / instances))}


@dataclass(frozen=True, eq=False)
class ArithmeticReward:
    """log of the ratio of arithmetic means over D+ and D- of finerank's rewrite factors."""

    base: FusedReward

    def __call__(self, instances: Sequence[TrainingInstance], texts: Sequence[Sequence[str]]) -> list[np.ndarray]:
        stage = self.base.spec.stages["finerank"].model_copy(update={"original": ()})
        names = sorted({s.signal for s in stage.rewrite})
        rows, gains, weights = build_document_rows(instances, self.base.catalogue)
        back = np.repeat(np.arange(len(instances)), [len(t) for t in texts])
        queries, flat = [x.query.text for x in instances], [t for row in texts for t in row]
        under_query = {s: self.base.signals[s].score(queries, rows)[back] for s in names}
        under_rewrite = {s: self.base.signals[s].score(flat, rows[back]) for s in names}
        fused = evaluate_stage(stage, under_query, under_rewrite, None, valid=rows[back] >= 0)
        log_factors = np.where(rows[back] >= 0, fused.log_rewrite, 0.0)
        values = arithmetic_log_reward(log_factors, gains[back], weights[back])
        return np.split(values, np.cumsum([len(t) for t in texts])[:-1])


def reach_weighted(weight: float) -> Callable[[Platform], FusedReward]:
    def make(found: Platform) -> FusedReward:
        spec = found.deployment.spec
        reward = spec.reward.model_copy(update={"reach_weight": weight, "zero_weight_reason": "an ablation"})
        return found.under(spec.model_copy(update={"reward": reward})).reward

    return make


def run_grpo(found: Platform, policy: Rewriter) -> None:
    """As many rollouts as the default has."""
    task = Task("demo", found.warm, found.instances, found.deployment.reward, 1, DEFAULT.max_new_tokens, 128, 128)
    settings = PeerSettings(
        3e-4, 128, DEFAULT.max_new_tokens, num_generations=16, head_on_response_only=True
    )  # fmt: skip
    runner = grpo(policy, task.prompts, task.peer_reward, settings)
    runner.run(instances=TOTAL * DEFAULT.num_generations // 16)


def run_offline_dpo(found: Platform, policy: Rewriter) -> None:
    """One set of pairs sampled from the warm start, one pass."""
    task = Task(
        "demo", found.warm, found.instances, found.deployment.reward, 1, DEFAULT.max_new_tokens, DEFAULT.pairs_per_step, 128
    )
    pairs = [(r.prompt, p.chosen.token_ids, p.rejected.token_ids) for r in task.rows(TOTAL) for p in r.pairs]
    settings = PeerSettings(
        DEFAULT.learning_rate, DEFAULT.pairs_per_step, DEFAULT.max_new_tokens, head_on_response_only=True, beta=DEFAULT.beta
    )
    iterative_dpo(policy, settings, found.warm).phase(pairs)


VARIANTS = (
    Variant("default", ""),
    *(Variant("beta", f"{v:g}", {"beta": v}) for v in (0.1, 0.3, 1.0)),
    *(Variant("w_g", f"{v:g}", {"weight_generation": v}) for v in (0.0, 0.05, 0.2, 1.0)),
    Variant("imitation", "best of N", {"weight_preference": 0.0, "weight_quality": 0.0, "weight_generation": 1.0}),
    *(Variant("k", f"{v}", {"k": v}) for v in (2, 4)),
    *(Variant("N", f"{v}", {"num_generations": v}) for v in (8, 16, 32)),
    *(Variant("steps a phase", f"{v}", steps_per_phase(v)) for v in (1, 4, 64)),
    Variant("steps a phase", "whole", {"phases": 1, "instances_per_phase": TOTAL}),
    Variant("delta", "0", {"running_delta": False}),
    Variant("reference", "refreshed", {"sync_ref_model": True}),
    Variant("identity", "no candidate", {"identity": False}),
    Variant("reward", "arithmetic", reward=lambda found: ArithmeticReward(found.deployment.reward)),
    *(Variant("reach", f"{v:g}", reward=reach_weighted(v)) for v in (0.0, 0.1, 0.3, 1.0)),
    Variant("learning rate", "0.0008", {"learning_rate": 8e-4}),
    Variant("precision", "bfloat16 pass", {"precision": "bfloat16"}),
    Variant("peer", "GRPO", run=run_grpo),
    Variant("offline DPO", "", run=run_offline_dpo),
)


def run(variant: Variant, found: Platform, seed: int) -> dict[str, float]:
    """Train and measure."""
    policy = found.warm.copy()
    begin = time.perf_counter()
    if variant.run is not None:
        variant.run(found, policy)
    else:
        reward = found.deployment.reward if variant.reward is None else variant.reward(found)
        with tempfile.TemporaryDirectory() as folder:
            config = DEFAULT.model_copy(update=variant.change)
            train(policy, found.instances, reward, config, Path(folder), seed=seed, provenance={})
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, **found.measure(policy)}


def summarise(runs: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Mean and standard deviation of each variant over its seeds."""
    rows = []
    for name in dict.fromkeys(key.split("|")[0] for key in runs):
        found = [r for key, r in sorted(runs.items()) if key.split("|")[0] == name]
        about = {
            measure: {
                "mean": statistics.mean(r[measure] for r in found),
                "sd": statistics.stdev([r[measure] for r in found]) if len(found) > 1 else None,
            }
            for measure in found[0]
        }
        rows.append({"variant": name, "seeds": len(found), **about, "against_default": _paired(runs, name)})
    return rows


def _paired(runs: dict[str, dict[str, float]], name: str) -> dict[str, dict[str, float | None]]:
    """Mean and standard deviation over seeds of the difference to the default of the same seed."""
    seeds = [key.split("|")[1] for key in runs if key.split("|")[0] == name and f"default|{key.split('|')[1]}" in runs]
    found = {}
    for measure in ("reward", "judge", "ndcg10_all"):
        values = [runs[f"{name}|{seed}"][measure] - runs[f"default|{seed}"][measure] for seed in seeds]
        found[measure] = {"mean": statistics.mean(values), "sd": statistics.stdev(values) if len(values) > 1 else None}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="factors to vary; the warm start and the default are always there")
    parser.add_argument("--minutes", type=float, default=115.0, help="after which no further run begins")
    parser.add_argument("--platforms", type=Path, default=Path("runs/launches"), help="folder of the platforms' runs")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), help="folder of the finished runs")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    stop = time.monotonic() + 60 * arguments.minutes
    wanted = [v for v in VARIANTS if not arguments.only or v.factor in {*arguments.only, "default"}]
    for seed in arguments.seeds:
        found = None
        for variant in (None, *wanted):
            name = "warm start" if variant is None else variant.name.strip()
            file = arguments.out / f"{name.replace(' ', '_')}-{seed}.json"
            if file.is_file() or time.monotonic() > stop:
                continue
            found = found or platform(seed, arguments.platforms)
            result = {"seconds": 0.0, **found.measure(found.warm)} if variant is None else run(variant, found, seed)
            file.write_text(json.dumps({"name": name, "seed": seed, **result}), "utf-8")
            print(name, seed, {k: round(v, 4) for k, v in result.items()}, flush=True)
    runs = {}
    order = {name: i for i, name in enumerate(["warm start", *(v.name.strip() for v in VARIANTS)])}
    for value in sorted(
        (json.loads(f.read_text("utf-8")) for f in arguments.out.glob("*.json")), key=lambda v: (order[v["name"]], v["seed"])
    ):
        runs[f"{value.pop('name')}|{value.pop('seed')}"] = value
    about = {"machine": machine(), "date": datetime.now(UTC).date().isoformat(), "default": DEFAULT.model_dump(mode="json")}
    RESULTS.write_text(json.dumps({**about, "rows": summarise(runs)}, indent=1, allow_nan=False) + "\n", "utf-8")
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
