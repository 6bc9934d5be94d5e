"""What the rest of the system asks of the documents; a document is addressed by its row."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

ColumnValues = list[str] | FloatArray | Float32Array | list[Float32Array]
"""Values of some rows of a column: texts; numbers, float64 [n]; vectors, float32 [n, k]; or lists of vectors, n arrays of
float32 [frames, k].

What is missing is never zero: a missing number is NaN, a missing vector a row of NaN, a missing list of vectors has no frames
(shape [0, k]). A missing text is the empty text.
"""


class Documents(Protocol):
    """The documents of a search engine at one time, in memory (`Catalogue`) or on disk (`DocumentStore`)."""

    @property
    def column_names(self) -> tuple[str, ...]:
        """Columns that `column` gives: `id` and `title`, and what else the documents have."""
        ...

    @property
    def left_out(self) -> Mapping[str, str]:
        """Columns that `column` refuses although their source has them, and `text`, `visual`, `seconds` or `prior` where it
        has none, with the reason."""
        ...

    def __len__(self) -> int: ...

    def id_at(self, row: int) -> str:
        """Id of the document at `row`.

        Raises:
            ValueError: there is no such row.
        """
        ...

    def load_ids(self, rows: IntArray) -> list[str]:
        """Ids of the documents at `rows`, int64 [n].

        Raises:
            ValueError: a row is not in the documents.
        """
        ...

    def rows(self, ids: Sequence[str]) -> IntArray:
        """Rows of `ids`, int64 [n].

        Raises:
            KeyError: an id is unknown; it is named.
        """
        ...

    def find(self, ids: Sequence[str]) -> IntArray:
        """Rows of `ids`, int64 [n]; -1 where an id is unknown."""
        ...

    def column(self, name: str, rows: IntArray) -> ColumnValues:
        """Values of a column.

        Args:
            name: One of `column_names`.
            rows: Int64 [n], without pads.

        Raises:
            ValueError: there is no such column (both it and those that there are get named), or a row is not in the documents.
        """
        ...


def checked_rows(rows: IntArray, documents: int) -> IntArray:
    """`rows` as int64.

    Raises:
        ValueError: they have more than one dimension, or one is not in [0, documents).
    """
    rows = np.asarray(rows, np.int64)
    if rows.ndim != 1:
        raise ValueError(f"rows have shape {rows.shape}: give a flat list of them")
    if len(rows) and (rows.min() < 0 or rows.max() >= documents):
        bad = rows[(rows < 0) | (rows >= documents)][0]
        raise ValueError(f"row {bad} is not among the {documents} documents")
    return rows


def known_rows(rows: IntArray, ids: Sequence[str]) -> IntArray:
    """`rows` as `find` gave them for `ids`.

    Raises:
        KeyError: one is -1; the id is named.
    """
    unknown = np.flatnonzero(rows < 0)
    if len(unknown):
        raise KeyError(ids[unknown[0]])
    return rows


def sample_rows(documents: int, most: int, *key: int) -> IntArray:
    """All rows of some documents, or where there are more a sample of `most`, ascending, int64 [n].

    Args:
        documents: How many there are.
        most: Rows wanted at most.
        key: Chooses the sample.
    """
    if documents <= most:
        return np.arange(documents)
    return np.sort(np.random.default_rng(key).choice(documents, most, replace=False))


def known_ids(documents: Documents, ids: Iterable[str]) -> set[str]:
    """Those of `ids` that the documents have."""
    distinct = list(dict.fromkeys(ids))
    return {doc_id for doc_id, row in zip(distinct, documents.find(distinct).tolist(), strict=True) if row >= 0}


@dataclass(frozen=True)
class RepeatedIds:
    """Documents that have the id of an earlier one.

    Attributes:
        count: How many.
        examples: Of the first of them id, row of the earlier document, and own row.
    """

    count: int
    examples: tuple[tuple[str, int, int], ...]

    @classmethod
    def of(cls, found: Iterable[tuple[str, int, int]]) -> "RepeatedIds | None":
        """Those among `found` (id, earlier row, own row), in any order; None where there is none."""
        count, first = 0, list[tuple[str, int, int]]()
        for one in found:
            count += 1
            first = sorted([*first, one], key=lambda x: x[2])[:_EXAMPLES]
        return cls(count, tuple(first)) if count else None

    def __str__(self) -> str:
        first, *others = (f"{doc_id!r} is at rows {a} and {b}" for doc_id, a, b in self.examples)
        more = f", and {self.count - len(self.examples)} more" if self.count > len(self.examples) else ""
        several = f" ({self.count} documents have the id of an earlier one)" if self.count > 1 else ""
        return f"ids are not unique: {', '.join([first, *others])}{more}{several}: leave one document of each"


_EXAMPLES = 3


def column_error(name: str, names: Sequence[str], reason: str | None = None) -> ValueError:
    """The error for a column that cannot be given.

    Args:
        name: What was asked for.
        names: What there is.
        reason: Why it is not among them, where that is known.
    """
    return ValueError(f"the documents have no column {name!r}{f' ({reason})' if reason else ''}; there are {', '.join(names)}")


def text_column(documents: Documents, name: str, rows: IntArray) -> list[str]:
    """Values of a text column.

    Raises:
        ValueError: there is no such column, it holds no texts, or a row is not in the documents.
    """
    values = documents.column(name, rows)
    if isinstance(values, np.ndarray) or any(not isinstance(v, str) for v in values):
        raise ValueError(f"column {name!r} of the documents does not hold texts")
    return values  # type: ignore[return-value]


def number_column(documents: Documents, name: str, rows: IntArray) -> FloatArray:
    """Values of a number column, float64 [n]; NaN where one is missing.

    Raises:
        ValueError: there is no such column, it holds no numbers, or a row is not in the documents.
    """
    values = documents.column(name, rows)
    if not isinstance(values, np.ndarray) or values.ndim != 1:
        raise ValueError(f"column {name!r} of the documents does not hold numbers")
    return np.asarray(values, np.float64)


def load_prior(documents: Documents, rows: IntArray) -> FloatArray:
    """Query-independent quality in (0, 1] of `rows`, float64 [n]: 1 where the documents say none."""
    if "prior" not in documents.column_names:
        return np.ones(len(rows))
    return number_column(documents, "prior", rows)
