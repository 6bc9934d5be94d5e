"""The cycle: from a search log to a promoted rewriter."""

from corewrite.cycle.candidate import CandidateRun, ProbeFailedError, make_candidate
from corewrite.cycle.candidate_config import PipelineConfig, WarmStartConfig
from corewrite.cycle.catalogue_files import DocumentsError, read_catalogue, read_labels, write_catalogue, write_labels
from corewrite.cycle.own_logs import train_on_logs
from corewrite.cycle.steps.fit_relevance import RelevanceFit, fit_relevance
from corewrite.cycle.steps.warm_start import WarmStartReport, warm_start
from corewrite.cycle.window import LogWindow, read_window

__all__ = [
    "CandidateRun",
    "DocumentsError",
    "LogWindow",
    "PipelineConfig",
    "ProbeFailedError",
    "RelevanceFit",
    "WarmStartConfig",
    "WarmStartReport",
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
