"""After the decision: go back to the relevance model and spec before, where the reward is suspected, and close the week."""

from functools import partial

from corewrite.cycle.context import CycleContext
from corewrite.cycle.decision_log import RECOVER, decide_once, quarantine_suspected
from corewrite.cycle.records import RELEVANCE, TRAIN, GateRecord, RankerHashes, WeekRecord
from corewrite.cycle.recovery import stuck, suspicious
from corewrite.cycle.steps.close import close_week, summarise_traffic
from corewrite.cycle.steps.rollout import carry_rollout, rollout_lock
from corewrite.cycle.steps.validate_ranker import ValidatedRanker
from corewrite.gate import Verdict
from corewrite.registry import JSON, Candidate, Decision, Kind


def recover(cycle: CycleContext, candidate: str, ranker: ValidatedRanker, gate: GateRecord, decided: Decision) -> WeekRecord:
    """Close the week; after REJECTs in a row put the previous relevance model and spec back.

    Args:
        cycle: The cycle.
        candidate: Hash of the policy.
        ranker: Relevance model and spec of the week.
        gate: What the gate said.
        decided: What the registry wrote down.

    Returns:
        The week's record.
    """
    verdict = Verdict(decided.verdict)
    record: WeekRecord = {
        "week": cycle.week,
        "verdict": verdict,
        "reason": decided.reason,
        "failed": gate["failed"],
        "mitigations": gate["mitigations"] if verdict == Verdict.REJECT else [],
        "mitigations_applied": cycle.plan["mitigations"],
        "candidate": candidate,
        "relevance": ranker.relevance,
        "spec": ranker.spec,
        "relevance_fitted": bool(cycle.journal.result(RELEVANCE)["fitted"]),
        "alarms": list(ranker.alarms),
        "recovered": False,
        "traffic": summarise_traffic(cycle),
        "labels": cycle.labels,
        "provenance": cycle.journal.result(TRAIN)["provenance"],
    }
    weeks = [*cycle.history, record]
    record["alarms"] += stuck(weeks, cycle.config.recovery.alarm_after)
    usable = partial(is_usable, cycle)
    previous = cycle.promotion.previous_ranker(lambda: suspicious(weeks, cycle.config.recovery.suspect_after, usable))
    if previous is not None:
        record = rollback_ranker(cycle, record, previous)
    champion = cycle.registry.champion()
    record["policy"] = None if champion is None else champion.policy
    return close_week(cycle, record)


def rollback_ranker(cycle: CycleContext, record: WeekRecord, previous: RankerHashes) -> WeekRecord:
    """Put the previous relevance model and spec back under the champion, and quarantine the suspected ones.

    Args:
        cycle: The cycle.
        record: Of the week, under the suspected ones.
        previous: What to go back to.

    Returns:
        The record after it.
    """
    under = [r for r in cycle.history if (r["relevance"], r["spec"]) == (record["relevance"], record["spec"])]
    why = (
        f"{1 + sum(r['verdict'] == Verdict.REJECT for r in under)} candidates were rejected under relevance model "
        f"{record['relevance'][:12]} and spec {record['spec'][:12]}, none was promoted but under mitigations: the ones "
        "before are back in ranker and reward"
    )
    with rollout_lock(cycle.config.run):
        champion = cycle.registry.champion()
        if champion is None:
            return record
        triple = Candidate(champion.policy, previous.relevance, previous.spec)
        expected = champion.version

        def promote(evidence: dict[str, JSON]) -> Decision:
            return cycle.registry.promote(
                triple, expected=expected, reason=why, evidence={**evidence, "failed": record["failed"]}
            )

        if triple.hashes != champion.hashes:  # else a rollback has put them back already
            carry_rollout(cycle.config.run, decide_once(cycle, RECOVER, promote))
    suspected: list[tuple[Kind, str, str]] = [
        ("relevance", record["relevance"], previous.relevance),
        ("spec", record["spec"], previous.spec),
    ]
    for kind, now, before in suspected:
        if now != before:
            decide_once(cycle, quarantine_suspected(kind), partial(cycle.registry.quarantine, kind, now, why))
    return {
        **record,
        "relevance": previous.relevance,
        "spec": previous.spec,
        "alarms": [*record["alarms"], why],
        "recovered": True,
    }


def is_usable(cycle: CycleContext, record: WeekRecord) -> bool:
    """Whether a week's relevance model and spec are neither collected nor quarantined.

    Args:
        cycle: The cycle.
        record: Of the week.
    """
    there = {(a.kind, a.hash) for a in cycle.registry.artifacts()}
    wanted: list[tuple[Kind, str]] = [("relevance", record["relevance"]), ("spec", record["spec"])]
    return all((kind, hash) in there and hash not in cycle.quarantined(kind) for kind, hash in wanted)
