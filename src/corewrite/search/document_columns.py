"""Columns of documents in Arrow: what Parquet holds, brought to the four kinds that signals read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corewrite.domain import ColumnValues

Float32Array = npt.NDArray[np.float32]

NEEDED = ("id", "title")
STANDARD = {"id": "text", "title": "text", "text": "text", "visual": "vector", "seconds": "number", "prior": "number"}
"""Columns with a meaning of their own, and their kinds."""
NOT_THERE = "the file has none"
_SHOWN = 5


class ColumnError(ValueError):
    """A column with an unusable value."""


class Kind(StrEnum):
    """What a column holds."""

    TEXT = "text"
    NUMBER = "number"
    VECTOR = "vector"
    FRAMES = "frames"


@dataclass(frozen=True)
class ColumnType:
    """Kind of a column, and how many numbers its vectors have (0 where there are none)."""

    kind: Kind
    width: int = 0

    @property
    def arrow(self) -> pa.DataType:
        """How the column is kept: without nulls, what is missing as `ColumnValues` says."""
        if self.kind is Kind.TEXT:
            return pa.large_string()
        if self.kind is Kind.NUMBER:
            return pa.float64()
        vector = pa.list_(pa.float32(), self.width)
        return vector if self.kind is Kind.VECTOR else pa.large_list(vector)


@dataclass(frozen=True)
class Layout:
    """The columns of some documents.

    Attributes:
        types: Of the columns that are kept, `id` first.
        left_out: Why others are not, by name.
    """

    types: Mapping[str, ColumnType]
    left_out: Mapping[str, str]

    @property
    def schema(self) -> pa.Schema:
        """Of what is kept."""
        return pa.schema([pa.field(name, t.arrow, nullable=False) for name, t in self.types.items()])


def infer_kind(name: str, kept_as: pa.DataType) -> Kind | None:
    """Kind of a column; None where it holds only nulls.

    Raises:
        ColumnError: it is of another type than columns may be.
    """
    if name in STANDARD and name != "visual":
        return Kind(STANDARD[name])
    if pa.types.is_null(kept_as):
        return None
    inner = kept_as.value_type if _is_list(kept_as) else None
    if inner is not None and _is_number(inner):
        return Kind.VECTOR
    if name == "visual":
        raise ColumnError(f"it is {kept_as}, not a list of numbers")
    if _is_text(kept_as):
        return Kind.TEXT
    if _is_number(kept_as):
        return Kind.NUMBER
    if inner is not None and _is_list(inner) and _is_number(inner.value_type):
        return Kind.FRAMES
    raise ColumnError(f"it is {kept_as}, not a text, a number, a list of numbers or a list of lists of numbers")


def find_lengths(kind: Kind, values: pa.Array) -> set[int]:
    """How many numbers the vectors of a column have; missing ones aside."""
    if kind is Kind.FRAMES:
        values = values.flatten()
    if pa.types.is_null(values.type):
        return set()
    return set(pc.unique(pc.list_value_length(values).drop_null()).to_pylist())


def build_layout(kinds: Mapping[str, Kind | None], unusable: Mapping[str, str], lengths: Mapping[str, set[int]]) -> Layout:
    """What to keep of some columns.

    Args:
        kinds: Of the columns that can be read; None for one with nulls only.
        unusable: Why others cannot, by name.
        lengths: How many numbers the vectors have, by name of the column.

    Raises:
        ColumnError: `visual` has vectors of several lengths.
    """
    types, left_out = {}, {name: NOT_THERE for name in STANDARD if name not in kinds} | dict(unusable)
    for name in (*(s for s in STANDARD if s in kinds), *(k for k in kinds if k not in STANDARD)):
        kind = kinds[name]
        if kind is None:
            left_out[name] = "it holds nothing"
        elif kind in (Kind.TEXT, Kind.NUMBER):
            types[name] = ColumnType(kind)
        elif not (found := sorted(lengths.get(name, set()) - {0})):  # a list without numbers is a missing one
            left_out[name] = "it holds nothing"
        elif len(found) == 1:
            types[name] = ColumnType(kind, found[0])
        elif name == "visual":
            raise ColumnError(f"column visual must hold a list of the same length in every row, found {_some(found)}")
        else:
            left_out[name] = f"its lists differ in length: {_some(found)}"
    return Layout(types, left_out)


def kept(batch: pa.RecordBatch, layout: Layout, first_row: int) -> pa.RecordBatch:
    """Some documents as they are kept.

    Args:
        batch: As Parquet holds them.
        layout: Of all documents.
        first_row: Row of the first of them, for errors.

    Raises:
        ColumnError: a value is unusable; document and column are named.
    """
    arrays: list[pa.Array] = []
    for name, wanted in layout.types.items():
        values = batch.column(batch.schema.get_field_index(name))
        try:
            arrays.append(_CONVERT[wanted.kind](name, values, wanted.width))
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            raise ColumnError(f"column {name}: {error}") from error
        if name == "id" and values.null_count:
            raise ColumnError(f"the document at row {first_row + int(np.flatnonzero(values.is_null())[0])} has no id")
        _check(name, arrays[-1], values, arrays[0])
    return pa.RecordBatch.from_arrays(arrays, schema=layout.schema)


def build_values(array: pa.Array, wanted: ColumnType) -> ColumnValues:
    """Values of a column as `kept` made it."""
    if wanted.kind is Kind.TEXT:
        return list(array.to_pylist())
    if wanted.kind is Kind.NUMBER:
        return np.array(array, np.float64)
    if wanted.kind is Kind.VECTOR:
        return _matrix(array, wanted.width)
    ends = np.array(pc.list_value_length(array), np.int64).cumsum()
    return list(np.split(_matrix(array.flatten(), wanted.width), ends[:-1])) if len(array) else []


def _text(name: str, values: pa.Array, width: int) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if not (_is_text(values.type) or pa.types.is_null(values.type)):
        values = pa.array([None if v is None else str(v) for v in values.to_pylist()], pa.large_string())
    values = values.cast(pa.large_string())
    values.validate(full=True)  # bytes that are no UTF-8
    return values.fill_null("")


def _number(name: str, values: pa.Array, width: int) -> pa.Array:
    return values.cast(pa.float64(), safe=False).fill_null(1.0 if name == "prior" else np.nan)


def _vector(name: str, values: pa.Array, width: int) -> pa.Array:
    out = np.full((len(values), width), np.nan, np.float32)
    there = np.array(pc.equal(pc.list_value_length(values), width).fill_null(False))
    numbers = values.filter(pa.array(there)).flatten().cast(pa.float32(), safe=False).fill_null(np.nan)
    out[there] = np.array(numbers).reshape(-1, width)
    return pa.FixedSizeListArray.from_arrays(pa.array(out.reshape(-1)), width)


def _frames(name: str, values: pa.Array, width: int) -> pa.Array:
    ends = np.array(pc.list_value_length(values).fill_null(0), np.int64).cumsum()
    return pa.LargeListArray.from_arrays(pa.array([0, *ends.tolist()], pa.int64()), _vector(name, values.flatten(), width))


_CONVERT = {Kind.TEXT: _text, Kind.NUMBER: _number, Kind.VECTOR: _vector, Kind.FRAMES: _frames}


def _check(name: str, array: pa.Array, given: pa.Array, ids: pa.Array) -> None:
    if name == "prior":
        prior = np.array(array)
        bad = np.flatnonzero(~((prior > 0) & (prior <= 1)))
        if len(bad):
            raise ColumnError(f"prior {prior[bad[0]]} of {ids[int(bad[0])].as_py()!r} is not in (0, 1]: rescale it")
    if name == "visual":
        missing = np.array(pc.equal(pc.list_value_length(given).fill_null(0), 0))
        bad = np.flatnonzero(~np.isfinite(_matrix(array, array.type.list_size)).all(1) & ~missing)
        if len(bad):
            raise ColumnError(f"column visual of {ids[int(bad[0])].as_py()!r} holds values that are not finite numbers")


def _matrix(array: pa.Array, width: int) -> Float32Array:
    return np.array(array.flatten(), np.float32).reshape(-1, width)


def _some(found: Sequence[int]) -> str:
    return f"{list(found[:_SHOWN])}{f' and {len(found) - _SHOWN} more' if len(found) > _SHOWN else ''}"


def _is_text(t: pa.DataType) -> bool:
    if pa.types.is_dictionary(t):
        return _is_text(t.value_type)
    test = pa.types
    bytes_too = test.is_binary(t) or test.is_large_binary(t)  # some writers do not say that theirs is text
    return bool(test.is_string(t) or test.is_large_string(t) or test.is_string_view(t) or bytes_too)


def _is_number(t: pa.DataType) -> bool:
    test = pa.types
    return bool(test.is_integer(t) or test.is_floating(t) or test.is_boolean(t) or test.is_decimal(t))


def _is_list(t: pa.DataType) -> bool:
    return bool(pa.types.is_list(t) or pa.types.is_large_list(t) or pa.types.is_fixed_size_list(t))
