"""The catalogue (see `search.documents`) and the raters' labels as Parquet."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corewrite.domain import Documents, query_columns, query_from_row
from corewrite.relevance import Labels
from corewrite.search.documents import DocumentsError, read_catalogue, read_columns, write_catalogue
from corewrite.storage.durable import naming

__all__ = ["DocumentsError", "read_catalogue", "read_labels", "write_catalogue", "write_labels"]


def write_labels(labels: Labels, documents: Documents, path: Path) -> None:
    """Write raters' labels: query, context_queries, context_titles, locale, document_id, grade."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            **query_columns(labels.queries),
            "document_id": documents.ids_of(labels.rows),
            "grade": labels.grades,
        }
    )
    with naming(path):
        pq.write_table(table, path)


def read_labels(path: Path, documents: Documents) -> Labels:
    """Read what `write_labels` wrote; the context columns may be missing.

    Labels of documents that are not there are left out: documents go, and a week must not stop for it.

    Raises:
        DocumentsError: the file cannot be read, lacks a column, or most of its documents are unknown.
    """
    rated = read_columns(path, ("query", "document_id", "grade")).to_pylist()
    ids = [str(r["document_id"]) for r in rated]
    places = documents.find(ids)
    rows = [r for r, place in zip(rated, places.tolist(), strict=True) if place >= 0]
    if 2 * len(rows) < len(rated):
        unknown = ids[int(np.flatnonzero(places < 0)[0])]
        raise DocumentsError(
            f"{path}: {len(rated) - len(rows)} of {len(rated)} labels are of documents that are not in the catalogue, such as "
            f"{unknown!r}: bring the labels of these documents"
        )
    queries = [query_from_row(r | {"query": str(r["query"])}) for r in rows]
    return Labels(queries, places[places >= 0], np.array([r["grade"] for r in rows], np.float64))
