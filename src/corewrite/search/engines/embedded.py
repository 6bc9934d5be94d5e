"""The embedded search engine: tantivy for words, faiss for vectors."""

from collections.abc import Callable, Sequence
from typing import Final

import faiss
import numpy as np
import tantivy

from corewrite.domain import Catalogue, words
from corewrite.relevance.spelling import may_be_misspelt
from corewrite.search.engines.exact import exact_scores
from corewrite.search.engines.port import Float32Array, FloatArray, IntArray

_FIELDS: Final = {"title": 1.0, "text": 1.0}
"""How much a word in each field counts; on the simulated platform a title of two or four times a text ranks no better."""


class EmbeddedEngine:
    """tantivy (BM25 over title and text) and faiss (inner product), in memory (a `SearchEngine`); vectors are searched exactly.

    Words are corrected first; titles and texts are fields of their own. A word that no document holds is looked for
    as the beginning of another, with one slip.

    Args:
        catalogue: The documents.
        vectors: Their vectors, float32 [documents, dims].
        correct: Corrects the spelling of texts, as the relevance model reads them; None: they are searched as they are.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        vectors: Float32Array,
        correct: Callable[[Sequence[str]], Sequence[str]] | None = None,
    ) -> None:
        self._vectors = vectors
        self._correct = correct
        builder = tantivy.SchemaBuilder()
        # The words are split by our own tokeniser, so that the query is split alike: "raw" on a joined list would be
        # one token, "whitespace" keeps them as they are.
        for field in _FIELDS:
            builder.add_text_field(field, stored=False, tokenizer_name="whitespace", index_option="freq")
        builder.add_integer_field("row", stored=False, fast=True)
        self._schema = builder.build()
        index = tantivy.Index(self._schema)
        writer = index.writer(heap_size=64 * 2**20, num_threads=1)
        known: set[str] = set()
        for row, (title, text) in enumerate(zip(catalogue.titles, catalogue.texts, strict=True)):
            said = dict(zip(_FIELDS, (words(title), words(text)), strict=True))
            known.update(*said.values())
            writer.add_document(tantivy.Document(row=row, **{field: " ".join(own) for field, own in said.items()}))
        writer.commit()
        writer.wait_merging_threads()
        index.reload()
        self._known = frozenset(known)
        self._searcher = index.searcher()
        self._faiss = faiss.IndexFlatIP(vectors.shape[1])
        self._faiss.add(np.ascontiguousarray(vectors))

    def search_text(self, texts: Sequence[str], k: int) -> IntArray:
        """See `SearchEngine.search_text`."""
        out = np.full((len(texts), max(0, k)), -1, np.int64)
        for i, text in enumerate(texts if self._correct is None else self._correct(texts)):
            rows = self._said(text, k)
            out[i, : len(rows)] = rows
        return out

    def search_vector(self, vectors: Float32Array, k: int) -> IntArray:
        """See `SearchEngine.search_vector`."""
        if k <= 0:
            return np.empty((len(vectors), 0), np.int64)
        found = np.asarray(self._faiss.search(np.ascontiguousarray(vectors, np.float32), k)[1], np.int64)
        return np.where(np.any(vectors, 1)[:, None], found, -1)

    def score(self, vectors: Float32Array, rows: IntArray) -> FloatArray:
        """See `SearchEngine.score`."""
        return exact_scores(vectors, rows, len(self._vectors), lambda wanted: {row: self._vectors[row] for row in wanted})

    def _said(self, text: str, k: int) -> list[int]:
        terms = dict.fromkeys(words(text))
        if not terms or k <= 0:
            return []
        clauses = [
            (tantivy.Occur.Should, tantivy.Query.boost_query(self._term(field, term), weight))
            for term in terms
            for field, weight in _FIELDS.items()
        ]
        query = tantivy.Query.boolean_query(clauses)
        found = self._searcher.search(query, k, count=False)
        addresses = [address for _, address in found.hits]
        scores = [score for score, _ in found.hits]
        rows = self._searcher.fast_field_values("row", addresses) if addresses else []
        return [row for _, row in sorted(zip([-s for s in scores], map(int, rows), strict=True))]

    def _term(self, field: str, term: str) -> tantivy.Query:
        if term in self._known or not may_be_misspelt(term):
            return tantivy.Query.term_query(self._schema, field, term)
        return tantivy.Query.fuzzy_term_query(self._schema, field, term, distance=1, transposition_cost_one=True, prefix=True)
