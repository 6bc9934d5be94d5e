"""A/B launches: assignment, reading by the change-query rate on impacted searches, A/A; progressive rollouts."""

from corewrite.experiment.ab.aa import AACheck, aa_check
from corewrite.experiment.ab.launch import read_launch
from corewrite.experiment.ab.pooling import pool_tables
from corewrite.experiment.ab.result import Effect, LaunchResult
from corewrite.experiment.ab.searches import check_searches, select_arms, trigger_known
from corewrite.experiment.assignment import CONTROL, TREATMENT, assign
from corewrite.experiment.rollout.config import Limit, RolloutConfig, RolloutStage
from corewrite.experiment.rollout.progressive import RolloutDecision, RolloutState, step
from corewrite.experiment.rollout.users import Observation, Sums, observe
from corewrite.experiment.sequential import contrast_bounds

__all__ = [
    "CONTROL",
    "TREATMENT",
    "AACheck",
    "Effect",
    "LaunchResult",
    "Limit",
    "Observation",
    "RolloutConfig",
    "RolloutDecision",
    "RolloutStage",
    "RolloutState",
    "Sums",
    "aa_check",
    "assign",
    "check_searches",
    "contrast_bounds",
    "observe",
    "pool_tables",
    "read_launch",
    "select_arms",
    "step",
    "trigger_known",
]
