"""How good the ranker is, and that it reads words and picture; writes benchmarks/results/foreign_ranker.json.

    OMP_NUM_THREADS=1 python -m benchmarks.foreign_ranker.measure [--size miniature|full] [--keep REPOSITORY]

Version 1 is trained on week 0 of the simulated platform, version 2 on weeks 0 and 1, version 3 is version 2 with the fault
`repeats`, version 4 with the fault `pictures`. All rank at finerank behind the recall of the bundled model.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import process_time
from typing import Any

import torch
from rich.console import Console

from corewrite.cycle import LogWindow, fit_relevance, read_window
from corewrite.deployment.deployment import Deployment, embedded_deployment
from corewrite.domain import TrainingInstance
from corewrite.fusion import default_spec
from corewrite.relevance import LateInteraction, RelevanceScorer, cold_start, probe
from corewrite.report.progress import ProgressSteps
from corewrite.search import top_overlap
from corewrite.simulation.intents import ndcg10
from corewrite.simulation.traffic import simulate_week
from corewrite.simulation.week import Week
from corewrite.simulation.world import World, make_world
from corewrite.studies.engine import NoRewriter
from corewrite.studies.platform import log_week
from corewrite.studies.quickstart.config import DemoConfig, miniature
from corewrite.studies.truth import truth_slices

from .broken import break_ranker
from .export import export_versions
from .ranker import ForeignRanker
from .train import TrainingConfig, joined_impressions, train_ranker

RESULTS = Path(__file__).parents[1] / "results" / "foreign_ranker.json"
_PROBED = 1_000


@dataclass(frozen=True, eq=False)
class Platform:
    """The simulated platform after two logged weeks.

    Attributes:
        world: Truth, for measuring alone.
        windows: Weeks 0 and 1 as their logs tell them.
        bundled: The bundled model, fitted on week 0: it recalls.
        held_out: A fresh week.
    """

    world: World
    windows: tuple[LogWindow, LogWindow]
    bundled: LateInteraction
    held_out: Week


def make_platform(config: DemoConfig, folder: Path, steps: ProgressSteps) -> Platform:
    """Log two weeks into `folder`, the first under a cold start, the second under the bundled model fitted on the first."""
    with steps.step("build the platform"):
        world = make_world(config.seeded_world)
        cold = embedded_deployment(world.catalogue, cold_start(world.catalogue, seed=config.seed), default_spec())
    with steps.step("week 0") as progress:
        _, log = log_week(world, config.traffic, NoRewriter(cold.cascade), 0, config.sessions, folder, progress)
        first = read_window(log, overlap=top_overlap(cold.cascade))
    with steps.step("fit the bundled model") as progress:
        bundled = fit_relevance(first, world.catalogue, seed=config.seed, progress=progress).model
        deployment = embedded_deployment(world.catalogue, bundled, default_spec())
    with steps.step("week 1") as progress:
        engine = NoRewriter(deployment.cascade)
        _, log = log_week(world, config.traffic, engine, 1, config.sessions, folder, progress)
        second = read_window(log, overlap=top_overlap(deployment.cascade), thresholds=first.outcomes.thresholds)
    held_out = simulate_week(world, config.traffic, engine, week=2, sessions=config.held_out_sessions)
    return Platform(world, (first, second), bundled, held_out)


def deployment_with(platform: Platform, relevance: RelevanceScorer | None) -> Deployment:
    """`relevance` at finerank behind the bundled model's recall and rawrank; None: the bundled model there too."""
    bundled = embedded_deployment(platform.world.catalogue, platform.bundled, default_spec())
    if relevance is None:
        return bundled
    signals = {**bundled.ranker.signals, "relevance": relevance}
    return Deployment(replace(bundled.ranker, signals=signals), bundled.spec)


def true_ndcg10(platform: Platform, relevance: RelevanceScorer | None) -> dict[str, float]:
    """nDCG@10 of the original-only ranking against hidden intents, by slice."""
    week = platform.held_out
    cascade = deployment_with(platform, relevance).cascade
    rows = cascade.search([q.text for q in week.queries], [None] * len(week)).rows
    values = ndcg10(platform.world, week.intents, rows)
    return {name: float(values[inside].mean()) for name, inside in truth_slices(week).items()}


def probed(platform: Platform, relevance: RelevanceScorer, instances: Sequence[TrainingInstance]) -> dict[str, Any]:
    """What adversarial rewrites earn under the default spec, and whether the ranker passes."""
    result = probe(instances[:_PROBED], deployment_with(platform, relevance).reward)
    return {"passed": result.passed, "mean_log_reward": {f.name: f.reward for f in result.findings}}


def measure(size: str, repository: Path | None) -> dict[str, Any]:
    """Train, break and measure all versions; keep them as a repository for `serve` where one is given."""
    config = miniature() if size == "miniature" else DemoConfig()
    steps = ProgressSteps(Console(stderr=True))
    with tempfile.TemporaryDirectory() as folder:
        platform = make_platform(config, Path(folder), steps)
    catalogue = platform.world.catalogue
    weeks = [window.impressions(catalogue) for window in platform.windows]
    instances = platform.windows[1].instances(catalogue, seed=config.seed)
    rankers: dict[str, ForeignRanker] = {}
    found: dict[str, Any] = {"bundled": {"ndcg10": true_ndcg10(platform, None)}}
    for version, impressions in {"1": weeks[0], "2": joined_impressions(weeks)}.items():
        with steps.step(f"train version {version}") as progress:
            start = process_time()
            rankers[version], report = train_ranker(catalogue, impressions, seed=config.seed, progress=progress)
            found[version] = {"cpu_seconds": process_time() - start, "impressions": len(impressions.rows), **asdict(report)}
    rankers |= {"3": break_ranker(rankers["2"], "repeats"), "4": break_ranker(rankers["2"], "pictures")}
    for version, ranker in rankers.items():
        with steps.step(f"measure version {version}"):
            blind = true_ndcg10(platform, ranker.bind(catalogue, use_picture=False))
            found.setdefault(version, {}).update(
                ndcg10=true_ndcg10(platform, ranker.bind(catalogue)), ndcg10_without_picture=blind,
                probe=probed(platform, ranker.bind(catalogue), instances),
            )  # fmt: skip
    if repository is not None:
        export_versions(rankers, repository)
    return {"documents": len(catalogue), "config": asdict(TrainingConfig()), "versions": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("miniature", "full"), default="full")
    parser.add_argument("--keep", type=Path, help="export all versions into this folder, for `serve`")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(chosen.size, chosen.keep)
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.is_file() else {}
    RESULTS.write_text(json.dumps(results | {chosen.size: found}, indent=1) + "\n", "utf-8")
    for version, row in found["versions"].items():
        without = row.get("ndcg10_without_picture", {}).get("all", float("nan"))
        paid = [name for name, value in row.get("probe", {}).get("mean_log_reward", {}).items() if value > 0.02]
        print(
            f"{version:8} nDCG@10 {row['ndcg10']['all']:.4f}, without pictures {without:.4f}, paid: {', '.join(paid) or 'none'}"
        )


if __name__ == "__main__":
    main()
