"""Redis at recall (Redis 8, Redis Stack): BM25 on a text field, KNN on a vector field, exact scores from the stored vectors.

Words. A text never becomes a part of the query: the query is `$w0|$w1|...`, and the words come beside it as parameters, which
the server compares with its index as they are. No operator of the query language can come from a user, and there is nothing to
escape. The scorer is `BM25STD` (Robertson & Zaragoza 2009, with the IDF of Lucene), which every version from 2.10 of the query
engine has; its k1 = 1.2 and b = 0.5 are fixed by the server, whatever a handbook says of b.

Time. A search that takes too long is cut by the server, and what was found until then is an answer like any other but for a
warning that only version 3 of the protocol carries: an answer of version 2 is refused.
"""

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from corewrite.domain import Documents, words
from corewrite.remote import Budget, spending
from corewrite.search.engines.answers import answered
from corewrite.search.engines.exact import each_text, exact_scores, ranked
from corewrite.search.engines.port import EngineError, Float32Array, FloatArray, IntArray

_AT_ONCE = 64
"""Searches sent before the first answer is read."""
_FILLED = 500
"""Documents written at once."""
_VECTOR = np.dtype("<f4")
"""How a vector lies in its field."""
_MOST_BYTES = 64 * 2**20
"""Size of the answers to one request at most."""
_LONGEST = 128
"""Bytes of a word that the server keeps in an index."""
_Command = tuple[str | int | bytes, ...]


class RedisEngine:
    """An index of the Redis query engine over hashes (a `SearchEngine`).

    A server that does not answer in the client's time, or refuses the login, is an `EngineUnavailableError`, a search that it
    refuses or cuts short an `EngineError`; retries are the client's. Scores are computed here, from vectors fetched by their
    keys: a KNN query with a filter may search approximately, and its distance is a number in single precision.

    Args:
        client: A `redis.Redis` with `protocol=3` and without `decode_responses`.
        index: An index such as `fill_redis` makes, or one of yours.
        documents: What the rows mean.
        text_field: A `TEXT` field. That of `fill_redis` holds the words as split here; one of yours is asked for the same
            words, case-folded.
        vector_field: A `VECTOR` field of type `FLOAT32`, by inner product (`IP`).
        key_prefix: A document's key is this and its id; None: the index' name and a colon.
        timeout_ms: Milliseconds that the server gives to one search, and that a request of one may take in all where the
            client has connections of `corewrite.remote.redis`; None: as it is set there, and any time.
    """

    def __init__(
        self,
        client: Any,
        index: str,
        documents: Documents,
        *,
        text_field: str = "words",
        vector_field: str = "dense",
        key_prefix: str | None = None,
        timeout_ms: float | None = None,
    ) -> None:
        self._client, self._index, self._documents = client, index, documents
        self._text_field, self._vector_field = text_field, vector_field
        self._distance = f"__{vector_field}_score"  # the name that the server gives it
        self._prefix = _prefix(index, key_prefix)
        self._limit: _Command = () if timeout_ms is None else ("TIMEOUT", max(1, int(timeout_ms)))
        self._seconds = None if timeout_ms is None else timeout_ms / 1000

    def search_text(self, texts: Sequence[str], k: int) -> IntArray:
        """See `SearchEngine.search_text`."""
        return self._search([self._by_words(text) for text in texts], k)

    def search_vector(self, vectors: Float32Array, k: int) -> IntArray:
        """See `SearchEngine.search_vector`; exact where the field is `FLAT`, approximate by its graph where it is `HNSW`."""
        return self._search([self._by_vector(vector, k) for vector in vectors], k)

    def score(self, vectors: Float32Array, rows: IntArray) -> FloatArray:
        """See `SearchEngine.score`.

        Raises:
            EngineError: a document could not be read, or holds something else than a vector.
        """
        return exact_scores(vectors, rows, len(self._documents), self._fetch)

    def _by_words(self, text: str) -> _Command | None:
        said = list(dict.fromkeys(word.encode()[:_LONGEST] for word in words(text)))
        if not said:
            return None
        names = [f"w{i}" for i in range(len(said))]
        query = f"@{_escaped(self._text_field)}:({'|'.join(f'${name}' for name in names)})"
        parameters: list[str | bytes] = [part for pair in zip(names, said, strict=True) for part in pair]
        return (query, "NOCONTENT", "WITHSCORES", "SCORER", "BM25STD", "PARAMS", len(parameters), *parameters)

    def _by_vector(self, vector: Float32Array, k: int) -> _Command | None:
        if not vector.any():
            return None
        query = f"*=>[KNN {k} @{_escaped(self._vector_field)} $vector]"
        about: _Command = ("RETURN", 1, self._distance, "SORTBY", self._distance)
        return (query, *about, "PARAMS", 2, "vector", vector.astype(_VECTOR).tobytes())

    def _search(self, queries: Sequence[_Command | None], k: int) -> IntArray:
        """Rows for each query; None finds nothing."""
        found: list[list[tuple[float, int]]] = [[] for _ in queries]
        asked = [(i, query) for i, query in enumerate(queries) if query is not None and k > 0]
        for start in range(0, len(asked), _AT_ONCE):
            part = asked[start : start + _AT_ONCE]
            last: _Command = ("LIMIT", 0, k, *self._limit, "DIALECT", 2)
            # Each search has its time on the server.
            seconds = None if self._seconds is None else self._seconds * len(part)
            answers = self._ask([("FT.SEARCH", self._index, *query, *last) for _, query in part], "a search in", seconds)
            with answered(f"a search in {self._index!r}", _no_answer):
                for (i, _), answer in zip(part, answers, strict=True):
                    found[i] = self._hits(answer)
        return ranked(found, k)

    def _hits(self, answer: Any) -> list[tuple[float, int]]:
        if not isinstance(answer, dict) or b"results" not in answer:
            raise EngineError(
                f"index {self._index!r} answers in a form that does not say whether an answer is whole: open the client with "
                "protocol=3 and without decode_responses"
            )
        if answer[b"warning"]:
            said = "; ".join(w.decode("utf-8", "replace") for w in answer[b"warning"])
            raise EngineError(f"a search in {self._index!r} was answered in part: {said[:200]}")
        named = {doc_id: hit for hit in answer[b"results"] if (doc_id := self._parse_id(hit[b"id"])) is not None}
        rows = self._documents.find(list(named)).tolist()
        return [(self._parse_score(hit), row) for hit, row in zip(named.values(), rows, strict=True) if row >= 0]

    def _parse_score(self, hit: dict[bytes, Any]) -> float:
        """In single precision, so that what differs by the order of a sum is equal."""
        if b"score" in hit:
            return float(np.float32(hit[b"score"]))
        return -float(np.float32(hit[b"extra_attributes"][self._distance.encode()]))

    def _parse_id(self, key: bytes) -> str | None:
        """The document's id; None of a key that is none of ours."""
        try:
            name = key.decode("utf-8")
        except UnicodeDecodeError:
            return None
        return name.removeprefix(self._prefix) if name.startswith(self._prefix) else None

    def _fetch(self, rows: list[int]) -> dict[int, Float32Array]:
        ids = self._documents.load_ids(np.array(rows, np.int64))
        commands: list[_Command] = [("HGET", self._prefix + doc_id, self._vector_field) for doc_id in ids]
        answers = self._ask(commands, "a document of", self._seconds)
        held: dict[int, Float32Array] = {}
        for row, doc_id, stored in zip(rows, ids, answers, strict=True):
            if stored is None:
                continue
            if not isinstance(stored, bytes) or len(stored) % _VECTOR.itemsize:
                raise EngineError(f"{self._vector_field!r} of document {doc_id!r} in {self._index!r} is no vector of FLOAT32")
            held[row] = np.frombuffer(stored, _VECTOR)
        return held

    def _ask(self, commands: Sequence[_Command], what: str, seconds: float | None = None) -> list[Any]:
        """Send all, then read all. The client's own message of a failed pipeline holds the command, and so what users typed."""
        with (
            answered(f"{what} {self._index!r}", _no_answer),
            spending(Budget(seconds, _MOST_BYTES)),
            self._client.pipeline(transaction=False) as pipeline,
        ):
            for command in commands:
                pipeline.execute_command(*command)
            answers: list[Any] = pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception):
                raise EngineError(f"{what} {self._index!r} failed: {str(answer)[:200]}")
        return answers


def _no_answer(error: Exception) -> bool:
    from redis.exceptions import ConnectionError, TimeoutError

    return isinstance(error, ConnectionError | TimeoutError)


def fill_redis(
    client: Any, index: str, documents: Documents, vectors: Float32Array, *, algorithm: Literal["FLAT", "HNSW"] = "HNSW"
) -> None:
    """Make an index of the documents, with a hash for each.

    Args:
        client: A `redis.Redis` with `protocol=3` and without `decode_responses`.
        index: Its name, with a colon what the keys begin with; neither may be there yet. Documents that changed get another:
            switch by opening it.
        documents: The documents.
        vectors: Their vectors, float32 [documents, dims].
        algorithm: How vectors are searched: all of them, or along a graph.

    Raises:
        EngineError: the server did not take every document into the index.
        ValueError: the index or a key is there, or the vectors do not fit the documents.
    """
    if len(vectors) != len(documents):
        raise ValueError(f"{len(vectors)} vectors for {len(documents)} documents")
    prefix = _prefix(index, None)
    for start in range(0, len(documents), _FILLED):
        ids = documents.load_ids(np.arange(start, min(start + _FILLED, len(documents))))
        if client.exists(*(prefix + doc_id for doc_id in ids)):
            raise ValueError(f"keys that begin with {prefix!r} are there already: give a new name, or delete them first")
    vector: _Command = ("TYPE", "FLOAT32", "DIM", vectors.shape[1], "DISTANCE_METRIC", "IP")
    schema: _Command = ("words", "TEXT", "NOSTEM", "dense", "VECTOR", algorithm, len(vector), *vector)
    try:
        client.execute_command("FT.CREATE", index, "ON", "HASH", "PREFIX", 1, prefix, "STOPWORDS", 0, "SCHEMA", *schema)
    except Exception as error:  # the client's own class, which is not imported for this
        if "already exists" not in str(error):
            raise
        raise ValueError(f"index {index!r} is there already: give a new name, or delete it first") from error
    with client.pipeline(transaction=False) as pipeline:
        for (doc_id, text), stored in zip(each_text(documents), vectors, strict=True):
            both = {"words": " ".join(words(text)), "dense": stored.astype(_VECTOR).tobytes()}
            pipeline.hset(prefix + doc_id, mapping=both)
            if len(pipeline) >= _FILLED:
                pipeline.execute()
        pipeline.execute()
    info = client.execute_command("FT.INFO", index)
    if int(info[b"num_docs"]) != len(documents):
        raise EngineError(f"index {index!r} took {int(info[b'num_docs'])} of {len(documents)} documents")


def _prefix(index: str, given: str | None) -> str:
    return f"{index}:" if given is None else given


def _escaped(field: str) -> str:
    """A field's name in a query."""
    return re.sub(r"([^\w])", r"\\\1", field, flags=re.ASCII)
