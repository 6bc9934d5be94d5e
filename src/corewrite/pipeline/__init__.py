"""The cycle: from a search log to a promoted rewriter."""

from corewrite.pipeline.baselines import SpellingDictionary, baseline_rewrites
from corewrite.pipeline.candidate import CandidateRun, ProbeFailedError, make_candidate
from corewrite.pipeline.config import PipelineConfig, WarmStartConfig
from corewrite.pipeline.documents import DocumentsError, read_catalogue, read_labels, write_catalogue, write_labels
from corewrite.pipeline.own_logs import train_on_logs
from corewrite.pipeline.relevance_step import RelevanceFit, fit_relevance
from corewrite.pipeline.warm_start import WarmStartReport, warm_start
from corewrite.pipeline.window import LogWindow, read_window

__all__ = [
    "CandidateRun",
    "DocumentsError",
    "LogWindow",
    "PipelineConfig",
    "ProbeFailedError",
    "RelevanceFit",
    "SpellingDictionary",
    "WarmStartConfig",
    "WarmStartReport",
    "baseline_rewrites",
    "fit_relevance",
    "make_candidate",
    "read_catalogue",
    "read_labels",
    "read_window",
    "train_on_logs",
    "warm_start",
    "write_catalogue",
    "write_labels",
]
