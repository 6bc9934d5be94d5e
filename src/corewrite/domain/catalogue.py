"""The documents in memory, column by column."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from corewrite.domain.documents import ColumnValues, RepeatedIds, checked_rows, column_error, known_rows
from corewrite.domain.hashing import sha256_chunks, sha256_json

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

Column = tuple[str, ...] | FloatArray | Float32Array | tuple[Float32Array, ...]
"""All values of a column: texts; numbers, float64 [documents]; vectors, float32 [documents, k]; or lists of vectors, for each
document float32 [frames, k]. See `ColumnValues` for what is missing."""

_FIELDS = {"id": "ids", "title": "titles", "text": "texts", "visual": "visual", "seconds": "seconds", "prior": "prior"}


@dataclass(frozen=True, eq=False)
class Catalogue:
    """All documents of a search engine at one time, in memory (`Documents`).

    The six columns that the embedded models know have fields of their own; `column` gives them as `id`, `title`, `text`,
    `visual`, `seconds` and `prior`.

    Attributes:
        ids: Document ids, unique, shape [documents].
        titles: Title of each document.
        texts: Further text of each document (tags, creator, transcript), may be empty strings.
        visual: Picture embedding, float32 [documents, dimensions]; a row of NaN where a document has no picture.
        seconds: Duration, float64 [documents]; NaN where unknown.
        prior: Query-independent quality in (0, 1], float64 [documents] (popularity, freshness, ...).
        columns: Further columns by name.
        left_out: Columns that `column` refuses, with the reason. A field of one of them holds its default all through: no
            text, a visual of one zero, unknown duration, prior 1.
    """

    ids: tuple[str, ...]
    titles: tuple[str, ...]
    texts: tuple[str, ...]
    visual: npt.NDArray[np.float32]
    seconds: FloatArray
    prior: FloatArray
    columns: Mapping[str, Column] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.ids)
        known: dict[str, Column] = {name: getattr(self, name) for name in ("titles", "texts", "visual", "seconds", "prior")}
        for name, values in (known | dict(self.columns)).items():
            if len(values) != n:
                raise ValueError(f"catalogue column {name!r} has {len(values)} rows, ids has {n}")
        if taken := sorted(_FIELDS.keys() & self.columns.keys()):
            raise ValueError(f"column {taken[0]!r} has a field of its own: give it there")
        if len(self.rows_by_id) != n:
            first: dict[str, int] = {}
            places = ((doc_id, first.setdefault(doc_id, row), row) for row, doc_id in enumerate(self.ids))
            raise ValueError(f"catalogue {RepeatedIds.of(p for p in places if p[1] != p[2])}")

    @classmethod
    def of_ids(cls, ids: Sequence[str]) -> "Catalogue":
        """Documents of which nothing but the ids is known."""
        n = len(ids)
        unknown = {name: "only ids are known" for name in _FIELDS if name != "id"}
        visual, seconds = np.zeros((n, 1), np.float32), np.full(n, np.nan)
        return cls(tuple(ids), ("",) * n, ("",) * n, visual, seconds, np.ones(n), left_out=unknown)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def rows_by_id(self) -> dict[str, int]:
        """Row by document id."""
        return {doc_id: row for row, doc_id in enumerate(self.ids)}

    @property
    def column_names(self) -> tuple[str, ...]:
        """See `Documents.column_names`."""
        return tuple(name for name in (*_FIELDS, *self.columns) if name not in self.left_out)

    def id_at(self, row: int) -> str:
        """See `Documents.id_at`."""
        return self.load_ids(np.array([row], np.int64))[0]

    def load_ids(self, rows: IntArray) -> list[str]:
        """See `Documents.load_ids`."""
        return [self.ids[row] for row in checked_rows(rows, len(self)).tolist()]

    def rows(self, ids: Sequence[str]) -> IntArray:
        """See `Documents.rows`."""
        return known_rows(self.find(ids), ids)

    def find(self, ids: Sequence[str]) -> IntArray:
        """See `Documents.find`."""
        return np.array([self.rows_by_id.get(doc_id, -1) for doc_id in ids], np.int64)

    def column(self, name: str, rows: IntArray) -> ColumnValues:
        """See `Documents.column`."""
        if name not in self.column_names:
            raise column_error(name, self.column_names, self.left_out.get(name))
        values: Column = getattr(self, _FIELDS[name]) if name in _FIELDS else self.columns[name]
        rows = checked_rows(rows, len(self))
        if isinstance(values, np.ndarray):
            return values[rows]  # type: ignore[return-value]
        return [values[row] for row in rows.tolist()]  # type: ignore[return-value]

    @cached_property
    def content_hash(self) -> str:
        """Hash over every column."""
        known = [
            sha256_json([self.ids, self.titles, self.texts]).encode(),
            np.ascontiguousarray(self.visual).tobytes(),
            # Unknown is hashed as 0, as it was written once.
            np.where(np.isnan(self.seconds), 0.0, self.seconds).tobytes(),
            self.prior.tobytes(),
        ]
        return sha256_chunks([*known, *(_column_hash(name, self.columns[name]).encode() for name in sorted(self.columns))])


def _column_hash(name: str, values: Column) -> str:
    if isinstance(values, np.ndarray):
        return sha256_json([name, str(values.dtype), values.shape, sha256_chunks([np.ascontiguousarray(values).tobytes()])])
    if values and isinstance(values[0], np.ndarray):
        frames = [np.ascontiguousarray(v) for v in values]
        return sha256_json([name, [v.shape for v in frames], sha256_chunks(v.tobytes() for v in frames)])  # type: ignore[union-attr]
    return sha256_json([name, values])
