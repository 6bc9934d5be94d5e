"""The gate: is a candidate better, and safe enough, to take the champion's place?"""

from corewrite.gate.check import Check, Estimate
from corewrite.gate.checks import CHECKS
from corewrite.gate.config import GateConfig, Margins
from corewrite.gate.decision import CheckResult, GateResult, Verdict, run_gate
from corewrite.gate.evaluation import Evaluation, PolicyOutputs
from corewrite.gate.hard_checks import hard_failure
from corewrite.gate.resampling import Bounds, Resampling, bounds, holm

__all__ = [
    "CHECKS",
    "Bounds",
    "Check",
    "CheckResult",
    "Estimate",
    "Evaluation",
    "GateConfig",
    "GateResult",
    "Margins",
    "PolicyOutputs",
    "Resampling",
    "Verdict",
    "bounds",
    "hard_failure",
    "holm",
    "run_gate",
]
