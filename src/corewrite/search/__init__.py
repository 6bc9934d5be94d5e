"""The cascade: recall, rawrank, finerank."""

from corewrite.search.cascade import Answers, Candidates, Cascade, Rawranked, Rewrites, Stage, Trace
from corewrite.search.embedded import embedded_cascade, signals_of
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
    "embedded_cascade",
    "signals_of",
    "top_overlap",
]
