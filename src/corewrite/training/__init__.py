"""Semi-online MPO: sample many, learn from the top-k and bottom-k only, sync once per phase."""

from corewrite.training.checkpoint import ResumeError, RunFolder
from corewrite.training.config import TrainingConfig
from corewrite.training.loop import TrainingReport, train
from corewrite.training.losses import (
    PairLogProbs,
    RewardShift,
    generation_loss,
    mpo_losses,
    preference_loss,
    quality_loss,
)
from corewrite.training.pairs import Candidate, Pair, select_pairs
from corewrite.training.reward import FusedReward, documents_of
from corewrite.training.sampler import InProcessSampler, Rollouts
from corewrite.training.score import Reward, score_candidates

__all__ = [
    "Candidate",
    "FusedReward",
    "InProcessSampler",
    "Pair",
    "PairLogProbs",
    "ResumeError",
    "Reward",
    "RewardShift",
    "Rollouts",
    "RunFolder",
    "TrainingConfig",
    "TrainingReport",
    "documents_of",
    "generation_loss",
    "mpo_losses",
    "preference_loss",
    "quality_loss",
    "score_candidates",
    "select_pairs",
    "train",
]
