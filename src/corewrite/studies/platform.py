"""Runs of the simulated platform: weeks of traffic as files, ratings, launches."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from corewrite.cycle import fit_relevance, read_window, write_catalogue
from corewrite.deployment.deployment import Deployment, embedded_deployment
from corewrite.domain.steps import Steps
from corewrite.experiment import CONTROL, TREATMENT, assign
from corewrite.fusion import default_spec
from corewrite.logs import SatisfactionThresholds
from corewrite.relevance import Labels, cold_start
from corewrite.rewriter import Rewriter
from corewrite.search import Cascade, top_overlap
from corewrite.simulation.config import TrafficConfig, WorldConfig
from corewrite.simulation.export import write_log, write_signals
from corewrite.simulation.facts import Fact, stylised_facts
from corewrite.simulation.raters import DRAWS, rate, searchers_descriptions, write_descriptions
from corewrite.simulation.traffic import simulate_week
from corewrite.simulation.week import Engine, Week
from corewrite.simulation.world import World, make_world
from corewrite.studies.engine import ArmsEngine, NoRewriter
from corewrite.studies.truth import oracle_gain

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Launch:
    """An A/B launch: two specs under one policy.

    Attributes:
        name: What is launched.
        week: When.
        control, treatment: Stages that use the rewrite in each arm.
    """

    name: str
    week: int
    control: tuple[str, ...]
    treatment: tuple[str, ...]

    def salt(self, seed: int) -> str:
        """What splits the users of the world under `seed`.

        All worlds name their users alike, so that one salt for all would toss a single coin for the equal names of several
        worlds: pooled, their split would look far less even than it is. Seed 0 keeps the salt it always had, and its figures.
        """
        return self.name if seed == 0 else f"{self.name}, seed {seed}"


LAUNCHES = (
    Launch("launch 1: finerank against no rewriter", 3, (), ("finerank",)),
    Launch("launch 2: all stages against finerank", 4, ("finerank",), ("recall", "rawrank", "finerank")),
)


def log_week(
    world: World, traffic: TrafficConfig, engine: Engine, week: int, sessions: int, folder: Path, progress: Progress
) -> tuple[Week, Path]:
    """Simulate a week and write its log and signals; returns the week and the log's path."""
    happened = simulate_week(world, traffic, engine, week=week, sessions=sessions, progress=progress)
    path = folder / f"week-{week}.ndjson.gz"
    write_log(happened, world.catalogue, path)
    write_signals(happened, world.catalogue, folder / f"week-{week}.signals.parquet")
    write_descriptions(world, happened, folder / f"week-{week}.descriptions.parquet")
    return happened, path


def ratings(world: World, week: Week, cascade: Cascade, searches: int) -> Labels:
    """Raters' grades for some searches of a week.

    Pooled over simple systems, as evaluation campaigns do: the heads of the lists for the query, for the query behind the
    session's last one, and behind the title watched last, and a few random documents.
    """
    rng = np.random.default_rng([world.config.seed, 42])
    chosen = np.sort(rng.choice(len(week), min(searches, len(week)), replace=False))
    queries = [week.queries[i] for i in chosen]
    systems = (
        ([q.text for q in queries], 8),
        ([" ".join((*q.context.queries[-1:], q.text)) for q in queries], 5),
        ([" ".join((*q.context.titles[-1:], q.text)) for q in queries], 5),
    )
    pools = [cascade.search(texts, [None] * len(texts), depth).rows for texts, depth in systems]
    pools.append(rng.integers(0, len(world.catalogue), (len(chosen), 3)))
    rows = np.concatenate(pools, 1)
    draws = np.random.default_rng([world.config.seed, week.week, 41]).random((*rows.shape, DRAWS))
    given = rate(world, searchers_descriptions(world, week.take(chosen)), rows, draws)
    used = rows >= 0
    return Labels([queries[i] for i in np.repeat(np.arange(len(queries)), used.sum(1))], rows[used], given[used])


def run_launch(
    world: World,
    traffic: TrafficConfig,
    launch: Launch,
    deployment: Deployment,
    policy: Rewriter,
    sessions: int,
    folder: Path,
    thresholds: SatisfactionThresholds | None,
    *,
    max_new_tokens: int,
    progress: Progress,
) -> pa.Table:
    """Serve a launch to fresh traffic, write its log, and read it back: one row per search, for `read_launch`."""
    specs = {CONTROL: launch.control, TREATMENT: launch.treatment}
    full = deployment.spec
    cascades = {arm: deployment.cascade.with_spec(full.with_rewrite_stages(stages)) for arm, stages in specs.items()}
    engine = ArmsEngine(cascades, policy, max_new_tokens)
    salt = launch.salt(world.config.seed)
    week = simulate_week(
        world,
        traffic,
        engine,
        week=launch.week,
        sessions=sessions,
        assign_arm=lambda user: assign(user, salt),
        progress=progress,
    )
    path = folder / f"launch-{launch.name[7]}.ndjson.gz"
    write_log(week, world.catalogue, path, {"launch": launch.name, "policy": policy.policy_hash, "spec": full.spec_hash})
    window = read_window(path, overlap=top_overlap(deployment.cascade), thresholds=thresholds)
    return window.outcomes.to_arrow()


def two_weeks(seed: int, sessions: int, folder: Path | None, steps: Steps) -> list[Fact]:
    """Two weeks served by original signals alone (a cold start, then a fitted model): their stylised facts, and their files.

    Args:
        seed: The one seed.
        sessions: Of each week.
        folder: Where documents, logs and signals are kept; None: nowhere.
        steps: Shows progress.
    """
    with tempfile.TemporaryDirectory() as temporary:
        place = folder or Path(temporary)
        with steps.step("build the platform"):
            world = make_world(WorldConfig(seed=seed))
            write_catalogue(world.catalogue, place / "documents.parquet")
            cold = embedded_deployment(world.catalogue, cold_start(world.catalogue, seed=seed), default_spec())
        with steps.step("week 0") as progress:
            week0, log0 = log_week(world, TrafficConfig(), NoRewriter(cold.cascade), 0, sessions, place / "logs", progress)
            earlier = read_window(log0, overlap=top_overlap(cold.cascade))
        with steps.step("fit the relevance model") as progress:
            model = fit_relevance(earlier, world.catalogue, seed=seed, progress=progress).model
            deployment = embedded_deployment(world.catalogue, model, default_spec())
            engine = NoRewriter(deployment.cascade)
        with steps.step("week 1") as progress:
            week1, log1 = log_week(world, TrafficConfig(), engine, 1, sessions, place / "logs", progress)
            window = read_window(log1, overlap=top_overlap(cold.cascade), thresholds=earlier.outcomes.thresholds)
        with steps.step("oracle rewrites") as progress:
            some = week1.take(np.arange(0, len(week1), max(1, len(week1) // 5_000)))
            gain = oracle_gain(world, TrafficConfig(), some, deployment)
        return stylised_facts(world, week0, week1, window.endings(), gain)
