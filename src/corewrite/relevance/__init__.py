"""Relevance models: what they are asked, the bundled one, its judge, its probe."""

from corewrite.relevance.fit import FitReport, Impressions, cold_start, evaluate, fit, held_out
from corewrite.relevance.late_interaction import BoundLateInteraction, DenseScorer, LateInteraction
from corewrite.relevance.protocol import DenseRelevanceScorer, RelevanceScorer
from corewrite.relevance.vocabulary import Vocabulary

__all__ = [
    "BoundLateInteraction",
    "DenseRelevanceScorer",
    "DenseScorer",
    "FitReport",
    "Impressions",
    "LateInteraction",
    "RelevanceScorer",
    "Vocabulary",
    "cold_start",
    "evaluate",
    "fit",
    "held_out",
]
