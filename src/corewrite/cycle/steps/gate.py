"""Compare the week's candidate with the champion."""

from dataclasses import replace
from typing import cast

from corewrite.cycle.context import CycleContext
from corewrite.cycle.records import GATE, GateRecord, RankerHashes
from corewrite.cycle.steps.gate_searches import gate_searches
from corewrite.cycle.weeks import CycleError
from corewrite.domain.filters import load_filters
from corewrite.evaluation.build import evaluate
from corewrite.evaluation.searches import OF_A_WARM_START
from corewrite.gate import GateResult, refuse, run_gate
from corewrite.logs import read_evaluation_instances
from corewrite.registry import RegistryError
from corewrite.rewriter import RewriterError, load_rewriter


def gate_candidate(cycle: CycleContext, candidate: str, ranker: RankerHashes) -> GateRecord:
    """Compare the candidate with the champion, or with the warm start where there is none.

    Args:
        cycle: The cycle.
        candidate: Hash of the policy.
        ranker: Relevance model and spec that both rank under.

    Raises:
        CycleError: the log gives nothing to compare on.
        GradesAwaitedError: raters have not graded enough yet.
    """
    return cycle.journal.once(GATE, lambda: cast(GateRecord, _gate(cycle, candidate, ranker).as_dict()))


def _gate(cycle: CycleContext, candidate: str, ranker: RankerHashes) -> GateResult:
    config, champion = cycle.config.pipeline, cycle.champion
    deployment, start = cycle.deployment(ranker.relevance, ranker.spec), load_rewriter(cycle.folder.start)
    baseline = start if champion is None else cycle.policy(champion.policy)
    frozen = read_evaluation_instances(cycle.config.frozen)
    searches = gate_searches(
        cycle.mined_windows(),
        cycle.documents,
        frozen,
        limit=config.gate_queries,
        seed=cycle.config.seed,
        filters=load_filters(config.filters),
    )
    if champion is None:
        searches = replace(searches, successful_reformulations=OF_A_WARM_START)
    if not searches.fresh:
        raise CycleError(f"the log of {cycle.week!r} gives no instance of a gate user: bring a longer log")
    try:
        policy = cycle.policy(candidate)
    except (RegistryError, RewriterError, OSError) as error:
        return refuse(str(error))
    with cycle.steps.step("gate") as progress:
        evaluation = evaluate(
            policy,
            baseline,
            searches,
            deployment,
            cycle.judge,
            max_new_tokens=config.max_new_tokens,
            recent=cycle.recent_champions(),
            lineage=cycle.first_champion(),
            reference=start,
            baseline_name="warm start" if champion is None else "champion",
            grading=cycle.grading,
            progress=progress,
        )
        return run_gate(evaluation, cycle.config.gate, holds=cycle.plan["holds"])
