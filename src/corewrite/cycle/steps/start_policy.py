"""What a week's training begins from: the champion, fine-tuned on the week's reformulations; or a warm start."""

from dataclasses import asdict
from typing import cast

from corewrite.cycle.context import CycleContext
from corewrite.cycle.mined_week import MinedWindow
from corewrite.cycle.records import START_POLICY, StartPolicyRecord
from corewrite.cycle.recovery import shown_rate
from corewrite.cycle.steps.warm_start import warm_start, weekly_examples
from corewrite.deployment.deployment import Deployment
from corewrite.registry import Champion
from corewrite.rewriter import FineTuneReport, Rewriter, fine_tune, load_rewriter


def prepare_start_policy(cycle: CycleContext, window: MinedWindow, deployment: Deployment) -> Rewriter:
    """Make what training begins from, and keep it in the cycle's folder; what is there is not made again.

    Args:
        cycle: The cycle.
        window: The mined week.
        deployment: Recalls the words that examples are expanded by.
    """
    if cycle.journal.read(START_POLICY) is not None:
        return load_rewriter(cycle.folder.start)
    policy, about = _start(cycle, window, deployment)
    policy.save(cycle.folder.start)
    cycle.journal.once(START_POLICY, lambda: {"policy_hash": policy.policy_hash, **about})
    return load_rewriter(cycle.folder.start)


def _start(cycle: CycleContext, window: MinedWindow, deployment: Deployment) -> tuple[Rewriter, StartPolicyRecord]:
    if cycle.champion is None:
        return _warm_start(cycle, deployment)
    return _fine_tuned(cycle, cycle.champion, window, deployment)


def _warm_start(cycle: CycleContext, deployment: Deployment) -> tuple[Rewriter, StartPolicyRecord]:
    config = cycle.config
    with cycle.steps.step("warm start") as progress:
        mined = [w.reformulations() for w in cycle.mined_windows()]
        policy, made = warm_start(
            [r for successful, _ in mined for r in successful],
            [r for _, satisfied in mined for r in satisfied],
            deployment,
            config.pipeline.warm_start,
            seed=config.seed,
            model=config.model,
            progress=progress,
        )
    return policy, {"kinds": made.kinds, **({} if made.fit is None else _as_record(made.fit))}


def _fine_tuned(
    cycle: CycleContext, champion: Champion, window: MinedWindow, deployment: Deployment
) -> tuple[Rewriter, StartPolicyRecord]:
    policy, refresh, seed = cycle.policy(champion.policy), cycle.config.refresh, cycle.week_seed
    if not refresh.examples:
        return policy, {}
    with cycle.steps.step("fine-tune on the week's repairs") as progress:
        successful_reformulations, satisfied_queries = window.reformulations()
        examples = weekly_examples(
            successful_reformulations,
            satisfied_queries,
            deployment,
            refresh.examples,
            expanded_share=cycle.config.pipeline.warm_start.expanded_share,
            seed=seed,
        )
        rate = shown_rate(refresh.learning_rate, cycle.mitigations)
        report = fine_tune(policy, examples, epochs=1.0, seed=seed, learning_rate=rate, progress=progress)
    return policy, _as_record(report)


def _as_record(report: FineTuneReport) -> StartPolicyRecord:
    return cast(StartPolicyRecord, asdict(report))
