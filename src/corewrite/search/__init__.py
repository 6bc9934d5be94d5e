"""The cascade: recall, rawrank, finerank."""

from corewrite.search.cascade import Cascade, Rewrites
from corewrite.search.embedded import build_signals, embedded_cascade
from corewrite.search.engines import EmbeddedEngine, SearchEngine, TextEngine
from corewrite.search.outcomes import Answers, Candidates, CascadeStage, Rawranked, Trace
from corewrite.search.overlap import top_overlap

__all__ = [
    "Answers",
    "Candidates",
    "Cascade",
    "CascadeStage",
    "EmbeddedEngine",
    "Rawranked",
    "Rewrites",
    "SearchEngine",
    "TextEngine",
    "Trace",
    "build_signals",
    "embedded_cascade",
    "top_overlap",
]
