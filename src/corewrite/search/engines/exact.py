"""Scores and lists that every engine makes alike."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from corewrite.domain import Documents
from corewrite.domain.documents import text_column
from corewrite.search.engines.port import EngineError, Float32Array, FloatArray, IntArray

_LARGEST = sys.float_info.max
_FETCHED = 1_000
"""Documents fetched at once."""


def each_text(documents: Documents) -> Iterator[tuple[str, str]]:
    """Id, and title and text, of every document in the order of the rows."""
    for start in range(0, len(documents), _FETCHED):
        rows = np.arange(start, min(start + _FETCHED, len(documents)))
        titles = text_column(documents, "title", rows)
        texts = text_column(documents, "text", rows) if "text" in documents.column_names else [""] * len(rows)
        yield from zip(documents.load_ids(rows), (f"{a} {b}" for a, b in zip(titles, texts, strict=True)), strict=True)


def exact_scores(
    vectors: Float32Array, rows: IntArray, documents: int, fetch: Callable[[list[int]], Mapping[int, npt.ArrayLike]]
) -> FloatArray:
    """Inner products with stored vectors, fetched by their rows; see `SearchEngine.score`.

    Args:
        vectors: Float32 [vectors, dims].
        rows: Int64 [vectors, documents]; -1 pads.
        documents: How many there are.
        fetch: The vector by row, of the rows that the engine holds.

    Raises:
        EngineError: what is stored for a document is no vector.
        ValueError: the shapes do not fit, or a row is not among the documents.
    """
    rows = np.asarray(rows, np.int64)
    if rows.ndim != 2 or len(rows) != len(vectors):
        raise ValueError(f"rows have shape {rows.shape}, there are {len(vectors)} vectors: give one line of rows per vector")
    if rows.max(initial=-1) >= documents:
        raise ValueError(f"row {rows.max()} is not among the {documents} documents")
    distinct = np.unique(rows[rows >= 0])
    held = np.full((len(distinct), vectors.shape[1]), np.nan)
    for start in range(0, len(distinct), _FETCHED):
        for row, stored in fetch(distinct[start : start + _FETCHED].tolist()).items():
            vector = _numbers(stored)
            if vector is None:
                raise EngineError(f"what is stored as the vector of row {row} is no list of finite numbers")
            if len(vector) != vectors.shape[1]:
                raise ValueError(f"the stored vector of row {row} has {len(vector)} dimensions, the query's {vectors.shape[1]}")
            held[np.searchsorted(distinct, row)] = vector
    out = np.zeros(rows.shape)
    for i, vector in enumerate(vectors.astype(np.float64)):
        there = rows[i] >= 0
        out[i, there] = held[np.searchsorted(distinct, rows[i, there])] @ vector
    return out


def ranked(found: Sequence[Sequence[tuple[float, int]]], k: int) -> IntArray:
    """Lists of (score, row), highest score first and equal ones by row, as int64 [lists, k]; -1 pads.

    A document that stands twice, as of an index with several entries a document, counts once, by its highest score.

    Raises:
        EngineError: a score is no finite number.
    """
    out = np.full((len(found), max(0, k)), -1, np.int64)
    for i, hits in enumerate(found):
        if wrong := [score for score, _ in hits if not (isinstance(score, int | float) and abs(score) <= _LARGEST)]:
            raise EngineError(f"a document came with the score {wrong[0]!r:.40}, which is no finite number")
        rows = list(dict.fromkeys(row for _, row in sorted(hits, key=lambda hit: (-hit[0], hit[1]))))[: max(0, k)]
        out[i, : len(rows)] = rows
    return out


def _numbers(stored: npt.ArrayLike) -> FloatArray | None:
    """A vector as an engine stores it; None of anything else."""
    try:
        found = np.asarray(stored)
    except (ValueError, OverflowError):
        return None
    if found.ndim != 1 or found.dtype.kind not in "fiu" or not np.isfinite(found).all():
        return None
    return found.astype(np.float64)
