"""Qdrant at recall: BM25 as a sparse vector, the dense vector beside it.

Words. Qdrant ranks text by sparse vectors, and a search among them is exact. A document's vector holds the part of BM25
(Robertson & Zaragoza 2009) that depends on it alone,

    tf (k1 + 1) / (tf + k1 (1 - b + b length / mean length)),   k1 = 1.2, b = 0.75,

the query's is 1 for each word, and the collection's IDF modifier brings ln(1 + (N - n + 0.5) / (n + 0.5)). A full-text *filter*
would only say which documents hold the words, not how well. The mean length is that of the documents when the collection was
filled. A word's dimension is a hash of 32 bits: among 50,000 words some two share one with a probability of a quarter, and then
count as the same word.

Exact scores are computed here, from vectors fetched by their ids: the alternative, a search with `exact=True` and a filter
on ids, skips the graph but still reads quantised vectors where a collection has them, and a document that is missing
cannot be distinguished from one that was cut.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import UUID, uuid5

import numpy as np

from corewrite.domain import Documents, sha256_text, words
from corewrite.domain.extras import from_extra
from corewrite.search.engines.answers import answered
from corewrite.search.engines.exact import each_text, exact_scores, ranked
from corewrite.search.engines.port import EngineError, Float32Array, FloatArray, IntArray

_IDS = UUID("5f0d3c1e-8a44-4b57-9a3e-2f6f1c0b7d21")
_K1, _B = 1.2, 0.75
_SEARCHES = 64
"""Searches in one request."""
DENSE, WORDS = "dense", "words"
"""Names of the two vectors of a point."""
ID = "id"
"""Where a point's payload has the document id."""


def point_id(doc_id: str) -> str:
    """Point id of a document: Qdrant takes numbers and UUIDs only, so this is a UUID of version 5."""
    return str(uuid5(_IDS, doc_id))


class QdrantEngine:
    """A Qdrant collection (a `SearchEngine`); timeouts are the client's.

    A server that does not answer is an `EngineUnavailableError`, one that refuses or answers nonsense an `EngineError`.

    Args:
        client: A `qdrant_client.QdrantClient`.
        collection: A collection with the vectors `dense` (by inner product) and `words`, and the document id of each point as
            `id` in its payload, such as `fill_qdrant` makes.
        documents: What the rows mean.
        point_of: Point id of a document id, for a collection with ids of its own.

    Raises:
        ImportError: qdrant-client is not installed.
    """

    def __init__(
        self, client: Any, collection: str, documents: Documents, point_of: Callable[[str], int | str] = point_id
    ) -> None:
        self._models = _models()
        self._client, self._collection, self._documents, self._point_of = client, collection, documents, point_of

    def search_text(self, texts: Sequence[str], k: int) -> IntArray:
        """See `SearchEngine.search_text`."""
        return self._search([self._sparse(dict.fromkeys(words(text), 1.0)) for text in texts], WORDS, k)

    def search_vector(self, vectors: Float32Array, k: int) -> IntArray:
        """See `SearchEngine.search_vector`; on a server approximate, by its HNSW graph."""
        return self._search([v.astype(float).tolist() if v.any() else None for v in vectors], DENSE, k)

    def score(self, vectors: Float32Array, rows: IntArray) -> FloatArray:
        """See `SearchEngine.score`."""
        return exact_scores(vectors, rows, len(self._documents), self._fetch)

    def _sparse(self, values: dict[str, float]) -> Any:
        return _sparse(self._models, values) if values else None

    def _search(self, queries: Sequence[Any], vector: str, k: int) -> IntArray:
        """Rows for each query; None finds nothing."""
        found: list[list[tuple[float, int]]] = [[] for _ in queries]
        asked = [i for i, query in enumerate(queries) if query is not None and k > 0]
        for start in range(0, len(asked), _SEARCHES):
            part = asked[start : start + _SEARCHES]
            requests = [self._models.QueryRequest(query=queries[i], using=vector, limit=k, with_payload=[ID]) for i in part]
            with answered(f"a search in {self._collection!r}", _no_answer):
                answers = self._client.query_batch_points(self._collection, requests)
                if len(answers) != len(part):
                    raise EngineError(f"{len(part)} searches in {self._collection!r} got {len(answers)} answers")
                for i, answer in zip(part, answers, strict=True):
                    rows = self._documents.find([self._parse_id(p) for p in answer.points]).tolist()
                    found[i] = [(p.score, row) for p, row in zip(answer.points, rows, strict=True) if row >= 0]
        return ranked(found, k)

    def _parse_id(self, point: Any) -> str:
        doc_id = (point.payload or {}).get(ID)
        if not isinstance(doc_id, str):
            raise EngineError(
                f"point {point.id} of {self._collection!r} has no document id: keep it in the payload, as a text named {ID!r}"
            )
        return doc_id

    def _fetch(self, rows: list[int]) -> dict[int, list[float]]:
        points = [self._point_of(doc_id) for doc_id in self._documents.load_ids(np.array(rows, np.int64))]
        rows_by_id = dict(zip(points, rows, strict=True))
        with answered(f"documents of {self._collection!r}", _no_answer):
            records = self._client.retrieve(self._collection, points, with_payload=False, with_vectors=[DENSE])
            return {rows_by_id[r.id]: r.vector[DENSE] for r in records if r.id in rows_by_id and r.vector and DENSE in r.vector}


def fill_qdrant(client: Any, collection: str, documents: Documents, vectors: Float32Array) -> None:
    """Make a collection of the documents.

    Args:
        client: A `qdrant_client.QdrantClient`.
        collection: Its name; it must not be there yet. Documents that changed get another: switch by opening it.
        documents: The documents.
        vectors: Their vectors, float32 [documents, dims].

    Raises:
        ImportError: qdrant-client is not installed.
        ValueError: the collection is there, or the vectors do not fit the documents.
    """
    models = _models()
    if len(vectors) != len(documents):
        raise ValueError(f"{len(vectors)} vectors for {len(documents)} documents")
    if client.collection_exists(collection):
        raise ValueError(f"collection {collection!r} is there already: give a new name, or delete it first")
    client.create_collection(
        collection,
        vectors_config={DENSE: models.VectorParams(size=vectors.shape[1], distance=models.Distance.DOT)},
        sparse_vectors_config={WORDS: models.SparseVectorParams(modifier=models.Modifier.IDF)},
    )
    client.upload_points(collection, _points(models, documents, vectors), batch_size=256, wait=True)


def _points(models: Any, documents: Documents, vectors: Float32Array) -> Iterator[Any]:
    mean = max(1e-9, float(np.mean([len(words(text)) for _, text in each_text(documents)])))
    for (doc_id, text), vector in zip(each_text(documents), vectors, strict=True):
        document = words(text)
        norm = _K1 * (1 - _B + _B * len(document) / mean)
        values = {word: tf * (_K1 + 1) / (tf + norm) for word, tf in Counter(document).items()}
        both: dict[str, Any] = {DENSE: vector.astype(float).tolist()}
        if values:
            both[WORDS] = _sparse(models, values)
        yield models.PointStruct(id=point_id(doc_id), vector=both, payload={ID: doc_id})


def _sparse(models: Any, values: dict[str, float]) -> Any:
    by_index: dict[int, float] = {}
    for word, value in values.items():
        index = int(sha256_text(word)[:8], 16)
        by_index[index] = max(value, by_index.get(index, 0.0))
    return models.SparseVector(indices=list(by_index), values=list(by_index.values()))


def _no_answer(error: Exception) -> bool:
    """The client wraps what httpx says, and what pydantic says of an answer, in the same class."""
    import httpx

    return isinstance(getattr(error, "source", error), httpx.TransportError)


def _models() -> Any:
    with from_extra("qdrant", "a Qdrant collection is reached through qdrant-client"):
        from qdrant_client import models
    return models
