"""All systems by slice on the simulated platform: baselines, warm start, champion, recoverable oracle and oracle.

    python benchmarks/platform_table.py [--seeds 0 1 2] [--out runs/launches]

Every seed runs the demo's loop first (without its launches) where its run is not there yet, as benchmarks/launches.py does; a
seed once measured is not measured again. Writes benchmarks/results/platform_table.json: by seed and pooled over the seeds,
nDCG@10 by slice and system, the champion over the best baseline without a language model, and the shares of the way from no
rewriter to the recoverable oracle, with 95 % intervals.
"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from setting import platform

from corewrite.deployment.load import load_policy
from corewrite.deployment.served import served_rewrites
from corewrite.registry import Registry
from corewrite.rewriter import Rewriter
from corewrite.studies.baselines import BASELINES, UserSums, baseline_rewrites, compare
from corewrite.studies.summary import machine
from corewrite.studies.truth import measure, truth_slices

RESULTS = Path(__file__).parent / "results" / "platform_table.json"
SYSTEMS = (*BASELINES, "warm_start", "champion", "recoverable", "oracle")
SLICES = ("all", "clear", "context_needed", "misspelt")


def table_of(seed: int, out: Path) -> pa.Table:
    """One row per held-out search of a seed: its user, its slices, and nDCG@10 by system."""
    file = out / f"platform-table-seed-{seed}.parquet"
    if file.is_file():
        return pq.read_table(file)
    found = platform(seed, out)
    queries, limit = found.held_out.queries, found.config.pipeline.max_new_tokens
    champion = first_candidate(Registry(out / f"seed-{seed}" / "registry"))
    systems = baseline_rewrites(found.deployment, queries)
    for name, policy in (("warm_start", found.warm), ("champion", champion)):
        systems[name] = served_rewrites(policy, queries, max_new_tokens=limit)
    measured = measure(found.world, found.config.traffic, found.held_out, found.deployment, found.judge, systems)
    table = pa.table(
        {"user_id": list(measured.user_ids)}
        | {f"in_{name}": inside for name, inside in truth_slices(found.held_out).items()}
        | {name: measured.by_search[name] for name in SYSTEMS}
    )
    pq.write_table(table, file)
    return table


def first_candidate(registry: Registry) -> Rewriter:
    """What the demo trained first: its champion where the gate promoted it, what it shows in its place where not."""
    decision = next(d for d in registry.decisions() if d.candidate)
    print(f"{registry.root}: {decision.verdict}")
    return load_policy(registry, decision.candidate.policy)


def row(seeds: list[int], tables: list[pa.Table]) -> dict[str, Any]:
    """The figures of one seed, or of several pooled."""
    pooled = pa.concat_tables(tables)
    values = {name: pooled[name].to_numpy() for name in SYSTEMS}
    inside = {name: pooled[f"in_{name}"].to_numpy(zero_copy_only=False) for name in SLICES}
    parts = [UserSums.of({n: t[n].to_numpy() for n in SYSTEMS}, t["user_id"].to_pylist()) for t in tables]
    return {
        "seeds": seeds,
        "searches": {name: int(some.sum()) for name, some in inside.items()},
        "ndcg10": {s: {name: float(np.mean(v[some])) for name, v in values.items()} for s, some in inside.items()},
        **compare(parts).as_dict(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="platforms")
    parser.add_argument("--out", type=Path, default=Path("runs/launches"), help="folder for runs and tables")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file for the figures")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    tables = {seed: table_of(seed, arguments.out) for seed in arguments.seeds}
    found = {
        "pooled": row(arguments.seeds, list(tables.values())),
        "by_seed": [row([seed], [table]) for seed, table in tables.items()],
        "machine": machine(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    arguments.results.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", "utf-8")
    print(f"written to {arguments.results}")


if __name__ == "__main__":
    main()
