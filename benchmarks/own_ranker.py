"""Does it matter that the deployed ranker is the reward? Four rewards, equal time, every policy served by one foreign ranker.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/own_ranker.py --seed 0 --out runs/own-ranker --seconds 160

Rewards: `own`, the foreign ranker through the fusion spec; `bundled`, the bundled model through the spec; `retrieval`, the
share of D+ in the rewrite's own top 10; `raw`, the foreign ranker's score of (rewrite, document) on D+, without the ratio. Each
training begins from the same warm start and is stopped after the phase in which its time is up: CPU time of the process, which
holds the ranker too, so that neighbours do not count. Measured on a fresh week under
the foreign ranker: reward, judge, true nDCG@10 by slice with paired intervals by user, change-query rate on common random
numbers, length. A seed that is measured stays in
benchmarks/results/own_ranker.json; another process may measure another seed meanwhile.
"""

import argparse
import contextlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from setting import paired

from corewrite.cycle.steps.warm_start import warm_start
from corewrite.deployment.deployment import Deployment, embedded_deployment
from corewrite.deployment.open import RankerOpener
from corewrite.deployment.reward import build_document_rows
from corewrite.deployment.served import fused_lists, log_rewards, served_rewrites
from corewrite.deployment.settings import RankerSettings
from corewrite.domain import TrainingInstance, is_identity
from corewrite.fusion import default_spec
from corewrite.logs import find_outcomes, read_log
from corewrite.relevance import RelevanceScorer, TreeJudge
from corewrite.relevance.backends import folder_hash
from corewrite.report.progress import ProgressSteps
from corewrite.rewriter import Rewriter
from corewrite.search import top_overlap
from corewrite.simulation.export import write_log
from corewrite.simulation.intents import ndcg10
from corewrite.simulation.traffic import simulate_week
from corewrite.studies.engine import OnePolicyEngine
from corewrite.studies.platform import ratings
from corewrite.studies.quickstart.config import DemoConfig
from corewrite.studies.summary import machine
from corewrite.studies.truth import truth_slices
from corewrite.training import Reward, train
from corewrite.version import VERSION

sys.path.insert(0, str(Path(__file__).parents[1]))
RESULTS = Path(__file__).parent / "results" / "own_ranker.json"
FloatArray = npt.NDArray[np.float64]


class _TimeUpError(Exception):
    """The training has had its time."""


@dataclass(frozen=True, eq=False)
class Retrieval:
    """Share of D+, by gain, in the rewrite's own top 10, above that of the query: what offline proxies pay for."""

    deployment: Deployment
    waits = True

    def __call__(self, instances: Sequence[TrainingInstance], texts: Sequence[Sequence[str]]) -> list[FloatArray]:
        cascade, documents = self.deployment.cascade, self.deployment.documents
        flat = list(dict.fromkeys(t for x, row in zip(instances, texts, strict=True) for t in (x.query.text, *row)))
        rows = dict(zip(flat, cascade.search(flat, [None] * len(flat), 10).rows.tolist(), strict=True))

        def share(x: TrainingInstance, text: str) -> float:
            wanted = documents.rows(x.positives).tolist()
            return sum(g for row, g in zip(wanted, x.gains, strict=True) if row in rows[text]) / sum(x.gains)

        return [
            np.array([0.0 if is_identity(x.query.text, t) else share(x, t) - share(x, x.query.text) for t in row])
            for x, row in zip(instances, texts, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class Raw:
    """The ranker's own score of the rewrite on D+, above that of the query: no ratio, no D-, no clip."""

    deployment: Deployment
    scorer: RelevanceScorer
    waits = True

    def __call__(self, instances: Sequence[TrainingInstance], texts: Sequence[Sequence[str]]) -> list[FloatArray]:
        rows, gains, _ = build_document_rows(instances, self.deployment.documents)
        wanted = np.where(gains > 0, rows, -1)
        weight = gains / gains.sum(1, keepdims=True)
        own = (self.scorer.score([x.query.text for x in instances], wanted) * weight).sum(1)
        found = []
        for i, (x, row) in enumerate(zip(instances, texts, strict=True)):
            scores = (self.scorer.score(list(row), np.repeat(wanted[i : i + 1], len(row), 0)) * weight[i]).sum(1) - own[i]
            same = np.array([is_identity(x.query.text, t) for t in row])
            found.append(np.where(same, 0.0, scores))
        return found


def trained(
    warm: Rewriter, instances: list[TrainingInstance], reward: Reward, config: DemoConfig, folder: Path, seconds: float
) -> tuple[Rewriter, int, float]:
    """A copy of the warm start, trained for its time; the phases and the CPU seconds it took."""
    policy, began, phases = warm.copy(), time.process_time(), [0]
    shutil.rmtree(folder, ignore_errors=True)

    def observe(phase: int, policy: Rewriter) -> dict[str, float]:
        phases[0] = phase + 1
        if time.process_time() - began > seconds:
            raise _TimeUpError
        return {}

    settings = config.pipeline.training.model_copy(update={"phases": 500, "patience": 0})
    with contextlib.suppress(_TimeUpError):
        train(policy, instances, reward, settings, folder, seed=config.seed, provenance={}, observe=observe)
    return policy, phases[0], time.process_time() - began


def run_seed(seed: int, out: Path, seconds: float) -> dict[str, Any]:
    from benchmarks.foreign_ranker.export import export_onnx
    from benchmarks.foreign_ranker.measure import make_platform
    from benchmarks.foreign_ranker.train import train_ranker

    steps, config = ProgressSteps(Console(stderr=True)), DemoConfig(seed=seed)
    team = make_platform(config, out / f"seed-{seed}", steps)
    world, (earlier, window) = team.world, team.windows
    catalogue, spec = world.catalogue, default_spec()
    with steps.step("the team's ranker") as progress:
        ranker, _ = train_ranker(catalogue, earlier.impressions(catalogue), seed=seed, progress=progress)
        folder = export_onnx(ranker, out / f"seed-{seed}-ranker")
    signal = {
        "kind": "onnx", "folder": folder, "pin": folder_hash(folder), "max_tokens": 64, "threads": 1, "batch": 256,
        "inputs": {"picture": "document.visual"}, "cache": 5_000_000,
    }  # fmt: skip
    opener = RankerOpener(RankerSettings.model_validate({"signals": {"relevance": signal}}), catalogue)
    own = Deployment(opener.build(team.bundled), spec)
    bundled = embedded_deployment(catalogue, team.bundled, spec)
    with steps.step("judge"):
        judge = TreeJudge(catalogue)
        first = simulate_week(
            world, config.traffic, OnePolicyEngine(bundled.cascade, None, 12), week=0, sessions=config.sessions
        )
        judge.fit(ratings(world, first, bundled.cascade, config.rated_searches), seed=seed)
    with steps.step("warm start") as progress:
        repaired, good = (a + b for a, b in zip(earlier.reformulations(), window.reformulations(), strict=True))
        warm, _ = warm_start(repaired, good, own, config.pipeline.warm_start, seed=seed, progress=progress)
    instances = window.instances(catalogue, seed=seed)
    for_gate = window.instances(catalogue, seed=seed, for_gate=True)[:1_500]
    rewards: dict[str, Callable[[], Reward]] = {
        "own": lambda: own.reward,
        "bundled": lambda: bundled.reward,
        "retrieval": lambda: Retrieval(own),
        "raw": lambda: Raw(own, own.ranker.signals["relevance"]),
    }
    policies, about = {"warm start": warm}, {}
    for name, make in rewards.items():
        with steps.step(f"train on {name}"):
            policies[name], phases, took = trained(warm, instances, make(), config, out / f"seed-{seed}-{name}", seconds)
            about[name] = {"phases": phases, "seconds": round(took, 1)}
    limit, held = config.pipeline.max_new_tokens, team.held_out
    truth: dict[str, FloatArray] = {}
    rewrites: dict[str, list[str | None]] = {"original": [None] * len(held)}
    lists = {}
    for name, policy in policies.items():
        rewrites[name] = served_rewrites(policy, held.queries, max_new_tokens=limit)
    for name, texts in rewrites.items():
        with steps.step(f"measure {name}"):
            lists[name] = fused_lists(own, held.queries, texts)
            truth[name] = ndcg10(world, held.intents, lists[name])
    judged = dict(zip(lists, judge.ndcg10(held.queries, list(lists.values())), strict=True))
    overlap = top_overlap(own.cascade)
    cqr: dict[str, dict[str, float]] = {}
    for name in ("original", *policies):
        with steps.step(f"users of {name}"):
            engine = OnePolicyEngine(own.cascade, policies.get(name), limit)
            week = simulate_week(world, config.traffic, engine, week=3, sessions=config.held_out_sessions)
            write_log(week, catalogue, out / f"seed-{seed}-users.ndjson")
            ended = find_outcomes(
                read_log(out / f"seed-{seed}-users.ndjson"), overlap=overlap, thresholds=earlier.outcomes.thresholds
            )
            cqr[name] = ended.shares()
    slices, users = truth_slices(held), list(held.user_ids)
    searched = [x.query for x in for_gate]

    def reward_of(name: str) -> float:
        if name not in policies:
            return 0.0
        return float(log_rewards(own, for_gate, served_rewrites(policies[name], searched, max_new_tokens=limit)).mean())

    def build_words(name: str) -> float:
        return float(np.mean([len((r or q.text).split()) for r, q in zip(rewrites[name], held.queries, strict=True)]))

    table = {
        name: {
            **about.get(name, {}),
            "reward": reward_of(name),
            "judge": float(judged[name].mean()),
            "ndcg10": {s: float(truth[name][inside].mean()) for s, inside in slices.items()},
            "words": build_words(name),
            **cqr[name],
        }
        for name in rewrites
    }
    against = {
        name: paired(users, truth["own"] - truth[name]) for name in ("original", "warm start", "bundled", "retrieval", "raw")
    }
    return {"seconds": seconds, "systems": table, "own_minus": against, "searches": len(held)}


def _known() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, action="append", help="repeatable; default: 0, 1, 2")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=160.0, help="CPU time of each training")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for seed in given.seed or (0, 1, 2):
        if str(seed) in _known().get("seeds", {}):
            continue
        found = run_seed(seed, given.out, given.seconds)
        known = _known()
        known.setdefault("seeds", {})[str(seed)] = found
        known |= {"machine": machine(), "code_version": VERSION}
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
