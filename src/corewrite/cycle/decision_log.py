"""A cycle's decisions in the registry's log: each is marked with week and step, and taken once however often it is killed."""

from collections.abc import Callable, Mapping

from corewrite.cycle.context import CycleContext
from corewrite.registry import JSON, Decision, Kind

CANDIDATE, VALIDATE_RANKER, RECOVER = "candidate", "settle", "recover"
"""Marks of the steps, as they are in the evidence of decisions since the first version: never to be changed."""
QUARANTINE_CANDIDATE = "quarantine"


def quarantine_refused(kind: Kind) -> str:
    """Mark of the quarantine of a relevance model or spec that was refused."""
    return f"refuse {kind}"


def quarantine_suspected(kind: Kind) -> str:
    """Mark of the quarantine of a relevance model or spec that is suspected after REJECTs."""
    return f"suspect {kind}"


def decide_once(cycle: CycleContext, step: str, decide: Callable[[dict[str, JSON]], Decision]) -> Decision:
    """Take a decision, unless the registry's log says that this cycle has taken it; returns it.

    Args:
        cycle: Whose decision it is.
        step: Its mark.
        decide: Takes it; is given the mark, to be part of the evidence.
    """
    mark: dict[str, JSON] = {"cycle": cycle.week, "step": step}
    # Of a cycle of this week that was begun anew only what came since: the journal that was removed had decided otherwise.
    for decision in reversed(cycle.registry.decisions()[cycle.plan.get("log", 0) :]):
        found = decision.evidence
        if isinstance(found, Mapping) and all(found.get(k) == v for k, v in mark.items()):
            return decision
    return decide(mark)
