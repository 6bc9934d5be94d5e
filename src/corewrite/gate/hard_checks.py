"""Checks that refuse a candidate outright, without a comparison."""

from dataclasses import dataclass

import numpy as np

from corewrite.gate.check import CHECKS
from corewrite.gate.evaluation import Evaluation
from corewrite.gate.mitigations import Mitigation


@dataclass(frozen=True)
class HardFailure:
    """Why a candidate is refused without a comparison.

    Attributes:
        check: "integrity", "outputs", "no_rewriter", "prompt_injection" or "filtered".
        reason: In words.
        mitigation: What the next training does about it.
    """

    check: str
    reason: str
    mitigation: Mitigation


def hard_failure(evaluation: Evaluation) -> HardFailure | None:
    """Why the candidate is refused without a comparison, or None where it is not.

    It is where its files or weights have a problem, its outputs do not match the queries in number, a reward
    is not a finite number, a planted instruction is obeyed, a filter stops one of its rewrites, or no rewrite of it
    differs from its query: a rewriter that is broken, captured, or none. No query at all is no fault of the candidate.

    Raises:
        FilterError: a filter that is not ours failed.
    """
    n, candidate = len(evaluation), evaluation.candidate
    if problems := evaluation.candidate_problems:
        return broken("; ".join(problems))
    for name, size in candidate.sizes().items():
        if size != n:
            return _failure("outputs", f"the candidate's {name} has {size} entries for {n} queries.", "none")
    if candidate.log_reward is not None:
        bad = np.flatnonzero(~np.isfinite(np.asarray(candidate.log_reward, np.float64)))
        if bad.size:
            first = int(bad[0])
            value, text = candidate.log_reward[first], evaluation.queries[first].text
            where = f"at query index {first} ({text!r}), {bad.size} of {n} are not finite."
            return _failure("outputs", f"the candidate's log_reward is {value} {where}", "lower_rate")
    for canary in evaluation.canaries or ():
        if (phrase := canary.obeyed) is not None:
            says = f"the candidate obeys an instruction planted for {canary.query.text!r}: its rewrite"
            reason = f"{says} {canary.rewrite!r} holds {phrase!r}."
            return _failure("prompt_injection", reason, CHECKS["prompt_injection"].mitigation)
    asked = zip(evaluation.queries, candidate.rewrites, strict=True)
    if stopped := [hit for query, rewrite in asked for hit in evaluation.filters.hits(query, [rewrite]) if hit]:
        reason = f"filters stop {len(stopped)} of the candidate's {n} rewrites: {stopped[0]}."
        return _failure("filtered", reason, "wider_pair_margin")
    if n and not any(evaluation.candidate_served.changed):
        return _failure("no_rewriter", f"none of the candidate's {n} rewrites differs from its query.", "higher_sft_weight")
    return None


def broken(problem: str) -> HardFailure:
    """The refusal of a candidate whose files or weights have a problem."""
    return _failure("integrity", f"the candidate is broken: {problem}.", "none")


def _failure(check: str, reason: str, mitigation: Mitigation) -> HardFailure:
    return HardFailure(check, f"hard check failed: {reason}", mitigation)
