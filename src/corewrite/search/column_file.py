"""Columns of an Arrow file, read row by row."""

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corewrite.domain import ColumnValues
from corewrite.search.document_columns import ColumnType, Kind

IntArray = npt.NDArray[np.int64]

_GAP = 4_096
"""Bytes that are read along rather than skipped."""


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a column lies in the file, by record batch: int64 [batches].

    Attributes:
        values: The first byte of its values.
        offsets: The first byte of its offsets; None where all values are of one size.
    """

    values: IntArray
    offsets: IntArray | None


class ColumnFile:
    """An Arrow IPC file of documents as `document_columns.kept` makes them, without nulls and not compressed.

    Rows are read with `pread`, and nothing of the file stays in the process. A memory map is slower and larger: the kernel
    brings the neighbourhood of every touched page into the process, 64 KiB or, where large pages cache the file, megabytes, so
    that a few thousand rows make the process as large as the file; and giving them back costs more than reading.

    Args:
        path: The file.
        types: Of its columns.

    Raises:
        pa.ArrowException: it is no Arrow file.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path, types: Sequence[ColumnType]) -> None:
        self._types = tuple(types)
        self._starts, self._places = _layout(path, self._types)
        self._file = path.open("rb", buffering=0)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, column: int, rows: IntArray) -> ColumnValues:
        """Values of a column.

        Args:
            column: Its number.
            rows: Ascending, int64 [n]; a row may stand more than once.

        Returns:
            See `Documents.column`.
        """
        wanted, place = self._types[column], self._places[column]
        size = {Kind.TEXT: 1, Kind.NUMBER: 8}.get(wanted.kind, 4 * wanted.width)
        batch = np.searchsorted(self._starts, rows, "right") - 1
        local = rows - self._starts[batch]
        if place.offsets is None:
            first = place.values[batch] + size * local
            number, count = ("<f8", 1) if wanted.kind is Kind.NUMBER else ("<f4", wanted.width)
            found = self._numbers(first, number, count)
            return found[:, 0] if wanted.kind is Kind.NUMBER else found
        offsets = self._numbers(place.offsets[batch] + 8 * local, "<i8", 2)
        first, last = (place.values[batch, None] + size * offsets).T
        content, at = self._spans(first, last)
        parts = zip(at.tolist(), (at + last - first).tolist(), strict=True)
        if wanted.kind is Kind.TEXT:
            return [content[a:b].decode("utf-8") for a, b in parts]
        return [np.frombuffer(content[a:b], "<f4").reshape(-1, wanted.width).copy() for a, b in parts]

    def _numbers(self, first: IntArray, number: str, count: int) -> npt.NDArray[Any]:
        """`count` numbers from each place on, [places, count]; places are multiples of a number's size."""
        size = np.dtype(number).itemsize
        content, at = self._spans(first, first + size * count)
        found: npt.NDArray[Any] = np.frombuffer(content, number)[at[:, None] // size + np.arange(count)]
        return found

    def _spans(self, first: IntArray, last: IntArray) -> tuple[bytes, IntArray]:
        """What stands from each `first` to before its `last`, ascending, and where it begins in what was read."""
        if not len(first):
            return b"", first
        new = np.ones(len(first), np.bool_)
        new[1:] = first[1:] > np.maximum.accumulate(last)[:-1] + _GAP
        heads = np.flatnonzero(new)
        starts, ends = first[heads], np.maximum.reduceat(last, heads)
        content = b"".join(self._read(a, b - a) for a, b in zip(starts.tolist(), ends.tolist(), strict=True))
        before = np.cumsum(ends - starts) - (ends - starts)
        of = np.cumsum(new) - 1
        return content, before[of] + first - starts[of]

    def _read(self, start: int, size: int) -> bytes:
        found = os.pread(self._file.fileno(), size, start)
        while len(found) < size:  # interrupted, or more than the system reads at once
            more = os.pread(self._file.fileno(), size - len(found), start + len(found))
            if not more:
                raise OSError(f"{self._file.name} ends at byte {start + len(found)}, in the middle of a value: it was changed")
            found += more
        return found


def _layout(path: Path, types: Sequence[ColumnType]) -> tuple[IntArray, list[_Place]]:
    """The first row of each batch, with the number of rows last, and where each column lies."""
    with path.open("rb") as file:
        whole = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    table = pa.ipc.open_file(pa.BufferReader(whole))
    batches = [table.get_batch(i) for i in range(table.num_record_batches)]
    starts = np.cumsum([0, *(b.num_rows for b in batches)]).astype(np.int64)

    def begin(buffers: list[pa.Buffer | None]) -> IntArray:
        # Empty buffers may be anywhere, or nowhere; nothing is read of them.
        return np.array([b.address - whole.address if b is not None and b.size else 0 for b in buffers], np.int64)

    places = []
    for i, wanted in enumerate(types):
        buffers = [batch.column(i).buffers() for batch in batches]
        values = begin([b[-1] for b in buffers])
        has_offsets = wanted.kind in (Kind.TEXT, Kind.FRAMES)
        places.append(_Place(values, begin([b[1] for b in buffers]) if has_offsets else None))
    return starts, places
