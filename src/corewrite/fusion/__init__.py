"""The fusion algebra: one spec ranks, gives the reward and compiles."""

from corewrite.fusion.evaluate import (
    ReplayResult,
    StageFusion,
    evaluate_stage,
    explain_stage,
    replay,
    stage_bound,
    swap_bound,
)
from corewrite.fusion.read_spec import SpecError, default_spec, load_spec, parse_spec
from corewrite.fusion.reward import arithmetic_log_reward, log_reward
from corewrite.fusion.spec import (
    Depths,
    FusionSpec,
    OriginalSignal,
    RecallSpec,
    RewardSpec,
    RewriteSignal,
    StageSpec,
    recommended_eps,
)
from corewrite.fusion.spec_version_1 import FusionSpecV1, RewardSpecV1

__all__ = [
    "Depths",
    "FusionSpec",
    "FusionSpecV1",
    "OriginalSignal",
    "RecallSpec",
    "ReplayResult",
    "RewardSpec",
    "RewardSpecV1",
    "RewriteSignal",
    "SpecError",
    "StageFusion",
    "StageSpec",
    "arithmetic_log_reward",
    "default_spec",
    "evaluate_stage",
    "explain_stage",
    "load_spec",
    "log_reward",
    "parse_spec",
    "recommended_eps",
    "replay",
    "stage_bound",
    "swap_bound",
]
