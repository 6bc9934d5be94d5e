"""The catalogue (see `search.documents`) and the raters' labels as Parquet."""

import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corewrite.deployment.inputs import LABELS
from corewrite.domain import Documents, query_columns, query_from_row
from corewrite.relevance import Labels, LeftOutLabels
from corewrite.search.documents import DocumentsError, read_catalogue, read_columns, write_catalogue
from corewrite.storage.durable import naming

__all__ = ["DocumentsError", "LabelsWarning", "read_catalogue", "read_labels", "write_catalogue", "write_labels"]


def write_labels(labels: Labels, documents: Documents, path: Path) -> None:
    """Write raters' labels: query, context_queries, context_titles, locale, document_id, grade."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            **query_columns(labels.queries),
            "document_id": documents.load_ids(labels.rows),
            "grade": labels.grades,
        }
    )
    with naming(path):
        pq.write_table(table, path)


class LabelsWarning(UserWarning):
    """Rated results that are not used."""


def read_labels(path: Path, documents: Documents, *, first: int | None = None) -> Labels:
    """Read what `write_labels` wrote; the context columns may be missing.

    Labels of documents that are not there are left out, and warned of: documents go, and a week must not stop for it.

    Args:
        path: The file.
        documents: Those that there are.
        first: Only so many rows of the file, from its beginning; None: all.

    Raises:
        DocumentsError: the file cannot be read, lacks a column, or most of its documents are unknown.
    """
    return labels_of_table(read_columns(path, LABELS).slice(0, first), path, documents)


def labels_of_table(table: pa.Table, path: Path, documents: Documents) -> Labels:
    """The labels in rows of the file `path`; see `read_labels`."""
    rated = table.to_pylist()
    whole = np.array([all(r[name] is not None and r[name] == r[name] for name in LABELS) for r in rated], np.bool_)
    ids = ["" if r["document_id"] is None else str(r["document_id"]) for r in rated]
    places = np.where(whole, documents.find(ids), -1)
    used = [r for r, place in zip(rated, places.tolist(), strict=True) if place >= 0]
    left_out = None
    if len(used) < len(rated):
        first = rated[int(np.flatnonzero(places < 0)[0])]
        example = f"document {first['document_id']!r} for query {first['query']!r} with grade {first['grade']}"
        incomplete = int((~whole).sum())
        missing = len(rated) - len(used)
        left_out = LeftOutLabels(missing, len(rated), missing - incomplete, incomplete, example)
        if 2 * len(used) < len(rated):
            raise DocumentsError(f"{path}: {left_out}: bring the labels of these documents")
        warnings.warn(f"{path}: {left_out}", LabelsWarning, stacklevel=1)
    queries = [query_from_row(r | {"query": str(r["query"])}) for r in used]
    return Labels(queries, places[places >= 0], np.array([r["grade"] for r in used], np.float64), left_out)
