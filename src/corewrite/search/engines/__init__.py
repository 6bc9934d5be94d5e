"""Search engines at recall behind one port; clients are given, and imported when they are needed."""

from corewrite.search.engines.embedded import EmbeddedEngine
from corewrite.search.engines.guarded import GuardedEngine
from corewrite.search.engines.opensearch import OpenSearchEngine, fill_opensearch
from corewrite.search.engines.port import EngineError, EngineUnavailableError, SearchEngine, TextEngine
from corewrite.search.engines.qdrant import QdrantEngine, fill_qdrant, point_id
from corewrite.search.engines.redis import RedisEngine, fill_redis

__all__ = [
    "EmbeddedEngine",
    "EngineError",
    "EngineUnavailableError",
    "GuardedEngine",
    "OpenSearchEngine",
    "QdrantEngine",
    "RedisEngine",
    "SearchEngine",
    "TextEngine",
    "fill_opensearch",
    "fill_qdrant",
    "fill_redis",
    "point_id",
]
