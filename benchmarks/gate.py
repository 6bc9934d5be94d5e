"""CPU time of one gate decision at full size: 20,000 searches of 12,000 users, 2,000 resamples, every check given its data.

    taskset -c 0 python benchmarks/gate.py [--queries 20000] [--users 12000] [--repeats 3]

Writes benchmarks/results/gate-speed.json. Process time is reported, so that what else runs on the machine does not count.
"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import numpy as np

from corewrite.domain import Context, Query
from corewrite.gate import Canary, Evaluation, GateConfig, GateResult, PolicyOutputs, Resampling, run_gate
from corewrite.studies.summary import machine

RESULTS = Path(__file__).parent / "results" / "gate-speed.json"


def synthetic(queries: int, users: int, seed: int = 0) -> Evaluation:
    """Searches of two to four words out of a Zipf vocabulary, contexts of two queries and four titles at most, three policies.

    A policy leaves 30 % of the searches as they are; otherwise it drops or adds words, a third of them from the context.
    One text in twenty is not ASCII.
    """
    rng = np.random.default_rng(seed)
    size = 20_000
    names = [f"w{i}" if i % 20 else f"слово{i}" for i in range(size)]
    weights = 1 / np.arange(1, size + 1) ** 0.9
    stream = iter(rng.choice(size, 60 * queries, p=weights / weights.sum()).tolist())

    def text(n: int) -> str:
        return " ".join(names[next(stream)] for _ in range(n))

    asked = []
    for words, before, titles in rng.integers((2, 0, 0), (5, 3, 5), (queries, 3)):
        context = Context(tuple(text(3) for _ in range(before)), tuple(text(6).title() for _ in range(titles)))
        asked.append(Query(text(words), context))
    original = rng.uniform(0.2, 0.8, queries)

    def policy(gain: float) -> PolicyOutputs:
        rewrites = []
        for query, kind in zip(asked, rng.random(queries), strict=True):
            added = query.context.titles[0].split()[:2] if query.context.titles and kind < 0.5 else [text(1)]
            rewrites.append("" if kind < 0.2 else query.text if kind < 0.3 else " ".join([query.text, *added]))
        judge = np.clip(original + gain + rng.normal(0.02, 0.05, queries), 0, 1)
        repairs = np.where(rng.random(queries) < 0.2, rng.normal(-2, 0.5, queries), np.nan)
        return PolicyOutputs(rewrites, rng.normal(gain, 0.5, queries), judge, repairs, rng.gamma(4, 5, queries))

    candidate, champion, recent = policy(0.02), policy(0.0), policy(0.0)
    repairs = np.where(np.isnan(champion.repair_log_prob), np.nan, rng.normal(-2, 0.5, queries))
    candidate = PolicyOutputs(candidate.rewrites, candidate.log_reward, candidate.judge_ndcg, repairs, candidate.latency_ms)
    place = rng.random(queries)
    slices = {"head": place < 0.3, "torso": (place >= 0.3) & (place < 0.6), "tail": place >= 0.6}
    slices |= {name: rng.random(queries) < share for name, share in (("context", 0.5), ("new", 0.1))}
    # Every user once, the others where chance puts them: the number of users is exact.
    ids = np.concatenate([np.arange(users), rng.integers(0, users, queries - users)])
    return Evaluation(
        [f"user-{u}" for u in rng.permutation(ids)], asked, slices, candidate, champion, original,
        protected_words=frozenset(names[:2_000]), recent=recent,
        kl={name: rng.gamma(2, 0.05, queries) for name in ("reference", "champion", "lineage")},
        canaries=[Canary(q, ("zqxcanary",), q.text) for q in asked[:100]],
    )  # fmt: skip


def timed(queries: int, users: int, seed: int) -> tuple[float, float, float, GateResult]:
    """CPU seconds of a decision and of its draws, seconds by the clock, the decision; nothing cached from before."""
    evaluation, config = synthetic(queries, users, seed), GateConfig()
    cpu = process_time()
    Resampling.draw(evaluation.user_ids, resamples=config.resamples, subsamples=config.subsamples, seed=config.seed)
    draws = process_time() - cpu
    cpu, wall = process_time(), perf_counter()
    result = run_gate(evaluation, config)
    return process_time() - cpu, draws, perf_counter() - wall, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=12_000)
    parser.add_argument("--repeats", type=int, default=3, help="runs, each on searches of its own; the median is written")
    arguments = parser.parse_args()
    runs = [timed(arguments.queries, arguments.users, seed) for seed in range(arguments.repeats)]
    for cpu, draws, wall, result in runs:
        unanswered = [c.name for c in result.checks if c.verdict in ("error", "skipped")]
        if unanswered or (result.queries, result.users) != (arguments.queries, arguments.users):
            raise SystemExit(f"not a full decision: {result.queries} searches of {result.users} users, without {unanswered}")
        print(f"{cpu:.2f} s of CPU ({draws:.2f} s of it draws), {wall:.2f} s by the clock, {len(result.checks)} checks")
    shared = {
        "queries": arguments.queries, "users": arguments.users, "resamples": GateConfig().resamples,
        "checks": len(runs[0][3].checks), "repeats": len(runs), "machine": machine(),
        "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip
    names = ("decision, CPU", "draws of the resamples, CPU", "decision, by the clock")
    rows = [
        {"measure": name, "ours": round(median(run[i] for run in runs), 3), "unit": "s", **shared}
        for i, name in enumerate(names)
    ]
    RESULTS.write_text(json.dumps(rows, indent=1, allow_nan=False) + "\n", "utf-8")
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
