"""The gate on a candidate by itself, and margins from retrains of the champion: nothing here decides in the registry."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from corewrite.cycle.config import CycleConfig
from corewrite.cycle.finished_week import FinishedWeek
from corewrite.cycle.mined_week import MinedWindow, with_documents
from corewrite.cycle.records import MINE, TRAIN
from corewrite.cycle.steps.gate_searches import gate_searches
from corewrite.cycle.training_run import run_training
from corewrite.cycle.weeks import CycleError
from corewrite.deployment.load import first_champion, load_policy, recent_champions
from corewrite.domain import Provenance
from corewrite.domain.filters import NO_FILTERS, RewriteFilters, load_filters
from corewrite.domain.steps import Steps
from corewrite.evaluation.build import OF_NO_LINEAGE, evaluate
from corewrite.gate import Absent, GateResult, refuse, run_gate
from corewrite.gate.calibrate import MarginCalibration, calibrate
from corewrite.logs import read_evaluation_instances
from corewrite.registry import JSON, Registry, RegistryError
from corewrite.rewriter import Rewriter, RewriterError, load_rewriter
from corewrite.storage.run_layout import RunLayout
from corewrite.training import TrainingConfig
from corewrite.version import VERSION


class _Bench(FinishedWeek):
    """A finished week, to gate on."""

    @property
    def start(self) -> Path:
        """Folder of what the week's training began from."""
        return RunLayout(self.config.run).cycle(self.week).start

    def gate(
        self,
        candidate: Rewriter,
        steps: Steps,
        title: str,
        *,
        reference: Rewriter | Absent,
        recent: Sequence[Rewriter] = (),
        lineage: Rewriter | Absent,
        filters: RewriteFilters = NO_FILTERS,
    ) -> GateResult:
        """Compare with the champion on the week's searches and the frozen set, in the slices that the cycle has."""
        pipeline, champion = self.config.pipeline, load_policy(self.registry, self.champion.policy)
        layout, left_out = RunLayout(self.config.run), self.window.left_out
        windows = [MinedWindow(layout.window(name), left_out) for name in self.journal.result(MINE)["windows"]]
        frozen = read_evaluation_instances(self.config.frozen)
        searches = gate_searches(
            windows, self.documents, frozen, limit=pipeline.gate_queries, seed=self.config.seed, filters=filters
        )
        with steps.step(title) as progress:
            evaluation = evaluate(
                candidate,
                champion,
                searches,
                self.deployment,
                self.judge,
                max_new_tokens=pipeline.max_new_tokens,
                recent=recent,
                lineage=lineage,
                reference=reference,
                progress=progress,
            )
            return run_gate(evaluation, self.config.gate)


def gate_candidate(
    config: CycleConfig, candidate: str, week: str | None, *, steps: Steps
) -> tuple[GateResult, dict[str, JSON]]:
    """Compare a candidate with the champion, under the champion's relevance model and spec.

    Args:
        config: Settings of the cycle.
        candidate: Hash of a policy in the registry, or its beginning; or the folder of a rewriter.
        week: Whose gate searches; None: the last finished one's.
        steps: Shows progress.

    Returns:
        The result, and what it is about: candidate, champion, week, provenance.

    Raises:
        CycleError: no champion, or no such week.
        RegistryError: there is no such policy; one that is damaged or does not load is a REJECT.
    """
    folder, filters = Path(candidate).is_dir(), load_filters(config.pipeline.filters)
    registry, name = Registry(RunLayout(config.run).registry), candidate
    if not folder and registry.champion() is not None:
        name = registry.find(candidate, "policy").hash  # before the minutes that all else takes
    bench = _Bench(config, week)
    try:
        policy = load_rewriter(Path(candidate)) if folder else load_policy(bench.registry, name)
    except (RegistryError, RewriterError, OSError) as error:
        result = refuse(str(error))
    else:
        now, last = bench.champion.policy, bench.history[-config.recovery.recent_weeks :]
        recent = recent_champions(bench.registry, last, now)
        of_week = name == bench.journal.result(TRAIN)["policy"] and bench.start.is_dir()
        result = bench.gate(
            policy,
            steps,
            "gate",
            recent=recent,
            lineage=first_champion(bench.registry, now) or OF_NO_LINEAGE,
            reference=load_rewriter(bench.start) if of_week else Absent(f"the candidate is not what {bench.week} trained"),
            filters=filters,
        )
    deployed = bench.deployment
    provenance = Provenance(VERSION, bench.window.span, deployed.spec.spec_hash, deployed.model_hash, config.seed)
    return result, {
        "candidate": name,
        "champion": bench.champion.policy,
        "week": bench.week,
        "provenance": provenance.as_dict(),
        "code_version": VERSION,
    }


def calibrate_margins(config: CycleConfig, retrains: int, week: str | None, *, steps: Steps) -> MarginCalibration:
    """Margins from policies trained as the champion was, with other seeds.

    All are compared on the same searches, as the gate's candidates will be; the seed of training is what differs.

    Args:
        config: Settings; its margins are the business limits, which calibration only narrows.
        retrains: How many, at least 10.
        week: Which week's training is repeated; None: the one that made the champion.
        steps: Shows progress.

    Raises:
        CycleError: no champion, no finished week made it, or the week's start policy is gone.
        ValueError: too few retrains.
    """
    bench = _Bench(config, week)
    if week is None:
        made = [r["week"] for r in bench.history if r["candidate"] == bench.champion.policy]
        if not made:
            raise CycleError(f"no finished week of {config.run} made its champion: name the week to repeat with --week")
        bench = _Bench(config, made[-1])
    if not bench.start.is_dir():
        raise CycleError(f"{bench.start} is gone, so the week's training cannot be repeated: name another with --week")
    instances, results = with_documents(bench.window.instances(), bench.documents), []
    reference, lineage = load_rewriter(bench.start), Absent("retrains are compared with the champion alone")
    training = TrainingConfig.model_validate(bench.journal.result(TRAIN)["settings"])  # mitigations included
    pipeline = config.pipeline.model_copy(update={"training": training, "trackers": ()})
    for number in range(retrains):
        seed = config.seed + 7_919 * (number + 1)
        with steps.step(f"retrain {number + 1} of {retrains}"), tempfile.TemporaryDirectory() as folder:
            start, reward = load_rewriter(bench.start), bench.deployment.reward
            policy, _ = run_training(start, instances, reward, pipeline, Path(folder), seed=seed, provenance={})
        title = f"gate on retrain {number + 1}"
        results.append(bench.gate(policy, steps, title, reference=reference, lineage=lineage))
    return calibrate(results, business=config.pipeline.gate.margins)
