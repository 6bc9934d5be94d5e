"""From a verdict to an entry of the registry's log."""

from corewrite.gate import Verdict
from corewrite.registry import JSON, Candidate, ConflictError, Decision, Registry


def decide(
    registry: Registry, triple: Candidate, verdict: str, *, expected: int | None, reason: str, evidence: JSON
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
            verdict, reason = "hold", f"it passed against a champion that has gone since: {error}"
    return registry.record("reject" if verdict == Verdict.REJECT else "hold", triple, reason, evidence)
