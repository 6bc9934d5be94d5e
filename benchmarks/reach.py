"""Does the reward of a stage that lets documents in help? Policies trained with and without it, then launch 2 under each.

    python benchmarks/reach.py [--seeds 0 1 2] [--weights 0 0.5] [--sessions 20000] [--minutes 14]

Every policy starts from its seed's warm start, over equal phases; weight 0 is the reward of finerank alone. A training or a
launch once done is kept under --out and not done again; after --minutes no further one begins. Writes
benchmarks/results/reach.json: per seed and weight true nDCG@10 by slice, the share of D+ that enters finerank (gate users'
searches), words a rewrite, seconds of training, the probe; differences to weight 0 paired by search; launch 2 (all stages
against finerank alone, under the same policy), pooled over seeds.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from launches import thresholds_of
from setting import FloatArray, Platform, paired, platform

from corewrite.deployment.deployment import Deployment
from corewrite.deployment.reward import build_document_rows
from corewrite.deployment.served import served_rewrites
from corewrite.domain import TrainingInstance
from corewrite.experiment import pool_tables, read_launch
from corewrite.fusion import RewardSpec
from corewrite.relevance import probe
from corewrite.rewriter import load_rewriter
from corewrite.studies.platform import LAUNCHES, run_launch
from corewrite.studies.summary import machine
from corewrite.training import TrainingConfig, train

RESULTS = Path(__file__).parent / "results" / "reach.json"
PROBED = 1_000
BASE = 0.0


def rewarding(found: Platform, weight: float) -> Deployment:
    """The platform's ranker under a spec whose reach has a weight."""
    spec = found.deployment.spec
    reward = RewardSpec(reach_weight=weight, zero_weight_reason="compared with a weight above 0")
    return found.under(spec.model_copy(update={"reward": reward}))


def share_reached(
    deployment: Deployment, instances: Sequence[TrainingInstance], rewrites: Sequence[str | None]
) -> dict[str, float]:
    """Mean over searches of the weighted share of D+ that enters finerank, with the rewrites and without any."""
    rows, gains, _ = build_document_rows(instances, deployment.documents)
    wanted = np.where(gains > 0, rows, -1)
    queries = [x.query.text for x in instances]
    shares = {}
    for name, texts in (("reached", list(rewrites)), ("reached_without", [None] * len(queries))):
        reached = deployment.cascade.reach(queries, texts, wanted)
        shares[name] = float(((gains * reached).sum(1) / gains.sum(1)).mean())
    return shares


@dataclass(frozen=True)
class Runs:
    """Finished trainings and launches in a folder."""

    out: Path

    def stem(self, seed: int, weight: float) -> Path:
        return self.out / f"seed-{seed}-reach-{weight:g}"

    def file(self, seed: int, weight: float, ending: str) -> Path:
        # Not `with_suffix`, to which the fraction of a weight is a suffix.
        return Path(f"{self.stem(seed, weight)}{ending}")

    def training(self, seed: int, weight: float) -> dict[str, Any] | None:
        file = self.file(seed, weight, ".json")
        return json.loads(file.read_text("utf-8")) if file.is_file() else None

    def truth(self, seed: int, weight: float) -> FloatArray:
        return np.load(self.file(seed, weight, ".npy"))

    def launch_file(self, seed: int, weight: float, sessions: int) -> Path:
        return Path(f"{self.stem(seed, weight)}-launch-2-{sessions}.parquet")

    def train(self, found: Platform, seed: int, weight: float, config: TrainingConfig) -> None:
        """Train from the warm start and measure."""
        deployment, policy = rewarding(found, weight), found.warm.copy()
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            train(policy, found.instances, deployment.reward, config, Path(folder), seed=seed, provenance={})
            seconds = time.perf_counter() - begin
        means, truth = found.measure_by_search(policy)
        rewrites = served_rewrites(
            policy, [x.query for x in found.for_gate], max_new_tokens=found.config.pipeline.max_new_tokens
        )
        probed = probe(found.instances[:PROBED], deployment.reward)
        value = {
            "seed": seed, "reach_weight": weight, "seconds": seconds, **means,
            **share_reached(found.deployment, found.for_gate, rewrites),
            "probe_passed": probed.passed, "probe": {f.name: f.reward for f in probed.findings},
        }  # fmt: skip
        policy.save(self.stem(seed, weight))
        np.save(self.file(seed, weight, ".npy"), truth)
        self.file(seed, weight, ".json").write_text(json.dumps(value), "utf-8")
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in value.items()}, flush=True)

    def launch(self, found: Platform, seed: int, weight: float, sessions: int, platforms: Path) -> None:
        """Launch 2 under the policy."""
        policy = load_rewriter(self.stem(seed, weight))
        with tempfile.TemporaryDirectory() as folder:
            table = run_launch(
                found.world, found.config.traffic, LAUNCHES[1], found.deployment, policy, sessions, Path(folder),
                thresholds_of(platforms / f"seed-{seed}"), max_new_tokens=found.config.pipeline.max_new_tokens,
                progress=lambda done, total: None,
            )  # fmt: skip
        pq.write_table(table, self.launch_file(seed, weight, sessions))
        print(f"launched: seed {seed}, reach {weight:g}", flush=True)


def summary(runs: Runs, seeds: Sequence[int], weights: Sequence[float], sessions: int, users: dict[int, list[str]]) -> dict:
    """Whatever is finished."""
    trainings = [t for s in seeds for w in weights if (t := runs.training(s, w))]
    differences = [
        {
            "seed": s,
            "reach_weight": w,
            "ndcg10_against_0": paired(users[s], runs.truth(s, w) - runs.truth(s, BASE)),
        }
        for s in seeds
        for w in weights
        if w != BASE and s in users and runs.training(s, w) and runs.training(s, BASE)
    ]
    launches = []
    for w in weights:
        files = {f"seed-{s}": runs.launch_file(s, w, sessions) for s in seeds}
        tables = {name: pq.read_table(file) for name, file in files.items() if file.is_file()}
        if tables:
            pooled = read_launch(LAUNCHES[1].name, pool_tables(tables))
            launches.append({"reach_weight": w, "seeds": list(tables), "sessions_per_seed": sessions, **pooled.as_dict()})
    about = {"machine": machine(), "date": datetime.now(UTC).date().isoformat()}
    return {**about, "trainings": trainings, "differences": differences, "launches": launches}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--weights", type=float, nargs="+", default=[BASE, 0.5])
    parser.add_argument("--sessions", type=int, default=20_000, help="of each launch; 0: no launches")
    parser.add_argument("--minutes", type=float, default=14.0, help="after which nothing further begins")
    parser.add_argument("--platforms", type=Path, default=Path("runs/launches"), help="folder of the platforms' runs")
    parser.add_argument("--out", type=Path, default=Path("runs/reach"), help="folder of the finished runs")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    stop, runs = time.monotonic() + 60 * arguments.minutes, Runs(arguments.out)
    for seed in arguments.seeds:
        to_train = [w for w in arguments.weights if runs.training(seed, w) is None]
        to_launch = [
            w for w in arguments.weights if arguments.sessions and not runs.launch_file(seed, w, arguments.sessions).is_file()
        ]
        names = arguments.out / f"seed-{seed}-users.json"
        if (not to_train and not to_launch and names.is_file()) or time.monotonic() > stop:
            continue
        found = platform(seed, arguments.platforms)
        names.write_text(json.dumps(list(found.held_out.user_ids)), "utf-8")
        for weight in to_train:
            if time.monotonic() < stop:
                runs.train(found, seed, weight, TrainingConfig())
        for weight in to_launch:
            if time.monotonic() < stop and runs.training(seed, weight):
                runs.launch(found, seed, weight, arguments.sessions, arguments.platforms)
    files = {s: arguments.out / f"seed-{s}-users.json" for s in arguments.seeds}
    users = {s: json.loads(file.read_text("utf-8")) for s, file in files.items() if file.is_file()}
    found_so_far = summary(runs, arguments.seeds, arguments.weights, arguments.sessions, users)
    RESULTS.write_text(json.dumps(found_so_far, indent=1, allow_nan=False) + "\n", "utf-8")
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
