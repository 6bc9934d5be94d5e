"""The production loop at a size at which a gate can promote, under the embedded, the ONNX and a KServe ranker.

    OMP_NUM_THREADS=1 python benchmarks/production_loop.py --ranker onnx --out runs/production-loop

The team's ranker is a multimodal cross-encoder trained on the platform's log, in three versions: the first takes pictures for
others, the second is sound, the third is the second made to pay for repeated words. Writes
benchmarks/results/production_loop.json, a part for each ranker; other parts stay. Two processes may measure two rankers.

The first candidate is taken on trust, whatever its gate says: there is no champion that it could be worse than, and the gate's
record stays. The later ones need the gate.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from scipy import stats

from corewrite.cycle import PipelineConfig, WarmStartConfig, read_window
from corewrite.cycle.config import RefreshConfig
from corewrite.deployment.deployment import embedded_deployment
from corewrite.deployment.settings import RankerSettings
from corewrite.experiment import RolloutConfig
from corewrite.fusion import default_spec
from corewrite.gate import GateConfig, Margins
from corewrite.relevance import cold_start
from corewrite.relevance.backends import folder_hash
from corewrite.report.progress import ProgressSteps
from corewrite.simulation.config import TrafficConfig, WorldConfig
from corewrite.simulation.export import write_log
from corewrite.simulation.traffic import simulate_week
from corewrite.simulation.world import World, make_world
from corewrite.studies.engine import NoRewriter
from corewrite.studies.production.loop import CONTROL, TREATMENT, LoopSize, Team, build_launch, run_loop, week_figures
from corewrite.studies.summary import machine
from corewrite.training import TrainingConfig
from corewrite.version import VERSION

sys.path.insert(0, str(Path(__file__).parents[1]))
RESULTS = Path(__file__).parent / "results" / "production_loop.json"
VERSIONS = {"1": "1", "2": "2", "broken": "3"}
_RANKER_SESSIONS = 10_000
"""What the ranker is trained on."""


def size(sessions: int) -> LoopSize:
    def pipeline(phases: int, instances: int) -> PipelineConfig:
        return PipelineConfig(
            warm_start=WarmStartConfig(examples=60_000),
            training=TrainingConfig(phases=phases, instances_per_phase=instances),
            gate_queries=3_000,
            # Of 120 entities a few are asked for all the time, so that the commonest rewrite is common with cause; and of the
            # gate's searches by so few users a harm rate is known to 2 % either way. All other margins are the defaults.
            gate=GateConfig(margins=Margins(top_rewrite_share=0.05, harm_rate=0.05)),
        )

    harm = {name: {"times_control": 1.3} for name in ("give_up", "change_query", "unsatisfied")}
    stage = {"share": 0.5, "minimum_users": 500, "limits": {**harm, "errors": {"plus": 0.01}}}
    refresh = RefreshConfig(relevance_every=4, relevance_windows=1, examples=8_000)
    # Hardly any training first, so that the later weeks have something to gain.
    first, later = pipeline(1, 300), pipeline(4, 1_000)
    return LoopSize(
        sessions, 2_000, first, later, refresh, 1_000, RolloutConfig.model_validate({"stages": [stage]}), gated=False
    )


def make_versions(world: World, repository: Path, steps: ProgressSteps) -> None:
    """The three versions, trained on what the engine served before there was a ranker."""
    from benchmarks.foreign_ranker.broken import break_ranker
    from benchmarks.foreign_ranker.export import export_versions
    from benchmarks.foreign_ranker.train import train_ranker

    catalogue = world.catalogue
    cold = embedded_deployment(catalogue, cold_start(catalogue, seed=0), default_spec())
    with steps.step("sessions before there is a ranker") as progress, tempfile.TemporaryDirectory() as folder:
        week = simulate_week(
            world, TrafficConfig(), NoRewriter(cold.cascade), week=0, sessions=_RANKER_SESSIONS, progress=progress
        )
        write_log(week, catalogue, Path(folder) / "log.ndjson")
        impressions = read_window(Path(folder) / "log.ndjson").impressions(catalogue)
    with steps.step("train the ranker") as progress:
        sound, _ = train_ranker(catalogue, impressions, seed=0, progress=progress)
    versions = {"1": break_ranker(sound, "pictures"), "2": sound, "3": break_ranker(sound, "repeats")}
    export_versions(versions, repository)


@contextlib.contextmanager
def rankers(kind: str, repository: Path) -> Iterator[dict[str, RankerSettings]]:
    if kind == "embedded":
        yield dict.fromkeys(VERSIONS, RankerSettings())
        return

    def named(signal: dict[str, Any]) -> RankerSettings:
        return RankerSettings.model_validate({"signals": {"relevance": signal}})

    if kind == "onnx":
        picture = {"picture": "document.visual"}
        yield {
            name: named(
                {
                    "kind": "onnx", "folder": repository / version, "pin": folder_hash(repository / version), "max_tokens": 64,
                    "inputs": picture,
                }
            )
            for name, version in VERSIONS.items()
        }  # fmt: skip
        return
    from benchmarks.foreign_ranker.serve import run_server

    with run_server(repository) as server:
        inputs = {"text": "text", "document": "document", "picture": "document.visual"}
        yield {
            name: named(
                {
                    "kind": "kserve", "url": server.url, "model": server.model, "version": version, "inputs": inputs,
                    "calibration": {}, "timeout_ms": 20_000, "binary": True,
                }
            )
            for name, version in VERSIONS.items()
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranker", choices=("embedded", "onnx", "kserve"), required=True)
    parser.add_argument("--sessions", type=int, default=7_000, help="a week")
    parser.add_argument("--out", type=Path, required=True, help="folder of the team")
    given = parser.parse_args()
    world = make_world(WorldConfig(seed=0, videos=5_000, entities=120))
    spec = given.out / "fusion.yaml"
    given.out.mkdir(parents=True, exist_ok=True)
    small = default_spec().model_dump(mode="json")
    small["recall"] |= {"original_candidates": 25, "rewrite_candidates": 20}
    small["depths"] = {"finerank": 30, "protected": 30}
    spec.write_text(json.dumps(small))
    steps = ProgressSteps(Console(stderr=True))
    repository = given.out / f"versions-{given.ranker}"
    if given.ranker != "embedded" and not repository.is_dir():
        make_versions(world, repository, steps)
    began = time.monotonic()
    with rankers(given.ranker, repository) as named:
        team = Team(given.out / given.ranker, world, named, spec, size(given.sessions), steps)
        loop = run_loop(team)
        figures = [week_figures(team, week) for week in loop.weeks]
        # While a rollout is under way the trigger is between its versions, and its own look reads the week.
        launches = [build_launch(team, week) for week in loop.weeks if week.number == 2 or loop.rollout is None]
    # Of the weeks whose trigger is between the two arms; that of a rollout is between its versions.
    tested = [
        stats.fisher_exact([[a, n - a], [b, m - b]]).pvalue
        for f in figures[: len(launches)]
        for (a, n), (b, m) in [(f.impacted[CONTROL], f.impacted[TREATMENT])]
    ]
    found = {
        "ranker": given.ranker, "sessions_a_week": given.sessions, "minutes": round((time.monotonic() - began) / 60, 1),
        "cycles": [{k: c[k] for k in ("week", "verdict", "reason", "alarms", "relevance")} for c in loop.cycles],
        "weeks": [f.as_dict() for f in figures], "impacted_equal_p": tested,
        "launches": [launch.as_dict() for launch in launches],
        "ramp": None if loop.rollout is None else {"kind": loop.rollout.kind, "reason": loop.rollout.reason},
        "machine": machine(), "code_version": VERSION,
    }  # fmt: skip
    known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    RESULTS.write_text(json.dumps({**known, given.ranker: found}, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
