"""The cascade: recall, rawrank, finerank."""

from corewrite.search.cascade import Answers, Candidates, Cascade, Rawranked, Rewrites, Stage, Trace
from corewrite.search.embedded import build_signals, embedded_cascade
from corewrite.search.engines import EmbeddedEngine, SearchEngine, TextEngine
from corewrite.search.overlap import top_overlap

__all__ = [
    "Answers",
    "Candidates",
    "Cascade",
    "EmbeddedEngine",
    "Rawranked",
    "Rewrites",
    "SearchEngine",
    "Stage",
    "TextEngine",
    "Trace",
    "build_signals",
    "embedded_cascade",
    "top_overlap",
]
