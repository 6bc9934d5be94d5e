"""The cycle: from a search log to a promoted rewriter."""

from corewrite.pipeline.baselines import SpellingDictionary, baseline_rewrites
from corewrite.pipeline.candidate import CandidateRun, ProbeFailedError, Steps, make_candidate
from corewrite.pipeline.champion import NoChampionError, Served, explain_search, load_champion
from corewrite.pipeline.config import PipelineConfig, WarmStartConfig, load_config
from corewrite.pipeline.deployment import Deployment
from corewrite.pipeline.documents import DocumentsError, read_catalogue, read_labels, write_catalogue, write_labels
from corewrite.pipeline.gate_step import fused_lists, log_rewards, served_rewrites
from corewrite.pipeline.own_logs import train_on_logs
from corewrite.pipeline.relevance_step import RelevanceFit, fit_relevance
from corewrite.pipeline.warm_start import WarmStartReport, warm_start
from corewrite.pipeline.window import LogWindow, is_gate_user, read_window

__all__ = [
    "CandidateRun",
    "Deployment",
    "DocumentsError",
    "LogWindow",
    "NoChampionError",
    "PipelineConfig",
    "ProbeFailedError",
    "RelevanceFit",
    "Served",
    "SpellingDictionary",
    "Steps",
    "WarmStartConfig",
    "WarmStartReport",
    "baseline_rewrites",
    "explain_search",
    "fit_relevance",
    "fused_lists",
    "is_gate_user",
    "load_champion",
    "load_config",
    "log_rewards",
    "make_candidate",
    "read_catalogue",
    "read_labels",
    "read_window",
    "served_rewrites",
    "train_on_logs",
    "warm_start",
    "write_catalogue",
    "write_labels",
]
