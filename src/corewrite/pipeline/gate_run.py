"""The gate on a candidate by itself, and margins from retrains of the champion: nothing here decides in the registry."""

import tempfile
from pathlib import Path
from typing import Any

from corewrite.domain import Provenance
from corewrite.gate import GateResult, refuse, run_gate
from corewrite.gate.calibrate import Calibration, calibrate
from corewrite.logs import read_evaluation_instances
from corewrite.pipeline.candidate import Steps
from corewrite.pipeline.cycle import CycleError, fitted_judge, history_of
from corewrite.pipeline.cycle_config import CycleConfig
from corewrite.pipeline.deployment import Deployment
from corewrite.pipeline.documents import read_catalogue
from corewrite.pipeline.from_registry import deployment_of, policy_of
from corewrite.pipeline.gate_step import evaluate
from corewrite.pipeline.mined import MinedWindow
from corewrite.registry import Champion, Registry, RegistryError
from corewrite.rewriter import Rewriter, RewriterError, load_rewriter
from corewrite.training import train
from corewrite.version import VERSION


class _Bench:
    """The champion, what it ranks under, and the searches of a finished week."""

    def __init__(self, config: CycleConfig, week: str | None) -> None:
        self.config = config
        self.registry = Registry(config.run / "registry")
        champion, weeks = self.registry.champion(), [r["week"] for r in history_of(config.run)]
        if champion is None or not weeks:
            raise CycleError(f"{config.run} has no champion or no finished cycle: run `corewrite cycle run` first")
        self.champion: Champion = champion
        self.week = week or weeks[-1]
        if self.week not in weeks:
            raise CycleError(f"{self.week!r} is no finished week of {config.run}; there are {', '.join(weeks[-5:])}")
        self.window = MinedWindow(config.run / "windows" / self.week)
        catalogue = read_catalogue(config.documents)
        self.deployment: Deployment = deployment_of(self.registry, catalogue, champion.relevance, champion.spec)
        self.judge = fitted_judge(config.labels.absolute(), config.documents.absolute(), config.seed)

    def gate(self, candidate: Rewriter, steps: Steps, title: str) -> GateResult:
        """Compare with the champion on the week's searches and the frozen set."""
        pipeline, champion = self.config.pipeline, policy_of(self.registry, self.champion.policy)
        with steps.step(title) as progress:
            evaluation = evaluate(
                candidate, champion, self.window.for_gate(pipeline.gate_queries), self.deployment,
                self.judge, self.window.frequency(), frozen=read_evaluation_instances(self.config.frozen),
                repaired=self.window.gate_repairs(), max_new_tokens=pipeline.max_new_tokens, progress=progress,
            )  # fmt: skip
            return run_gate(evaluation, self.config.gate)


def gate_candidate(
    config: CycleConfig, candidate: str, week: str | None, *, steps: Steps
) -> tuple[GateResult, dict[str, Any]]:  # fmt: skip
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
    bench = _Bench(config, week)
    folder = Path(candidate).is_dir()
    name = candidate if folder else bench.registry.find(candidate, "policy").hash
    try:
        policy = load_rewriter(Path(candidate)) if folder else policy_of(bench.registry, name)
    except (RegistryError, RewriterError, OSError) as error:
        result = refuse(str(error))
    else:
        result = bench.gate(policy, steps, "gate")
    deployed = bench.deployment
    provenance = Provenance(VERSION, bench.window.span, deployed.spec.spec_hash, deployed.model.model_hash, config.seed)
    return result, {
        "candidate": name,
        "champion": bench.champion.policy,
        "week": bench.week,
        "provenance": provenance.as_dict(),
        "code_version": VERSION,
    }


def calibrate_margins(config: CycleConfig, retrains: int, week: str | None, *, steps: Steps) -> Calibration:
    """Margins from policies trained as the week's candidate was, with other seeds.

    All are compared on the same searches, as the gate's candidates will be; the seed of training is what differs.

    Args:
        config: Settings; its margins are the business limits, which calibration only narrows.
        retrains: How many, at least 10.
        week: Which week's training is repeated; None: the last one's.
        steps: Shows progress.

    Raises:
        CycleError: no champion, or the week's start policy is gone.
        ValueError: too few retrains.
    """
    bench = _Bench(config, week)
    start = config.run / "cycles" / bench.week / "start"
    if not start.is_dir():
        raise CycleError(f"{start} is gone, so the week's training cannot be repeated: name another with --week")
    instances, results = bench.window.instances(), []
    for number in range(retrains):
        policy = load_rewriter(start)
        with steps.step(f"retrain {number + 1} of {retrains}"), tempfile.TemporaryDirectory() as folder:
            train(
                policy, instances, bench.deployment.reward, config.pipeline.training, Path(folder),
                seed=config.seed + 7_919 * (number + 1), provenance={},
            )  # fmt: skip
        results.append(bench.gate(policy, steps, f"gate on retrain {number + 1}"))
    return calibrate(results, business=config.pipeline.gate.margins)
