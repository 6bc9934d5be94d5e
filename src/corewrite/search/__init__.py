"""The cascade: recall, rawrank, finerank."""

from corewrite.search.cascade import Answers, Cascade, Stage, Trace
from corewrite.search.index import EmbeddedEngine, SearchEngine

__all__ = ["Answers", "Cascade", "EmbeddedEngine", "SearchEngine", "Stage", "Trace"]
