"""A/B launches: assignment, reading by the change-query rate on impacted searches, A/A."""

from corewrite.experiment.aa import AACheck, aa_check
from corewrite.experiment.assignment import CONTROL, TREATMENT, assign
from corewrite.experiment.launch import read_launch
from corewrite.experiment.result import Effect, LaunchResult
from corewrite.experiment.searches import check_searches, pool_tables

__all__ = [
    "CONTROL",
    "TREATMENT",
    "AACheck",
    "Effect",
    "LaunchResult",
    "aa_check",
    "assign",
    "check_searches",
    "pool_tables",
    "read_launch",
]
