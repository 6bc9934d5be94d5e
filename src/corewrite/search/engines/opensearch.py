"""OpenSearch at recall: BM25 on a field, k-NN on another, exact scores from the stored vectors.

Not run against a real cluster: all of it. The tests run it, through the real client, against a small server of their own that
checks every request and answers as the documentation says. Unknown are therefore which versions differ, and the speed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from corewrite.domain import Documents, words
from corewrite.domain.extras import from_extra
from corewrite.search.engines.answers import answered
from corewrite.search.engines.exact import each_text, exact_scores, ranked
from corewrite.search.engines.port import EngineError, Float32Array, FloatArray, IntArray

_SEARCHES = 64
"""Searches in one request."""


class OpenSearchEngine:
    """An OpenSearch index (a `SearchEngine`); timeouts and retries are the client's.

    A server that does not answer is an `EngineUnavailableError`, one that refuses or answers nonsense an `EngineError`.

    Scores are computed here, from vectors fetched by `_mget`: a `knn` query with a filter on ids may search approximately, and
    its score is a function of the inner product in single precision. IDs of the index are those of the documents.

    Args:
        client: An `opensearchpy.OpenSearch`.
        index: An index such as `fill_opensearch` makes, or one of yours.
        documents: What the rows mean.
        text_field: A text field. That of `fill_opensearch` holds the words as split here; one of yours is asked with its own
            analyzer.
        vector_field: A `knn_vector` field by inner product, kept in `_source`.
    """

    def __init__(
        self, client: Any, index: str, documents: Documents, *, text_field: str = "words", vector_field: str = "dense"
    ) -> None:
        self._client, self._index, self._documents = client, index, documents
        self._text_field, self._vector_field = text_field, vector_field

    def search_text(self, texts: Sequence[str], k: int) -> IntArray:
        """See `SearchEngine.search_text`."""
        terms = [" ".join(dict.fromkeys(words(text))) for text in texts]
        return self._search([{"match": {self._text_field: {"query": t}}} if t else None for t in terms], k)

    def search_vector(self, vectors: Float32Array, k: int) -> IntArray:
        """See `SearchEngine.search_vector`; approximate, by the field's graph."""
        queries = [
            {"knn": {self._vector_field: {"vector": v.astype(float).tolist(), "k": k}}} if v.any() else None for v in vectors
        ]
        return self._search(queries, k)

    def score(self, vectors: Float32Array, rows: IntArray) -> FloatArray:
        """See `SearchEngine.score`.

        Raises:
            EngineError: a document could not be read, or has no vector in its `_source`.
        """
        return exact_scores(vectors, rows, len(self._documents), self._fetch)

    def _search(self, queries: Sequence[dict[str, Any] | None], k: int) -> IntArray:
        """Rows for each query; None finds nothing."""
        found: list[list[tuple[float, int]]] = [[] for _ in queries]
        asked = [i for i, query in enumerate(queries) if query is not None and k > 0]
        # Frequencies over all shards: else the same document scores differently from shard to shard.
        head = {"index": self._index, "search_type": "dfs_query_then_fetch"}
        for start in range(0, len(asked), _SEARCHES):
            part = asked[start : start + _SEARCHES]
            lines: list[dict[str, Any]] = []
            for i in part:
                lines += [head, {"size": k, "_source": False, "track_total_hits": False, "query": queries[i]}]
            with answered(f"a search in {self._index!r}", _no_answer):
                answers = self._client.msearch(body=lines)["responses"]
                if len(answers) != len(part):
                    raise EngineError(f"{len(part)} searches in {self._index!r} got {len(answers)} answers")
                for i, answer in zip(part, answers, strict=True):
                    found[i] = self._hits(answer)
        return ranked(found, k)

    def _hits(self, answer: dict[str, Any]) -> list[tuple[float, int]]:
        if "error" in answer:
            raise EngineError(f"a search in {self._index!r} failed: {str(answer['error'])[:200]}")
        if answer["timed_out"] or answer["_shards"]["failed"]:
            shards = answer["_shards"]
            raise EngineError(
                f"a search in {self._index!r} was answered in part: timed_out {answer['timed_out']}, {shards['failed']} of "
                f"{shards['total']} shards failed"
            )
        hits = answer["hits"]["hits"]
        rows = self._documents.find([h["_id"] for h in hits]).tolist()
        return [(h["_score"], row) for h, row in zip(hits, rows, strict=True) if row >= 0]

    def _fetch(self, rows: list[int]) -> dict[int, list[float]]:
        ids = self._documents.load_ids(np.array(rows, np.int64))
        rows_by_id = dict(zip(ids, rows, strict=True))
        held: dict[int, list[float]] = {}
        with answered(f"documents of {self._index!r}", _no_answer):
            answer = self._client.mget(body={"ids": ids}, index=self._index, params={"_source_includes": self._vector_field})
            for document in answer["docs"]:
                if "error" in document:
                    raise EngineError(f"document {document['_id']!r} of {self._index!r}: {str(document['error'])[:200]}")
                if not document["found"]:
                    continue
                vector = document.get("_source", {}).get(self._vector_field)
                if vector is None:
                    what = f"document {document['_id']!r} of {self._index!r}"
                    raise EngineError(f"{what} has no {self._vector_field!r} in its _source: keep it there")
                if document["_id"] in rows_by_id:
                    held[rows_by_id[document["_id"]]] = vector
        return held


def _no_answer(error: Exception) -> bool:
    from opensearchpy.exceptions import ConnectionError

    return isinstance(error, ConnectionError)


def fill_opensearch(client: Any, index: str, documents: Documents, vectors: Float32Array) -> None:
    """Make an index of the documents.

    Args:
        client: An `opensearchpy.OpenSearch`.
        index: Its name; it must not be there yet. Documents that changed get another: switch by opening it.
        documents: The documents.
        vectors: Their vectors, float32 [documents, dims].

    Raises:
        ImportError: opensearch-py is not installed.
        ValueError: the index is there, or the vectors do not fit the documents.
    """
    with from_extra("opensearch", "an OpenSearch index is filled by opensearch-py"):
        from opensearchpy.helpers import bulk
    if len(vectors) != len(documents):
        raise ValueError(f"{len(vectors)} vectors for {len(documents)} documents")
    if client.indices.exists(index=index):
        raise ValueError(f"index {index!r} is there already: give a new name, or delete it first")
    method = {"name": "hnsw", "engine": "faiss", "space_type": "innerproduct"}
    properties = {
        "words": {"type": "text", "analyzer": "whitespace"},
        "dense": {"type": "knn_vector", "dimension": vectors.shape[1], "method": method},
    }
    mappings = {"dynamic": "strict", "properties": properties}
    client.indices.create(index=index, body={"settings": {"index": {"knn": True}}, "mappings": mappings})
    actions = (
        {"_index": index, "_id": i, "words": " ".join(words(text)), "dense": vector.astype(float).tolist()}
        for (i, text), vector in zip(each_text(documents), vectors, strict=True)
    )
    bulk(client, actions, chunk_size=500)
    client.indices.refresh(index=index)
