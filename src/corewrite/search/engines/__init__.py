"""Search engines at recall behind one port; clients are given, and imported when they are needed."""

from corewrite.search.engines.embedded import EmbeddedEngine
from corewrite.search.engines.opensearch import OpenSearchEngine, fill_opensearch
from corewrite.search.engines.port import EngineError, SearchEngine, TextEngine
from corewrite.search.engines.qdrant import QdrantEngine, fill_qdrant, point_id

__all__ = [
    "EmbeddedEngine",
    "EngineError",
    "OpenSearchEngine",
    "QdrantEngine",
    "SearchEngine",
    "TextEngine",
    "fill_opensearch",
    "fill_qdrant",
    "point_id",
]
