"""The documents as Parquet."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corewrite.domain import Catalogue


class DocumentsError(ValueError):
    """A documents or labels file that cannot be used."""


def write_catalogue(catalogue: Catalogue, path: Path) -> None:
    """Write a catalogue: id, title, text, visual (list of float32), seconds, prior."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "id": list(catalogue.ids),
            "title": list(catalogue.titles),
            "text": list(catalogue.texts),
            "visual": pa.array(list(catalogue.visual), pa.list_(pa.float32())),
            "seconds": catalogue.seconds,
            "prior": catalogue.prior,
        }
    )
    pq.write_table(table, path)


def read_catalogue(path: Path) -> Catalogue:
    """Read documents from Parquet.

    Needed are `id` and `title`. `text` defaults to nothing, `visual` (a list of floats, of one length) to no picture,
    `seconds` to 0, `prior` (quality in (0, 1]) to 1.

    Raises:
        DocumentsError: the file cannot be read, lacks a needed column, or a column has an unusable value.
    """
    table = read_columns(path, ("id", "title"))
    n = table.num_rows
    names = set(table.column_names)

    def column(name: str, default: object) -> list[object]:
        values = table[name].to_pylist() if name in names else [default] * n
        return [default if v is None else v for v in values]

    if "visual" in names:
        lengths = {-1 if v is None else len(v) for v in table["visual"].to_pylist()}
        if len(lengths) != 1 or -1 in lengths:
            raise DocumentsError(
                f"{path}: column visual must hold a list of the same length in every row, found {sorted(lengths)}"
            )
    try:
        visual = np.array(table["visual"].to_pylist(), np.float32) if "visual" in names else np.zeros((n, 1), np.float32)
        catalogue = Catalogue(
            ids=tuple(map(str, column("id", ""))),
            titles=tuple(map(str, column("title", ""))),
            texts=tuple(map(str, column("text", ""))),
            visual=visual,
            seconds=np.array(column("seconds", 0.0), np.float64),
            prior=np.array(column("prior", 1.0), np.float64),
        )
    except (ValueError, TypeError) as error:
        raise DocumentsError(f"{path}: {error}") from error
    bad = np.flatnonzero(~((catalogue.prior > 0) & (catalogue.prior <= 1)))
    if len(bad):
        raise DocumentsError(
            f"{path}: prior {catalogue.prior[bad[0]]} of {catalogue.ids[bad[0]]!r} is not in (0, 1]: rescale it"
        )
    if not np.isfinite(catalogue.visual).all():
        raise DocumentsError(f"{path}: column visual holds values that are not finite numbers")
    return catalogue


def read_columns(path: Path, needed: tuple[str, ...]) -> pa.Table:
    """A Parquet file that must have the columns `needed`.

    Raises:
        DocumentsError: it cannot be read or lacks one.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DocumentsError(f"{path}: cannot be read as Parquet: {error}") from error
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        raise DocumentsError(f"{path}: column {missing[0]!r} is missing; there are {', '.join(table.column_names)}")
    return table
