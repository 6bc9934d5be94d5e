"""Relevance models that are not ours, behind the `RelevanceScorer` protocol; heavy packages are imported when one is made."""

from corewrite.relevance.backends.breaker import CircuitBreaker
from corewrite.relevance.backends.calibration import ScoreCalibration
from corewrite.relevance.backends.clip import ClipEncoder, ClipScorer
from corewrite.relevance.backends.cross_encoder import CrossEncoderScorer
from corewrite.relevance.backends.errors import ScoreError, ScorerMismatchError, ScorerUnavailableError
from corewrite.relevance.backends.folder import folder_hash
from corewrite.relevance.backends.kserve import KServeScorer
from corewrite.relevance.backends.nan_on_failure import NaNOnFailure
from corewrite.relevance.backends.onnx_model import OnnxScorer
from corewrite.relevance.backends.time_limited import TimeLimited

__all__ = [
    "CircuitBreaker",
    "ClipEncoder",
    "ClipScorer",
    "CrossEncoderScorer",
    "KServeScorer",
    "NaNOnFailure",
    "OnnxScorer",
    "ScoreCalibration",
    "ScoreError",
    "ScorerMismatchError",
    "ScorerUnavailableError",
    "TimeLimited",
    "folder_hash",
]
