"""From the gate's verdict to an entry of the registry's log, and the rollout of what is promoted."""

from functools import partial

from corewrite.cycle.context import CycleContext
from corewrite.cycle.decision_log import CANDIDATE, QUARANTINE_CANDIDATE, decide_once
from corewrite.cycle.records import TRAIN, GateRecord, as_json
from corewrite.cycle.steps.rollout import begin_rollout, rollout_lock
from corewrite.cycle.steps.validate_ranker import ValidatedRanker
from corewrite.gate import Verdict
from corewrite.registry import JSON, Candidate, ConflictError, Decision, Registry


def decide_candidate(cycle: CycleContext, candidate: str, ranker: ValidatedRanker, gate: GateRecord) -> Decision:
    """Promote the candidate and begin its rollout, or write down why not; a rejected one goes into quarantine.

    Args:
        cycle: The cycle.
        candidate: Hash of the policy.
        ranker: Relevance model and spec that it goes into production with, and the champion it was compared with.
        gate: What the gate said.
    """
    triple = Candidate(candidate, ranker.relevance, ranker.spec)
    wanted = cycle.promotion.verdict(Verdict(gate["verdict"]))
    provenance = as_json(cycle.journal.result(TRAIN)["provenance"])

    def enter(mark: dict[str, JSON]) -> Decision:
        evidence = {**mark, **as_json(gate), "provenance": provenance}
        return decide(cycle.registry, triple, wanted, expected=ranker.champion, reason=gate["reason"], evidence=evidence)

    with rollout_lock(cycle.config.run):
        decided = decide_once(cycle, CANDIDATE, enter)
        verdict = Verdict(decided.verdict)
        if verdict == Verdict.PROMOTE and decided.previous is not None:
            begin_rollout(cycle.config.run, decided, cycle.config.rollout)
    if verdict == Verdict.REJECT:
        quarantine = partial(cycle.registry.quarantine, "policy", candidate, gate["reason"])
        decide_once(cycle, QUARANTINE_CANDIDATE, quarantine)
    return decided


def decide(
    registry: Registry, triple: Candidate, verdict: Verdict, *, expected: int | None, reason: str, evidence: JSON
) -> Decision:
    """Promote a candidate, or write down why not.

    Args:
        registry: Where it is saved.
        triple: The candidate.
        verdict: The gate's.
        expected: Version of the champion when the work began, None where there was none. Where there is another by now, of a
            rollback or an override meanwhile, that stands, and the candidate, which was not compared with it, is held.
        reason: Why, in words.
        evidence: Why, in numbers.
    """
    if verdict == Verdict.PROMOTE:
        try:
            return registry.promote(triple, expected=expected, reason=reason, evidence=evidence)
        except ConflictError as error:
            verdict, reason = Verdict.HOLD, f"it passed against a champion that has gone since: {error}"
    return registry.record("reject" if verdict == Verdict.REJECT else "hold", triple, reason, evidence)
