"""The whole loop on the simulated platform, from an empty log to the results of two launches."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from corewrite.cycle import (
    fit_relevance,
    make_candidate,
    read_catalogue,
    read_labels,
    read_window,
    write_catalogue,
    write_labels,
)
from corewrite.deployment.deployment import Deployment, embedded_deployment
from corewrite.deployment.inputs import check_inputs
from corewrite.deployment.load import load_policy
from corewrite.deployment.served import served_rewrites
from corewrite.experiment import aa_check, read_launch
from corewrite.fusion import default_spec
from corewrite.registry import Registry
from corewrite.relevance import TreeJudge, cold_start
from corewrite.report.progress import ProgressSteps
from corewrite.report.report import render_report
from corewrite.rewriter import Rewriter
from corewrite.search import top_overlap
from corewrite.simulation.facts import stylised_facts
from corewrite.simulation.traffic import simulate_week
from corewrite.simulation.world import make_world
from corewrite.storage.durable import naming
from corewrite.storage.run_layout import RunLayout
from corewrite.studies.baselines import baseline_rewrites
from corewrite.studies.engine import NoRewriter
from corewrite.studies.platform import LAUNCHES, log_week, ratings, run_launch
from corewrite.studies.quickstart.config import DemoConfig
from corewrite.studies.raters import SimulatedRaters, read_descriptions
from corewrite.studies.summary import peak_rss_mib, summarise
from corewrite.studies.truth import before_and_after, measure, policy_ndcg10

_MARKER = ".corewrite-demo"


class DemoFolderError(ValueError):
    """A folder that the demo must not clear."""


@dataclass(frozen=True, eq=False)
class DemoResult:
    """A finished demo.

    Attributes:
        summary: What `summary.json` holds.
        report: Path of the HTML report.
    """

    summary: dict[str, Any]
    report: Path


def run_demo(
    config: DemoConfig, folder: Path, *, console: Console, model: str | None = None, with_launches: bool = True
) -> DemoResult:
    """Run the loop afresh in `folder` (what an earlier demo left there is removed).

    Args:
        config: Sizes and seed.
        folder: Where everything goes: documents, logs, registry, training run, report.
        console: For progress.
        model: Path or name of a causal LM to start from; None: a small decoder trained from scratch.
        with_launches: False stops before the A/B launches.

    Raises:
        InputError: the model is none, the folder cannot be written to, or a package is not installed.
        DemoFolderError: the folder holds something that no demo made.
    """
    check_inputs(model=model, writes=[folder], extras=["train", "report"])
    _clear(folder)
    seed, pipeline, traffic = config.seed, config.pipeline, config.traffic
    steps = ProgressSteps(console)
    logs = folder / "logs"

    with steps.step("build the platform"):
        world = make_world(config.seeded_world)
        write_catalogue(world.catalogue, folder / "documents.parquet")
        # From here on the documents are what the file says, as they would be for a user's own engine.
        catalogue = read_catalogue(folder / "documents.parquet")
        cold = embedded_deployment(catalogue, cold_start(catalogue, seed=seed), default_spec())
    with steps.step("week 0: searches, no model yet") as progress:
        week0, log0 = log_week(world, traffic, NoRewriter(cold.cascade), 0, config.sessions, logs, progress)
        earlier = read_window(log0, overlap=top_overlap(cold.cascade))
    with steps.step("fit the relevance model") as progress:
        relevance = fit_relevance(earlier, catalogue, seed=seed, progress=progress)
        deployment = embedded_deployment(catalogue, relevance.model, default_spec())
    with steps.step("rate results, fit the judge"):
        write_labels(ratings(world, week0, cold.cascade, config.rated_searches), catalogue, folder / "labels.parquet")
        judge = TreeJudge(catalogue)
        judge_report = judge.fit(read_labels(folder / "labels.parquet", catalogue), seed=seed)
    with steps.step("week 1: searches, original only") as progress:
        engine = NoRewriter(deployment.cascade)
        week1, log1 = log_week(world, traffic, engine, 1, config.sessions, logs, progress)
        window = read_window(log1, overlap=top_overlap(deployment.cascade), thresholds=earlier.outcomes.thresholds)
    held_out = simulate_week(world, traffic, engine, week=2, sessions=config.held_out_sessions)

    registry = Registry(RunLayout(folder).registry)
    shown = held_out.take(np.arange(0, len(held_out), max(1, len(held_out) // pipeline.watched_queries)))

    def observe(policy: Rewriter) -> dict[str, float]:
        return {"ndcg10": policy_ndcg10(world, shown, deployment, policy, pipeline.max_new_tokens)}

    # Launch 1 serves rewrites to finerank alone, and its policy is rewarded for that alone.
    finerank_only = Deployment(deployment.ranker, deployment.spec.with_rewrite_stages(LAUNCHES[0].treatment))
    raters = SimulatedRaters(world, read_descriptions([logs / "week-1.descriptions.parquet"]))
    run = make_candidate(
        earlier,
        window,
        finerank_only,
        judge,
        registry,
        pipeline,
        folder,
        seed=seed,
        steps=steps,
        model=model,
        raters=raters,
        observe=observe,
    )
    retraining = None
    if run.decision.verdict == "promote":
        # Launch 2 serves them to every stage: trained on from the champion, as a weekly cycle does, under the reward of all.
        training = pipeline.training.model_copy(update={"phases": max(1, pipeline.training.phases // 2)})
        retraining = make_candidate(
            earlier,
            window,
            deployment,
            judge,
            registry,
            pipeline.model_copy(update={"training": training}),
            folder / "launch-2",
            seed=seed + 1,
            steps=steps,
            start=run.candidate,
            raters=raters,
            observe=observe,
        )
    champion = run if retraining is None or retraining.decision.verdict != "promote" else retraining

    with steps.step("measure on a fresh week"):
        limit = pipeline.max_new_tokens
        systems = baseline_rewrites(deployment, held_out.queries)
        systems["warm_start"] = served_rewrites(run.warm, held_out.queries, max_new_tokens=limit)
        systems["champion"] = served_rewrites(champion.candidate, held_out.queries, max_new_tokens=limit)
        measured = measure(world, traffic, held_out, deployment, judge, systems)
        examples = before_and_after(world, held_out, deployment, measured)

    launches, aa = [], None
    if retraining is not None and with_launches:
        for launch, trained in zip(LAUNCHES, (run, champion), strict=True):
            candidate = trained.decision.candidate
            assert candidate is not None
            policy = load_policy(registry, candidate.policy)
            with steps.step(launch.name.split(":")[0]) as progress:
                table = run_launch(
                    world,
                    traffic,
                    launch,
                    deployment,
                    policy,
                    config.launch_sessions,
                    logs,
                    earlier.outcomes.thresholds,
                    max_new_tokens=limit,
                    progress=progress,
                )
                result = read_launch(launch.name, table, give_up_margin=config.give_up_margin)
                launches.append({"launch": launch.name, **result.as_dict()})
                if aa is None:
                    aa = aa_check(table, splits=config.aa_splits, seed=seed)
    of_all = measured.ndcg10["all"]
    facts = stylised_facts(world, week0, week1, window.endings(), of_all["oracle"] / of_all["original"] - 1)

    sizes = {"week 0": len(week0), "week 1": len(week1), "held out": len(held_out)}
    summary = summarise(seed, world, sizes, relevance, judge_report, run, retraining, measured, launches, aa)
    summary |= {"seconds": steps.seconds, "peak_rss_mib": peak_rss_mib()}
    details = {
        "start": run.start,
        "phases": list(run.training.records),
        "examples": examples,
        "facts": [asdict(fact) for fact in facts],
    }
    report = folder / "report.html"
    with naming(folder):
        for name, value in (("summary", summary), ("details", details)):
            (folder / f"{name}.json").write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", "utf-8")
        report.write_text(render_report(summary, details), "utf-8")
    return DemoResult(summary, report)


def _clear(folder: Path) -> None:
    """Make an empty folder, removing only what a demo made."""
    marker = folder / _MARKER
    if folder.exists() and any(folder.iterdir()):
        if not marker.is_file():
            raise DemoFolderError(f"{folder} holds something that no demo made: give another folder with --out")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    marker.touch()
