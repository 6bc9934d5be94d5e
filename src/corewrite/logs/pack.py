"""A night's log as one Parquet file: every line as it was, and beside it what one wants to select by."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corewrite.logs.dialects import parse_client
from corewrite.logs.files import LogError, log_lines
from corewrite.logs.times import parse_time
from corewrite.storage.durable import make_folder, make_private, whole_file

SCHEMA = pa.schema(
    [
        ("line", pa.large_binary()), ("kind", pa.string()), ("query_id", pa.string()), ("client_id", pa.string()),
        ("timestamp", pa.float64()), ("arm", pa.string()), ("bucket", pa.int32()), ("action_name", pa.string()),
    ],
    metadata={b"corewrite.log": b"1"},
)  # fmt: skip
_ROWS = 20_000


@dataclass(frozen=True)
class Packed:
    """What packing a log gave.

    Attributes:
        files: Files read.
        lines: Lines packed, unusable ones included: nothing is left out.
        searches, events, others: Of those.
        bytes_before, bytes_after: Sizes of the files.
    """

    files: int
    lines: int
    searches: int
    events: int
    others: int
    bytes_before: int
    bytes_after: int


def pack_log(files: Sequence[Path], out: Path) -> Packed:
    """Write log files into one Parquet file, which `read_log` reads as it reads them.

    The file is there whole or not at all; nothing is removed.

    Args:
        files: NDJSON, plain or gzipped, or packed ones.
        out: The file to write.

    Raises:
        LogError: there is no line, or a file cannot be read.
    """
    counts = {"search": 0, "event": 0, "other": 0}
    make_folder(out.parent)
    with (
        whole_file(out) as temporary,
        pq.ParquetWriter(make_private(temporary), SCHEMA, compression="zstd", compression_level=9) as writer,
    ):
        for rows in _batches(files):
            for row in rows:
                counts[row["kind"]] += 1
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
        if not sum(counts.values()):
            raise LogError(f"{', '.join(map(str, files)) or 'no file'}: there is no line to pack")
    return Packed(
        len(files), sum(counts.values()), counts["search"], counts["event"], counts["other"],
        sum(f.stat().st_size for f in files), out.stat().st_size,
    )  # fmt: skip


def _batches(files: Sequence[Path]) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    for file in files:
        for line in log_lines(file):
            rows.append(_row(line))
            if len(rows) == _ROWS:
                yield rows
                rows = []
    if rows:
        yield rows


def _row(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        return {"line": line, "kind": "other"}
    kind = "event" if "action_name" in value else "search" if "user_query" in value else "other"
    extra = value.get("query_attributes")
    extra = extra if isinstance(extra, dict) else {}
    try:
        timestamp = parse_time(value.get("timestamp"))
    except ValueError:
        timestamp = None
    texts = {name: _text(value.get(name)) for name in ("query_id", "action_name")} | {"client_id": _text(parse_client(value))}
    bucket = extra.get("bucket")
    return {
        "line": line, "kind": kind, **texts, "timestamp": timestamp, "arm": _text(extra.get("arm")),
        "bucket": bucket if isinstance(bucket, int) and 0 <= bucket < 2**31 else None,
    }  # fmt: skip


def _text(value: Any) -> str | None:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None
