"""What a model's inputs are filled with: the text, and any column of the documents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corewrite.domain import Documents
from corewrite.relevance.backends.errors import ScoreError
from corewrite.relevance.backends.pairs import Pair, document_texts

Tensor = list[str] | npt.NDArray[np.float32] | npt.NDArray[np.int64]
"""One value per pair: texts, numbers [pairs, 1], vectors [pairs, k], padded lists of vectors [pairs, longest, k]."""


@dataclass(frozen=True)
class Input:
    """One input of a model.

    Attributes:
        source: `text` (query or rewrite), `document` (title and text), `document.id`, `document.COLUMN`, or
            `document.COLUMN#count`, the number of vectors of a list.
        missing: Stands for a number or vector that a document does not have; None: such a document has no score.
    """

    source: str
    missing: float | None = None


class PairInputs:
    """Fills the inputs of a model for pairs of a text and a document.

    Args:
        documents: What the rows mean.
        inputs: By the names of the model's inputs.

    Raises:
        ValueError: an input is filled with a column that the documents do not have.
    """

    def __init__(self, documents: Documents, inputs: Mapping[str, Input]) -> None:
        self._documents, self._inputs = documents, dict(inputs)
        for name, given in self._inputs.items():
            column = _column(given.source)
            if column is not None and column not in documents.column_names:
                raise ValueError(
                    f"input {name!r} is filled with {given.source!r}, but the documents have no column {column!r}: there are "
                    f"{', '.join(documents.column_names)}"
                )

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs that are filled."""
        return tuple(self._inputs)

    def tensors(self, pairs: Sequence[Pair]) -> dict[str, Tensor]:
        """The inputs of some pairs, by name.

        Raises:
            ScoreError: a document lacks a number or a vector, and nothing stands for it.
        """
        rows = np.array([row for _, row in pairs], np.int64)
        return {name: self._tensor(name, given, pairs, rows) for name, given in self._inputs.items()}

    def _tensor(self, name: str, given: Input, pairs: Sequence[Pair], rows: npt.NDArray[np.int64]) -> Tensor:
        if given.source == "text":
            return [text for text, _ in pairs]
        if given.source == "document":
            return document_texts(self._documents, rows)
        if given.source == "document.id":
            return self._documents.load_ids(rows)
        column = _column(given.source)
        assert column is not None
        values = self._documents.column(column, rows)
        if isinstance(values, list):
            if all(isinstance(v, str) for v in values):
                return [str(v) for v in values]
            lists = [np.asarray(v, np.float32) for v in values]
            if given.source.endswith("#count"):
                return np.array([[len(v)] for v in lists], np.int64)
            return self._whole(name, given, _padded(lists), rows)
        numbers = np.asarray(values, np.float32)
        return self._whole(name, given, numbers[:, None] if numbers.ndim == 1 else numbers, rows)

    def _whole(
        self, name: str, given: Input, values: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        absent = ~np.isfinite(values)
        if not absent.any():
            return values
        if given.missing is None:
            first = int(np.flatnonzero(absent.reshape(len(values), -1).any(1))[0])
            raise ScoreError(
                f"document {self._documents.id_at(int(rows[first]))!r} has no {_column(given.source)!r} for the input {name!r}"
                ": complete the column, or set `missing` of the input"
            )
        return np.where(absent, np.float32(given.missing), values)


def _column(source: str) -> str | None:
    """The column that a source reads; None where it reads none."""
    column = source.removeprefix("document.").removesuffix("#count")
    return None if source in ("text", "document", "document.id") else column


def _padded(lists: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Lists of vectors side by side, [pairs, longest, k]."""
    width = max([1, *(len(v) for v in lists)])
    size = next((v.shape[1] for v in lists if v.ndim == 2 and len(v)), 1)
    out = np.zeros((len(lists), width, size), np.float32)
    for i, v in enumerate(lists):
        if len(v):
            out[i, : len(v)] = v
    return out
