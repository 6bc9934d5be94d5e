"""The cascade: recall, rawrank, finerank."""

from corewrite.search.cascade import Answers, Candidates, Cascade, Rawranked, Rewrites, Stage, Trace
from corewrite.search.embedded import embedded_cascade
from corewrite.search.index import EmbeddedEngine, SearchEngine
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
    "Trace",
    "embedded_cascade",
    "top_overlap",
]
