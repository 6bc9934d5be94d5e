"""The rule: promote, hold or reject."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Literal

from corewrite.gate.check import Check, Estimate, Kind
from corewrite.gate.checks import CHECKS
from corewrite.gate.config import GateConfig
from corewrite.gate.evaluation import Evaluation
from corewrite.gate.hard_checks import hard_failure
from corewrite.gate.resampling import Resampling, holm

_LOG = logging.getLogger(__name__)
_FAMILY_LEVEL = 0.05


class Verdict(StrEnum):
    """What becomes of the candidate."""

    PROMOTE = "promote"
    HOLD = "hold"
    REJECT = "reject"


@dataclass(frozen=True)
class CheckResult:
    """One line of the gate's report; numbers are None where the check could not be computed.

    Attributes:
        name: Name of the check.
        question: What it asks, in words.
        kind: "reward", "guardrail" or "report".
        candidate: The metric of the candidate.
        champion: The metric of what it is compared with: the champion, or what the reason names.
        difference: D, signed so that higher is better.
        low: L, lower one-sided 97.5 % bound of D.
        high: U, upper one-sided 97.5 % bound of D.
        margin: m.
        n: On how many queries.
        p_value: One-sided, of H0: D is at least -m; not adjusted.
        verdict: "pass" (L above -m), "fail" (U below -m and the Holm-adjusted p-value at most 5 %),
            "unclear" or "error".
        reason: Why, with the numbers.
    """

    name: str
    question: str
    kind: Kind
    candidate: float | None
    champion: float | None
    difference: float | None
    low: float | None
    high: float | None
    margin: float
    n: int
    p_value: float | None
    verdict: Literal["pass", "unclear", "fail", "error"]
    reason: str

    def as_dict(self) -> dict[str, object]:
        """The fields as a plain dictionary for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class GateResult:
    """The verdict and what led to it.

    Attributes:
        verdict: PROMOTE, HOLD or REJECT.
        reason: One sentence with the deciding check and its numbers.
        users: Number of users evaluated.
        queries: Number of queries evaluated.
        checks: One result per check; empty where a hard check failed or users were too few to compare.
    """

    verdict: Verdict
    reason: str
    users: int
    queries: int
    checks: tuple[CheckResult, ...]

    def as_dict(self) -> dict[str, object]:
        """The fields as a plain dictionary for JSON."""
        return {
            "verdict": self.verdict.value,
            "reason": self.reason,
            "users": self.users,
            "queries": self.queries,
            "checks": [check.as_dict() for check in self.checks],
        }


def run_gate(evaluation: Evaluation, config: GateConfig = GateConfig()) -> GateResult:
    """Decide on a candidate (design section 6).

    - PROMOTE: the reward's L > 0 and every guardrail's L > -m. All must hold, so none needs a correction
      (intersection-union).
    - REJECT: a hard check failed, or some guardrail's U < -m and its p-value is at most 5 % after Holm over
      the reward and all guardrails; a check that could not be computed counts in that family as p = 1.
    - HOLD: everything else, with fewer users than the minimum, missing data and errors in a check among it.

    Args:
        evaluation: Candidate and champion on the same queries.
        config: Margins and resamples.

    Returns:
        The verdict with every check. The same evaluation and config give the same result.
    """
    users, queries = len(set(evaluation.user_ids)), len(evaluation)
    failure = hard_failure(evaluation)
    if failure is not None:
        return GateResult(Verdict.REJECT, failure, users, queries, ())
    if users < config.minimum_users:
        reason = f"{users} users were evaluated, the gate needs {config.minimum_users}: evaluate more."
        return GateResult(Verdict.HOLD, reason, users, queries, ())
    resampling = Resampling.draw(
        evaluation.user_ids, resamples=config.resamples, subsamples=config.subsamples, seed=config.seed
    )
    checks = [check(config) for check in CHECKS.values()]
    found = [_estimate(check, evaluation, resampling) for check in checks]
    deciding = [i for i, check in enumerate(checks) if check.kind != "report"]
    adjusted = dict(zip(deciding, holm([_p_value(found[i]) for i in deciding]).tolist(), strict=True))
    results = tuple(
        _error(check, estimate) if isinstance(estimate, str) else _result(check, estimate, adjusted.get(i))
        for i, (check, estimate) in enumerate(zip(checks, found, strict=True))
    )
    verdict, reason = _decide(results)
    return GateResult(verdict, reason, users, queries, results)


def _estimate(check: Check, evaluation: Evaluation, resampling: Resampling) -> Estimate | str:
    """What the check found, or why it could not be computed."""
    try:
        return check.compute(evaluation, resampling)
    except Exception as error:  # A broken check must hold the candidate back, not stop the weekly cycle.
        _LOG.warning("gate check %s could not be computed", check.name, exc_info=True)
        return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _p_value(estimate: Estimate | str) -> float:
    return 1.0 if isinstance(estimate, str) else estimate.bounds.p_value


def _error(check: Check, reason: str) -> CheckResult:
    return CheckResult(
        check.name, check.question, check.kind, None, None, None, None, None, check.margin, 0, None, "error",
        reason,
    )  # fmt: skip


def _result(check: Check, estimate: Estimate, adjusted: float | None) -> CheckResult:
    """The result of a check; `adjusted` is its p-value after Holm, None for a report."""
    limits, limit = estimate.bounds, -check.margin
    numbers = (
        f"candidate {estimate.candidate:.4g}, {check.baseline} {estimate.baseline:.4g}, "
        f"D {estimate.difference:+.4g} in [{limits.low:+.4g}, {limits.high:+.4g}]"
    )
    wanted = f"{limit:.4g}" if check.margin else "0"
    verdict: Literal["pass", "unclear", "fail"]
    if limits.low > limit:
        verdict, reason = "pass", f"{numbers}, above {wanted}"
    elif limits.high >= limit:
        verdict, reason = "unclear", f"{numbers}, neither above nor below {wanted}"
    elif adjusted is not None and adjusted > _FAMILY_LEVEL:
        verdict, reason = "unclear", f"{numbers}, below {wanted} but not by Holm (adjusted p {adjusted:.2g})"
    else:
        after = f" (adjusted p {adjusted:.2g})" if adjusted is not None else ""
        verdict, reason = "fail", f"{numbers}, below {wanted}{after}"
    if estimate.note:
        reason += f"; {estimate.note}"
    return CheckResult(
        check.name, check.question, check.kind, estimate.candidate, estimate.baseline, estimate.difference,
        limits.low, limits.high, check.margin, estimate.n, limits.p_value, verdict, reason,
    )  # fmt: skip


def _decide(results: Sequence[CheckResult]) -> tuple[Verdict, str]:
    deciding = [r for r in results if r.kind != "report"]
    failed = [r for r in deciding if r.kind == "guardrail" and r.verdict == "fail"]
    if failed:
        worst = min(failed, key=lambda r: r.p_value if r.p_value is not None else 1.0)
        others = [r.name for r in failed if r is not worst]
        also = f" (so do {', '.join(others)})" if others else ""
        return Verdict.REJECT, f"{worst.name} fails{also}: {worst.reason}."
    for verdict, says in (("error", "could not be computed"), ("fail", "falls"), ("unclear", "is unclear")):
        held = [r for r in deciding if r.verdict == verdict]
        if held:
            others = [r.name for r in held[1:]]
            also = f" (so with {', '.join(others)})" if others else ""
            return Verdict.HOLD, f"{held[0].name} {says}{also}: {held[0].reason}."
    reward = next(r for r in deciding if r.kind == "reward")
    guardrails = len(deciding) - 1
    return Verdict.PROMOTE, f"{reward.name} rises and all {guardrails} guardrails pass: {reward.reason}."
