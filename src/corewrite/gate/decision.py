"""The decision rule: promote, hold or reject."""

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Literal

import numpy as np

from corewrite.gate.bounds import Bounds, effective_users, holm
from corewrite.gate.check import Check, Estimate, Kind
from corewrite.gate.checks import CHECKS
from corewrite.gate.config import GateConfig
from corewrite.gate.evaluation import CHAMPION, Evaluation, NotApplicableError, NotGivenError
from corewrite.gate.hard_checks import broken, hard_failure
from corewrite.gate.mitigations import Mitigation
from corewrite.gate.resampling import Resampling

_LOG = logging.getLogger(__name__)
_FAMILY_LEVEL = 0.05

CheckVerdict = Literal["pass", "unclear", "fail", "error", "skipped"]


class Verdict(StrEnum):
    """The decision on a candidate."""

    PROMOTE = "promote"
    HOLD = "hold"
    REJECT = "reject"


@dataclass(frozen=True)
class CheckResult:
    """One line of the gate's report; numbers are None where the check could not be computed.

    Attributes:
        name: Name of the check.
        question: What it asks, in words.
        kind: "reward", "guardrail", "not lower", "report" or "hard" (see `Check`).
        candidate: The metric of the candidate.
        champion: The metric of what it is compared with: the champion, or what the reason names.
        difference: D, signed so that higher is better.
        low: L, lower one-sided 97.5 % bound of D.
        high: U, upper one-sided 97.5 % bound of D.
        margin: m.
        n: On how many queries.
        p_value: One-sided, of H0: D is at least -m; not adjusted.
        verdict: "pass" (L above -m), "fail" (U below -m and the Holm-adjusted p-value at most 5 %), "unclear", "error", or
            "skipped" where it is not applicable, or not required and not given its data.
        reason: Why, with the numbers.
        compare: What the candidate is compared with, in words.
        mitigation: What the next training does where it failed.
        effective_users: How many users with equally many queries would say as much; None where it has no bounds.
        users_needed: Effective users from which on it could pass: with a difference of 0, spread as here; where the
            candidate must be better, with the difference seen. None where no number would do, or it has no bounds.
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
    verdict: CheckVerdict
    reason: str
    compare: str = "champion"
    mitigation: Mitigation = "none"
    effective_users: float | None = None
    users_needed: int | None = None

    def as_dict(self) -> dict[str, object]:
        """The fields as a plain dictionary for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class GateResult:
    """The verdict with the results that it follows from.

    Attributes:
        verdict: PROMOTE, HOLD or REJECT.
        reason: One sentence with the deciding check and its numbers.
        users: Number of users evaluated.
        queries: Number of queries evaluated.
        checks: One result per check; empty where a hard check failed or users were too few to compare.
        failed: After a REJECT, the hard check or the guardrails that failed, the clearest first; else empty.
        mitigations: What the failed checks ask of the next training, in their order, each once, without "none".
        effective_users: How many users with equally many queries would say as much.
    """

    verdict: Verdict
    reason: str
    users: int
    queries: int
    checks: tuple[CheckResult, ...]
    failed: tuple[str, ...] = ()
    mitigations: tuple[Mitigation, ...] = ()
    effective_users: float = 0.0

    def as_dict(self) -> dict[str, object]:
        """The fields as a plain dictionary for JSON."""
        return {
            "verdict": self.verdict.value,
            "reason": self.reason,
            "users": self.users,
            "effective_users": self.effective_users,
            "queries": self.queries,
            "failed": list(self.failed),
            "mitigations": list(self.mitigations),
            "checks": [check.as_dict() for check in self.checks],
        }


def refuse(problem: str) -> GateResult:
    """The verdict on a candidate that cannot be evaluated at all: it does not load, or is not what was saved.

    Args:
        problem: What is wrong, without a full stop.
    """
    failure = broken(problem)
    return GateResult(Verdict.REJECT, failure.reason, 0, 0, (), (failure.check,))


@dataclass(frozen=True)
class _Unmeasured:
    """Why a check has no numbers."""

    verdict: Literal["error", "skipped"]
    reason: str


def run_gate(evaluation: Evaluation, config: GateConfig | None = None, holds: int = 0) -> GateResult:
    """Decide on a candidate.

    - PROMOTE: the reward's L > 0 and every guardrail's L > -m. All must hold, so none needs a correction
      (intersection-union). Where the reward's L > -m only, it is enough that the judge's L > 0, or that
      `holds_before_no_worse` HOLDs in a row came before and a champion serves.
    - REJECT: a hard check failed, or some guardrail's U < -m and its p-value is at most 5 % after Holm over
      the reward and all guardrails; a check that could not be computed counts in that family as p = 1.
      A guardrail of the texts' form or of the distance of one week (length, similarity, KL) passes too where the judge's
      L > 0, and the harm rate where gains less twice the losses rise (`Check.excused_by`).
    - HOLD: everything else, with fewer users than the minimum, missing data and errors in a check among it.

    A check is skipped, is in no family and decides nothing, where it is not applicable (the evaluation says that there can
    be no such data, or too few users have any), and where its data were not given and the settings do not require it.

    Args:
        evaluation: Candidate and champion on the same queries.
        config: Margins and resamples; None: the defaults.
        holds: HOLDs in a row that came before this run.

    Returns:
        The verdict with every check. The same evaluation, config and holds give the same result.

    Raises:
        ValueError: `holds` is negative.
    """
    config = config or GateConfig()
    if holds < 0:
        raise ValueError(f"holds is {holds}: it counts the HOLDs in a row before this run")
    of_user = np.array(list(Counter(evaluation.user_ids).values()), np.float64)
    users, queries = len(of_user), len(evaluation)
    effective = float(effective_users(of_user)) if users else 0.0
    if (failure := hard_failure(evaluation)) is not None:
        asked: tuple[Mitigation, ...] = () if failure.mitigation == "none" else (failure.mitigation,)
        return GateResult(Verdict.REJECT, failure.reason, users, queries, (), (failure.check,), asked, effective)
    if few := config.too_few(of_user):
        return GateResult(
            Verdict.HOLD, f"too few users were evaluated: {few}. Evaluate more.", users, queries, (), effective_users=effective
        )
    resampling = Resampling.draw(
        evaluation.user_ids, resamples=config.resamples, subsamples=config.subsamples, seed=config.seed
    )
    checks = [check(config) for check in CHECKS.values()]
    found = [_estimate(check, evaluation, resampling) for check in checks]
    baselines = [evaluation.champion_name if check.baseline == "champion" else check.baseline for check in checks]
    family = [i for i, check in enumerate(checks) if check.kind in ("reward", "guardrail") and not _skipped(found[i])]
    adjusted = dict(zip(family, holm([_p_value(found[i]) for i in family]).tolist(), strict=True))
    compared = tuple(
        _without_numbers(check, estimate, against)
        if isinstance(estimate, _Unmeasured)
        else _result(check, estimate, adjusted.get(i), against)
        for i, (check, estimate, against) in enumerate(zip(checks, found, baselines, strict=True))
    )
    by_name = {r.name: r for r in compared}
    results = tuple(_excused(r, by_name.get(c.excused_by or "")) for c, r in zip(checks, compared, strict=True))
    failed = _failed(results)
    verdict, reason = _decide(results, failed, holds, config)
    mitigations = dict.fromkeys(r.mitigation for r in failed if r.mitigation != "none")
    return GateResult(verdict, reason, users, queries, results, tuple(r.name for r in failed), tuple(mitigations), effective)


def _estimate(check: Check, evaluation: Evaluation, resampling: Resampling) -> Estimate | _Unmeasured:
    """What the check found, or why it could not be computed."""
    try:
        return check.compute(evaluation, resampling).checked()
    except NotApplicableError as error:
        # Without a reward there is nothing to promote for.
        return _Unmeasured("error" if check.kind == "reward" else "skipped", f"not applicable: {error}")
    except Exception as error:  # A broken check must hold the candidate back, not stop the weekly cycle.
        if isinstance(error, NotGivenError):
            required = check.name in check.config.required_checks
            says = f"{error}, and the settings require it" if required else f"{error}; the settings do not require it"
            return _Unmeasured("error" if required else "skipped", says)
        _LOG.warning("gate check %s could not be computed", check.name, exc_info=True)
        return _Unmeasured("error", str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")


def _skipped(estimate: Estimate | _Unmeasured) -> bool:
    return isinstance(estimate, _Unmeasured) and estimate.verdict == "skipped"


def _p_value(estimate: Estimate | _Unmeasured) -> float:
    return 1.0 if isinstance(estimate, _Unmeasured) else estimate.bounds.p_value


def _without_numbers(check: Check, why: _Unmeasured, against: str) -> CheckResult:
    return CheckResult(
        check.name,
        check.question,
        check.kind,
        None,
        None,
        None,
        None,
        None,
        check.margin,
        0,
        None,
        why.verdict,
        why.reason,
        against,
        check.mitigation,
    )


def _result(check: Check, estimate: Estimate, adjusted: float | None, against: str) -> CheckResult:
    """The result of a check; `adjusted` is its p-value after Holm, None outside its family; `against` what it compares with."""
    limits, limit = estimate.bounds, -check.margin
    numbers = (
        f"candidate {estimate.candidate:.4g}, {against} {estimate.baseline:.4g}, "
        f"D {estimate.difference:+.4g} in [{limits.low:+.4g}, {limits.high:+.4g}]"
    )
    wanted = f"{limit:.4g}" if check.margin else "0"
    verdict: CheckVerdict
    if limits.low > limit or (check.kind == "hard" and limits.low == limit):
        verdict, reason = "pass", f"{numbers}, {'not below' if check.kind == 'hard' else 'above'} {wanted}"
    elif limits.high >= limit:
        verdict, reason = "unclear", f"{numbers}, neither above nor below {wanted}"
    elif adjusted is not None and adjusted > _FAMILY_LEVEL:
        verdict, reason = "unclear", f"{numbers}, below {wanted} but not by Holm (adjusted p {adjusted:.2g})"
    else:
        after = f" (adjusted p {adjusted:.2g})" if adjusted is not None else ""
        verdict, reason = "fail", f"{numbers}, below {wanted}{after}"
    needed = _users_needed(check, limits)
    if verdict == "unclear" and needed is not None and limits.effective_users is not None and needed > limits.effective_users:
        how = "could pass with no difference" if check.margin else "would pass with this difference"
        reason += f"; {how} from {needed:,} effective users on, here are {limits.effective_users:,.0f}"
    if estimate.note:
        reason += f"; {estimate.note}"
    return CheckResult(
        check.name,
        check.question,
        check.kind,
        estimate.candidate,
        estimate.baseline,
        estimate.difference,
        limits.low,
        limits.high,
        check.margin,
        estimate.n,
        limits.p_value,
        verdict,
        reason,
        against,
        check.mitigation,
        limits.effective_users,
        needed,
    )


def _excused(result: CheckResult, by: CheckResult | None) -> CheckResult:
    """A result that its excuse lets pass, see `Check.excused_by`."""
    if result.kind != "guardrail" or result.verdict not in ("unclear", "fail") or by is None or by.low is None or by.low <= 0:
        return result
    return replace(result, verdict="pass", reason=f"{result.reason}; allowed, since {by.name} rises (L {by.low:+.4g})")


def _users_needed(check: Check, limits: Bounds) -> int | None:
    if limits.users_needed is None or not math.isfinite(limits.users_needed):
        return None
    return math.ceil(max(limits.users_needed, check.config.minimum_effective_users))


def _failed(results: Sequence[CheckResult]) -> list[CheckResult]:
    """Guardrails that failed, the lowest p-value first."""
    failed = [r for r in results if r.kind == "guardrail" and r.verdict == "fail"]
    return sorted(failed, key=lambda r: r.p_value if r.p_value is not None else 1.0)


def _decide(
    results: Sequence[CheckResult], failed: Sequence[CheckResult], holds: int, config: GateConfig
) -> tuple[Verdict, str]:
    if failed:
        worst, *others = failed
        return Verdict.REJECT, f"{worst.name} fails{_also('so do', others)}: {worst.reason}."
    deciding = [r for r in results if r.kind not in ("report", "not lower") and r.verdict != "skipped"]
    reward = next(r for r in deciding if r.kind == "reward")
    guardrails = [r for r in deciding if r is not reward]
    lenient, instead = "", _instead_of_rise(reward, results, holds, config)
    if instead and reward.verdict != "pass" and all(r.verdict == "pass" for r in guardrails):
        unmet = [r for r in results if r.kind == "not lower" and r.verdict != "pass"]
        if not unmet:
            says = f"the reward is not lower and all {len(guardrails)} guardrails pass"
            return Verdict.PROMOTE, f"{instead}, {says}: {reward.reason}."
        lenient = "".join(f" Since {instead}, {r.name} would do, but it says {r.verdict}: {r.reason}." for r in unmet)
    for verdict, says in (("error", "could not be computed"), ("fail", "falls"), ("unclear", "is unclear")):
        held = [r for r in deciding if r.verdict == verdict]
        if held:
            return Verdict.HOLD, f"{held[0].name} {says}{_also('so with', held[1:])}: {held[0].reason}.{lenient}"
    return Verdict.PROMOTE, f"{reward.name} rises and all {len(guardrails)} guardrails pass: {reward.reason}."


def _instead_of_rise(reward: CheckResult, results: Sequence[CheckResult], holds: int, config: GateConfig) -> str:
    """What else than a rise of the reward speaks for the candidate, or nothing. Only what serves can have aged."""
    by = next((r for r in results if r.name == CHECKS[reward.name].excused_by), None)
    if by is not None and by.low is not None and by.low > 0:
        return f"{by.name} rises (L {by.low:+.4g})"
    aged = reward.compare == CHAMPION and holds >= config.holds_before_no_worse
    return f"after {holds} HOLD{'s in a row' if holds > 1 else ''}" if aged else ""


def _also(words: str, results: Sequence[CheckResult]) -> str:
    return f" ({words} {', '.join(r.name for r in results)})" if results else ""
