"""The cascade: recall, rawrank, finerank."""

from corewrite.search.cascade import Answers, Cascade, Stage, Trace
from corewrite.search.index import EmbeddedEngine, SearchEngine
from corewrite.search.overlap import top_overlap

__all__ = ["Answers", "Cascade", "EmbeddedEngine", "SearchEngine", "Stage", "Trace", "top_overlap"]
