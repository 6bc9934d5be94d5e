"""Calibration of margins from retrains of the champion that differ by their seed alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from corewrite.domain import sha256_json
from corewrite.gate.check import CHECKS
from corewrite.gate.config import Margins
from corewrite.gate.decision import GateResult

MINIMUM_RETRAINS = 10
_COVERAGE = _CONFIDENCE = 0.95
_JOINT = 0.9
# A tolerance limit can be 0 or below it (no retrain ever served a malformed text). A margin of nothing would
# hold every candidate over one search.
_SMALLEST = 0.1


@dataclass(frozen=True)
class Share:
    """A share of runs.

    Attributes:
        share: Of how many.
        low: Lower end of its exact two-sided 95 % interval (Clopper & Pearson 1934).
        high: Upper end.
    """

    share: float
    low: float
    high: float

    @classmethod
    def of(cls, count: int, runs: int) -> "Share":
        """`count` of `runs`, at least 1."""
        interval = stats.binomtest(count, runs).proportion_ci(0.95)
        return cls(count / runs, float(interval.low), float(interval.high))

    def as_dict(self) -> dict[str, float]:
        """The fields as a plain dictionary."""
        return {"share": self.share, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class MarginCalibration:
    """Margins, and how they came about.

    Attributes:
        margins: Of all checks.
        factor: By which all tolerance limits were enlarged for nine in ten retrains to pass, or for as many as
            the business limits let; 1 where they did.
        capped: Checks whose margin is the business limit, for the retrains ask for more.
        raised: Checks whose margin is a tenth of the business limit, for the retrains ask for less.
        uncalibrated: Checks skipped in the retrains, or deciding nothing; their margin is the business limit.
        retrains: How many.
        joint_pass: Share of the retrains that pass all guardrails with these margins; below nine in ten where
            caps keep it there. It is of the runs that set the margins, so it flatters.
        aa: The same of the A/A runs; None where there is none.
        inputs_hash: Of the retrains' and A/A runs' bounds and of the business limits.
    """

    margins: Margins
    factor: float
    capped: tuple[str, ...]
    raised: tuple[str, ...]
    uncalibrated: tuple[str, ...]
    retrains: int
    joint_pass: Share
    aa: Share | None
    inputs_hash: str

    def as_dict(self) -> dict[str, Any]:
        """The fields as a plain dictionary for JSON or YAML."""
        return {
            "margins": self.margins.as_dict(),
            "factor": self.factor,
            "capped": list(self.capped),
            "raised": list(self.raised),
            "uncalibrated": list(self.uncalibrated),
            "retrains": self.retrains,
            "joint_pass": self.joint_pass.as_dict(),
            "aa": None if self.aa is None else self.aa.as_dict(),
            "inputs_hash": self.inputs_hash,
        }


def tolerance_factor(n: int) -> float:
    """k such that mean + k * deviation of `n` normal values is above 95 % of their law in 95 % of samples.

    The one-sided tolerance limit by the noncentral t (Hahn & Meeker 1991, Statistical Intervals, section 4.6.3).
    """
    root = math.sqrt(n)
    return float(stats.nct.ppf(_CONFIDENCE, n - 1, stats.norm.ppf(_COVERAGE) * root) / root)


def calibrate(
    retrains: Sequence[GateResult], *, aa: Sequence[GateResult] = (), business: Margins | None = None
) -> MarginCalibration:
    """Set margins such that a retrain of the champion, which is no worse, passes.

    What a retrain needs of a check is -L. The margin of each check is the upper one-sided 95/95 tolerance
    limit of that over the retrains. Where fewer than nine in ten retrains pass all guardrails with those, all
    are enlarged by the least factor with which they do; a retrain that no margin within the business limits
    lets pass is given up, for a larger factor would not help it. No margin is above its business limit or
    below a tenth of it.

    Args:
        retrains: The gate's results on policies trained as the champion was, with other seeds, against the
            champion; at least 10. With the same users, resamples and kinds of data as the gate will have.
        aa: The gate's results on the champion's own weights with other evaluation seeds: a sanity check, whose
            share of passes should be near 1.
        business: Limits that no margin may be above; None: those that stand in the checks.

    Raises:
        ValueError: too few retrains; a check could not be computed in one, or was skipped in some only.
    """
    if len(retrains) < MINIMUM_RETRAINS:
        raise ValueError(f"{len(retrains)} retrains were given: margins need at least {MINIMUM_RETRAINS}")
    needed = _needed(retrains)
    limits = (business or Margins()).as_dict()
    k = tolerance_factor(len(retrains))
    tolerance = {name: float(x.mean() + k * x.std(ddof=1)) for name, x in needed.items()}
    floored = {name: max(value, _SMALLEST * limits[name]) for name, value in tolerance.items()}
    guardrails = [name for name in needed if CHECKS[name].kind == "guardrail"]
    # Each retrain passes with all factors above its own, if with any.
    own = np.max([needed[name] / floored[name] for name in guardrails], axis=0)
    can_pass = np.all([needed[name] < limits[name] for name in guardrails], axis=0)
    ratios = np.sort(own[can_pass])[: math.ceil(_JOINT * len(own))]
    factor = 1.0 if not ratios.size or ratios[-1] < 1 else float(ratios[-1]) * (1 + 1e-9)
    margins = {name: min(factor * value, limits[name]) for name, value in floored.items()}
    return MarginCalibration(
        margins=Margins.model_validate({**limits, **margins}),
        factor=factor,
        capped=tuple(name for name, value in floored.items() if factor * value > limits[name]),
        raised=tuple(name for name, value in tolerance.items() if value < floored[name]),
        uncalibrated=tuple(name for name in limits if name not in needed),
        retrains=len(retrains),
        joint_pass=Share.of(_passes(retrains, margins), len(retrains)),
        aa=Share.of(_passes(aa, margins), len(aa)) if aa else None,
        inputs_hash=sha256_json({"retrains": _lows(retrains), "aa": _lows(aa), "business": limits}),
    )


def _needed(retrains: Sequence[GateResult]) -> dict[str, Any]:
    """-L of every retrain, float64 [retrains], by check with a margin that decides."""
    needed = {}
    for name, check in CHECKS.items():
        if check.default_margin is None or check.kind == "report":
            continue
        rows = [next((c for c in result.checks if c.name == name), None) for result in retrains]
        skipped = [row is not None and row.verdict == "skipped" for row in rows]
        if all(skipped):
            continue
        lows = [None if row is None else row.low for row in rows]
        if None in lows:
            first = lows.index(None)
            row, result = rows[first], retrains[first]
            why = result.reason if row is None else row.reason
            raise ValueError(f"retrain {first} has no bounds for {name} ({why}): evaluate all retrains on the same data")
        needed[name] = -np.array(lows, np.float64)
    return needed


def _passes(results: Sequence[GateResult], margins: Mapping[str, float]) -> int:
    """How many pass all guardrails that were calibrated."""
    return sum(
        bool(result.checks)
        and all(
            c.low is not None and c.low > -margins[c.name] for c in result.checks if c.kind == "guardrail" and c.name in margins
        )
        for result in results
    )


def _lows(results: Sequence[GateResult]) -> list[dict[str, float | None]]:
    return [{c.name: c.low for c in result.checks} for result in results]
