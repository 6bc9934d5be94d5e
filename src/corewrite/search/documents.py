"""The documents as Parquet."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corewrite.domain import Catalogue, ColumnValues
from corewrite.domain.catalogue import Column
from corewrite.relevance.embedded import check_embedded
from corewrite.search.document_columns import (
    NEEDED,
    STANDARD,
    ColumnError,
    Kind,
    Layout,
    build_layout,
    build_values,
    find_lengths,
    infer_kind,
    kept,
)
from corewrite.storage.durable import make_folder, naming, whole_file

_ROWS = 65_536
"""Documents read together."""


class DocumentsError(ValueError):
    """A documents or labels file that cannot be used."""


def write_catalogue(catalogue: Catalogue, path: Path) -> None:
    """Write a catalogue: id, title, text, visual (list of float32), seconds, prior, and its further columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    every = np.arange(len(catalogue))
    columns = {name: _as_arrow(catalogue.column(name, every)) for name in catalogue.column_names}
    with naming(path):
        pq.write_table(pa.table(columns), path)


def _as_arrow(values: ColumnValues) -> pa.Array:
    if isinstance(values, np.ndarray):
        if values.ndim == 1:
            return pa.array(values, from_pandas=True)  # NaN is missing
        return pa.array([None if np.isnan(v).all() else v for v in values], pa.list_(pa.float32()))
    if values and isinstance(values[0], np.ndarray):
        return pa.array([list(v) for v in values], pa.list_(pa.list_(pa.float32())))
    return pa.array(values, pa.string())


def copy_documents(path: Path, target: Path) -> None:
    """Copy a Parquet file, or the Parquet files of a folder to a folder, each whole or not at all.

    Raises:
        DocumentsError: there is none.
    """
    if path.resolve() == target.resolve():
        return
    files = parquet_files(path)
    copies = [target / file.name for file in files] if path.is_dir() else [target]
    make_folder(copies[0].parent)
    for file, copy in zip(files, copies, strict=True):
        with whole_file(copy) as temporary:
            shutil.copyfile(file, temporary)
    for old in target.glob("*.parquet"):
        if old not in copies:
            old.unlink()


def read_catalogue(path: Path) -> Catalogue:
    """Read documents from a Parquet file, or from a folder of them in the order of their names, into memory.

    Needed are `id` and `title`. `text` defaults to nothing, `visual` (a list of floats, of one length) to no picture,
    `prior` (quality in (0, 1]) to 1; `seconds` may be unknown. Further columns are kept where they hold texts, numbers
    (whole numbers, truth values and decimals too), lists of numbers of one length, or lists of these lists.

    Raises:
        DocumentsError: a file cannot be read, lacks a needed column, or a column has an unusable value.
        TooManyDocumentsError: there are more documents than this machine's memory holds; a `DocumentStore` holds more.
    """
    files = parquet_files(path)
    check_embedded(sum(_length(file) for file in files))
    layout, _ = read_layout(files)
    table = pa.Table.from_batches(list(kept_batches(files, layout)), layout.schema)

    def column(name: str) -> ColumnValues:
        return build_values(table[name].combine_chunks(), layout.types[name])

    try:
        return build_catalogue(column, tuple(layout.types), layout.left_out, len(table))
    except ValueError as error:
        raise DocumentsError(f"{path}: {error}") from error


def build_catalogue(
    column: Callable[[str], ColumnValues], names: Sequence[str], left_out: Mapping[str, str], documents: int
) -> Catalogue:
    """A catalogue of whole columns.

    Args:
        column: Gives one by its name.
        names: Those that there are.
        left_out: Why others are not.
        documents: How many rows they have.
    """

    def given(name: str, default: ColumnValues) -> Column:
        values = column(name) if name in names else default
        return values if isinstance(values, np.ndarray) else tuple(values)  # type: ignore[return-value]

    known: dict[str, Any] = {
        "ids": given("id", []),
        "titles": given("title", []),
        "texts": given("text", [""] * documents),
        "visual": given("visual", np.zeros((documents, 1), np.float32)),
        "seconds": given("seconds", np.full(documents, np.nan)),
        "prior": given("prior", np.ones(documents)),
    }
    return Catalogue(**known, columns={n: given(n, []) for n in names if n not in STANDARD}, left_out=left_out)


def parquet_files(path: Path) -> list[Path]:
    """The file itself, or the `*.parquet` of a folder in the order of their names.

    Raises:
        DocumentsError: there is no such file, or none in the folder.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DocumentsError(f"{path}: there are no documents: give a Parquet file or a folder of them")
    found = sorted(p for p in path.glob("*.parquet") if not p.name.startswith("."))
    if not found:
        raise DocumentsError(f"{path} holds no *.parquet file")
    return found


def read_layout(files: Sequence[Path]) -> tuple[Layout, int]:
    """Which columns the documents have, and how many documents there are. Of the values only the lengths of lists are read.

    Raises:
        DocumentsError: a file cannot be read or lacks a column, or columns of one name do not hold the same.
    """
    kinds: dict[str, Kind | None] = {}
    unusable: dict[str, str] = {}
    lengths: dict[str, set[int]] = {}
    documents = 0
    for file in files:
        with _opened(file) as parquet:
            documents += parquet.metadata.num_rows
            schema = parquet.schema_arrow
            _check_names(file, files[0], schema.names, {*kinds, *unusable})
            for field in schema:
                if field.name in unusable:
                    continue
                try:
                    kind = infer_kind(field.name, field.type)
                except ColumnError as error:
                    if field.name in STANDARD:
                        raise DocumentsError(f"{file}: column {field.name}: {error}") from error
                    kinds.pop(field.name, None)
                    unusable[field.name] = str(error)
                    continue
                before = kinds.get(field.name)
                if kind and before and kind != before:
                    raise DocumentsError(f"{file}: column {field.name!r} holds a {kind}, in {files[0].name} a {before}")
                kinds[field.name] = kind or before
            lists = {n: kind for n, kind in kinds.items() if kind is Kind.VECTOR or kind is Kind.FRAMES}
            for batch in parquet.iter_batches(_ROWS, columns=list(lists)) if lists else ():
                for name, kind in lists.items():
                    lengths.setdefault(name, set()).update(find_lengths(kind, batch.column(name)))
    try:
        return build_layout(kinds, unusable, lengths), documents
    except ColumnError as error:
        raise DocumentsError(f"{files[0] if len(files) == 1 else files[0].parent}: {error}") from error


def _check_names(file: Path, first: Path, names: Sequence[str], before: set[str]) -> None:
    twice = [n for n in names if names.count(n) > 1]
    if twice:
        raise DocumentsError(f"{file}: there are two columns {twice[0]!r}")
    for name in NEEDED:
        if name not in names:
            raise DocumentsError(f"{file}: column {name!r} is missing; there are {', '.join(names)}")
    if before and (differ := sorted(before ^ set(names))):
        lacks, has = (file, first) if differ[0] in before else (first, file)
        raise DocumentsError(f"{lacks}: column {differ[0]!r} is missing, {has.name} has it: give every file the same columns")


def kept_batches(files: Sequence[Path], layout: Layout) -> Iterator[pa.RecordBatch]:
    """All documents in the order of the files, as they are kept.

    Raises:
        DocumentsError: a file cannot be read, or a column has an unusable value.
    """
    row = 0
    for file in files:
        with _opened(file) as parquet:
            for batch in parquet.iter_batches(_ROWS, columns=list(layout.types)):
                try:
                    yield kept(batch, layout, row)
                except ColumnError as error:
                    raise DocumentsError(f"{file}: {error}") from error
                row += batch.num_rows


def check_documents(path: Path) -> None:
    """Check that the files of documents are there, are Parquet, and have the columns `id` and `title`; no value is read.

    Raises:
        DocumentsError: one is not.
    """
    files = parquet_files(path)
    for file in files:
        with _opened(file) as parquet:
            _check_names(file, files[0], parquet.schema_arrow.names, set())


def check_columns(path: Path, needed: Sequence[str]) -> None:
    """Check that a file is Parquet and has the columns `needed`; no value is read.

    Raises:
        DocumentsError: it is not, or lacks one.
    """
    with _opened(path) as parquet:
        _refuse_missing(path, needed, parquet.schema_arrow.names)


def _refuse_missing(path: Path, needed: Sequence[str], names: Sequence[str]) -> None:
    missing = [name for name in needed if name not in names]
    if missing:
        raise DocumentsError(f"{path}: column {missing[0]!r} is missing; there are {', '.join(names)}")


def _length(file: Path) -> int:
    with _opened(file) as parquet:
        return int(parquet.metadata.num_rows)


@contextmanager
def _opened(file: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(file, pre_buffer=False) as parquet:  # it would keep all that was read
            yield parquet
    except FileNotFoundError as error:
        raise DocumentsError(f"{file}: there is no such file") from error
    except (OSError, pa.ArrowException) as error:
        raise DocumentsError(f"{file}: cannot be read as Parquet: {error}") from error


def read_columns(path: Path, needed: tuple[str, ...]) -> pa.Table:
    """A Parquet file that must have the columns `needed`.

    Raises:
        DocumentsError: it cannot be read or lacks one.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise DocumentsError(f"{path}: there is no such file") from error
    except (OSError, pa.ArrowException) as error:
        raise DocumentsError(f"{path}: cannot be read as Parquet: {error}") from error
    _refuse_missing(path, needed, table.column_names)
    return table
