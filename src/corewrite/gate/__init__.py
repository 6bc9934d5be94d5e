"""The promotion gate: statistical checks of a candidate against the champion; pure but for the file of margins."""

from corewrite.gate.bounds import Bounds, bounds, holm
from corewrite.gate.calibrate import MarginCalibration, calibrate
from corewrite.gate.check import Check, Estimate, register
from corewrite.gate.checks import CHECKS
from corewrite.gate.config import GateConfig, Margins
from corewrite.gate.decision import CheckResult, GateResult, Verdict, refuse, run_gate
from corewrite.gate.evaluation import CHAMPION, Absent, Canary, Evaluation, NotApplicableError, NotGivenError, PolicyOutputs
from corewrite.gate.hard_checks import HardFailure, hard_failure
from corewrite.gate.margins_file import load_margins, save_margins
from corewrite.gate.mitigations import Mitigation, current_mitigation
from corewrite.gate.resampling import Resampling

__all__ = [
    "CHAMPION",
    "CHECKS",
    "Absent",
    "Bounds",
    "Canary",
    "Check",
    "CheckResult",
    "Estimate",
    "Evaluation",
    "GateConfig",
    "GateResult",
    "HardFailure",
    "MarginCalibration",
    "Margins",
    "Mitigation",
    "NotApplicableError",
    "NotGivenError",
    "PolicyOutputs",
    "Resampling",
    "Verdict",
    "bounds",
    "calibrate",
    "current_mitigation",
    "hard_failure",
    "holm",
    "load_margins",
    "refuse",
    "register",
    "run_gate",
    "save_margins",
]
