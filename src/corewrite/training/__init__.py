"""Semi-online MPO: sample many, learn from the top-k and bottom-k only, sync once per phase."""

from corewrite.training.candidates import Scored
from corewrite.training.checkpoint import RunFolder
from corewrite.training.config import LoraSettings, ScoringConfig, TrainingConfig
from corewrite.training.errors import CheckpointError, NotBitwiseWarning, ResumeError
from corewrite.training.loop import PhaseObserver, train
from corewrite.training.losses import (
    PairLogProbs,
    RewardShift,
    generation_loss,
    mpo_losses,
    preference_loss,
    quality_loss,
)
from corewrite.training.pairs import Pair, ScoredCandidate, select_pairs
from corewrite.training.records import PhaseRecord
from corewrite.training.report import TrainingReport
from corewrite.training.rollouts import SamplerPrecisionWarning
from corewrite.training.samplers.in_process import InProcessEngine
from corewrite.training.samplers.mismatch import SamplerMismatchError
from corewrite.training.samplers.protocol import SamplingEngine, StalePolicyError, Sync
from corewrite.training.scoring import Reward, Scores, TransientRewardError, retried, score_texts
from corewrite.training.trackers import tracker_openers
from corewrite.training.tracking import Tracker, TrackerName, tracked

__all__ = [
    "CheckpointError",
    "InProcessEngine",
    "LoraSettings",
    "NotBitwiseWarning",
    "Pair",
    "PairLogProbs",
    "PhaseObserver",
    "PhaseRecord",
    "ResumeError",
    "Reward",
    "RewardShift",
    "RunFolder",
    "SamplerMismatchError",
    "SamplerPrecisionWarning",
    "SamplingEngine",
    "Scored",
    "ScoredCandidate",
    "Scores",
    "ScoringConfig",
    "StalePolicyError",
    "Sync",
    "Tracker",
    "TrackerName",
    "TrainingConfig",
    "TrainingReport",
    "TransientRewardError",
    "generation_loss",
    "mpo_losses",
    "preference_loss",
    "quality_loss",
    "retried",
    "score_texts",
    "select_pairs",
    "tracked",
    "tracker_openers",
    "train",
]
