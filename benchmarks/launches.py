"""The two launches on enough traffic to see a change of 4 %: three seeds, each with its own platform and champion, pooled.

    python benchmarks/launches.py [--sessions 120000] [--seeds 0 1 2] [--out runs/launches] [--results FILE]

Every seed runs the demo's loop first (without its small launches) where its run is not there yet; a launch once simulated is
not simulated again. Writes benchmarks/results/launches.json.
"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from corewrite.cycle import read_window
from corewrite.deployment.deployment import embedded_deployment
from corewrite.deployment.explain import load_champion
from corewrite.deployment.load import load_policy
from corewrite.experiment import aa_check, pool_tables, read_launch
from corewrite.fusion import default_spec
from corewrite.logs import SatisfactionThresholds
from corewrite.registry import Registry
from corewrite.report.progress import ProgressSteps
from corewrite.simulation.world import make_world
from corewrite.studies.platform import LAUNCHES, Launch, run_launch
from corewrite.studies.quickstart.config import DemoConfig
from corewrite.studies.quickstart.run import run_demo
from corewrite.studies.summary import machine

SEEDS = (0, 1, 2)
RESULTS = Path(__file__).parent / "results" / "launches.json"


def table_of(seed: int, launch: Launch, sessions: int, out: Path, steps: ProgressSteps) -> pa.Table:
    """One row per search of a launch under a seed, simulated where it is not there yet."""
    # Named otherwise than before launches were salted with the seed: tables from then cannot be pooled.
    file = out / f"launch-{launch.name[7]}-seed-{seed}-{sessions}.parquet"
    if file.is_file():
        return pq.read_table(file)
    folder = out / f"seed-{seed}"
    config = DemoConfig(seed=seed)
    if not (folder / "summary.json").is_file():
        run_demo(config, folder, console=Console(stderr=True), with_launches=False)
    registry = Registry(folder / "registry")
    served = load_champion(folder / "documents.parquet", registry)
    # The champion of launch 1 was rewarded for finerank alone; launch 2's is the one of today.
    first = next(d.candidate for d in registry.decisions() if d.verdict == "promote" and d.candidate)
    policy = load_policy(registry, first.policy) if launch is LAUNCHES[0] else served.policy
    deployment = embedded_deployment(served.deployment.catalogue, served.deployment.ranker.embedder, default_spec())
    thresholds = thresholds_of(folder)
    with steps.step(f"seed {seed}, launch {launch.name[7]}") as progress:
        table = run_launch(
            make_world(config.seeded_world), config.traffic, launch, deployment, policy, sessions,
            folder / "logs-large", thresholds, max_new_tokens=config.pipeline.max_new_tokens, progress=progress,
        )  # fmt: skip
    pq.write_table(table, file)
    return table


def thresholds_of(folder: Path) -> SatisfactionThresholds | None:
    """Satisfaction as frozen on week 0 of a demo run."""
    return read_window(folder / "logs" / "week-0.ndjson.gz").outcomes.thresholds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=120_000, help="sessions of each launch under each seed")
    parser.add_argument("--out", type=Path, default=Path("runs/launches"), help="folder for runs and tables")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="those whose first candidate was promoted")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file for the figures")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    steps = ProgressSteps(Console(stderr=True))
    rows = []
    for launch in LAUNCHES:
        tables = {f"seed-{s}": table_of(s, launch, arguments.sessions, arguments.out, steps) for s in arguments.seeds}
        pooled = pool_tables(tables)
        result = read_launch(launch.name, pooled)
        row = {
            "launch": launch.name, "seeds": arguments.seeds, "sessions_per_seed": arguments.sessions, **result.as_dict(),
            "aa": aa_check(pooled, splits=500, seed=0).as_dict(),
            "by_seed": {name: read_launch(name, table).cqr.as_dict() for name, table in tables.items()},
            "machine": machine(), "date": datetime.now(UTC).date().isoformat(),
        }  # fmt: skip
        rows.append(row)
        print(f"{launch.name}: {result.reason}")
        for effect in (result.cqr, result.give_up, result.cqr_all_impacted, result.cqr_overall, result.plain_cqr):
            print(
                f"  {effect.name:<18} {effect.control:.4f} -> {effect.treatment:.4f}  {effect.relative:+.2%} "
                f"[{effect.ci_low:+.2%}, {effect.ci_high:+.2%}]  users {effect.n_control} + {effect.n_treatment}"
            )
    arguments.results.write_text(json.dumps(rows, indent=1, allow_nan=False) + "\n", "utf-8")
    print(f"written to {arguments.results}")


if __name__ == "__main__":
    main()
