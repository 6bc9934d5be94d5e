"""Where the lines of a log lie."""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from corewrite.storage.line_files import bounded_lines

ENDINGS = (".ndjson", ".ndjson.gz", ".parquet")
"""Of log files: lines, plain or gzipped, or packed by `corewrite log pack`."""
LINE_LIMIT = 4 * 2**20
"""Bytes of a line at most; of a longer one the beginning is given, which no reader takes."""


class LogError(ValueError):
    """A log that cannot be used at all."""


def log_files(path: Path) -> list[Path]:
    """A log's files: the file itself, or the log files of a folder, by name; hidden ones are still being written."""
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.name.endswith(ENDINGS) and not p.name.startswith("."))
    return [path]


def log_lines(path: Path) -> Iterator[bytes]:
    """The lines of a log file, whichever way it is kept; of a search hit, as exports of an engine have them, its `_source`.

    Raises:
        LogError: it cannot be read.
    """
    for line in _raw_lines(path):
        yield _unwrapped(line) if b'"_source"' in line else line


def _unwrapped(line: bytes) -> bytes:
    """The document of a search hit; any other line as it is."""
    if len(line) > LINE_LIMIT:
        return line
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return line
    if (
        not isinstance(value, dict)
        or not isinstance(value.get("_source"), dict)
        or value.keys() & {"user_query", "action_name"}
    ):
        return line
    return json.dumps(value["_source"]).encode() + b"\n"


def _raw_lines(path: Path) -> Iterator[bytes]:
    try:
        if path.name.endswith(".parquet"):
            yield from _packed(path)
            return
        yield from bounded_lines(path, LINE_LIMIT)
    except (OSError, EOFError, zlib.error, pa.ArrowInvalid) as error:
        raise LogError(f"{path}: cannot read the log: {error}") from error


def _packed(path: Path) -> Iterator[bytes]:
    with pq.ParquetFile(path) as file:
        if "line" not in file.schema_arrow.names:
            raise LogError(
                f"{path}: a Parquet log is one that `corewrite log pack` wrote, this one has the columns "
                f"{', '.join(file.schema_arrow.names)}"
            )
        for batch in file.iter_batches(batch_size=4_096, columns=["line"]):
            for line in batch["line"].to_pylist():
                yield line if line is not None else b""
