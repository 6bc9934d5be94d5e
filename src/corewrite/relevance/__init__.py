"""Relevance models: what they are asked, the bundled one, its judge, its probe."""

from corewrite.relevance.fit import FitReport, Impressions, cold_start, evaluate, fit, held_out
from corewrite.relevance.judge import TreeJudge
from corewrite.relevance.late_interaction import BoundLateInteraction, DenseScorer, LateInteraction
from corewrite.relevance.probe import ProbeFinding, ProbeResult, probe
from corewrite.relevance.protocol import DenseRelevanceScorer, Judge, JudgeReport, Labels, LeftOutLabels, RelevanceScorer
from corewrite.relevance.vocabulary import Vocabulary

__all__ = [
    "BoundLateInteraction",
    "DenseRelevanceScorer",
    "DenseScorer",
    "FitReport",
    "Impressions",
    "Judge",
    "JudgeReport",
    "Labels",
    "LateInteraction",
    "LeftOutLabels",
    "ProbeFinding",
    "ProbeResult",
    "RelevanceScorer",
    "TreeJudge",
    "Vocabulary",
    "cold_start",
    "evaluate",
    "fit",
    "held_out",
    "probe",
]
