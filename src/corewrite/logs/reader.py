"""Read UBI search logs, 1.3.0 and before: NDJSON, plain or gzipped, bulk layout or one document per line.

Nothing is lost on bad input: a line that cannot be used goes to a rejects file with its number and the reason, the
others are kept.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from corewrite.logs.files import LogError, log_lines
from corewrite.logs.ingest_report import Reject, build_report
from corewrite.logs.parsing import parse_line
from corewrite.logs.sealing import Unseal
from corewrite.logs.served import LogPlace, count_lost
from corewrite.logs.tables import EVENT_SCHEMA, SEARCH_SCHEMA, Columns, SearchLog
from corewrite.storage.durable import make_private, naming

_BULK_ACTION = re.compile(rb'\s*\{\s*"(index|create)"')
_FORMATS = (
    "one UBI document a line (NDJSON, plain or gzipped), a bulk file (an action line before each document), the search hits "
    'that elasticdump writes ({"_index": ..., "_source": {...}}), Parquet of `corewrite log pack`'
)


def read_log(
    paths: Path | Sequence[Path], *, rejects_path: Path | None = None, connection: Any = None, unseal: Unseal | None = None
) -> SearchLog:
    """Read log files into tables.

    Args:
        paths: One or more files.
        rejects_path: Where unusable lines go (NDJSON: line, reason, text); None: they are only counted.
        connection: An Ibis connection; default DuckDB in memory.
        unseal: Opens the texts of a line; None: sealed ones stay so.

    Raises:
        LogError: a file cannot be read, or none of the lines is a query.
    """
    files = [paths] if isinstance(paths, Path) else list(paths)
    searches, events = Columns(SEARCH_SCHEMA), Columns(EVENT_SCHEMA)
    seen: set[str] = set()
    actions: Counter[str] = Counter()
    lines = folded = 0
    rejects: list[Reject] = []
    places: list[LogPlace] = []
    for file in files:
        for number, raw, kind_hint in _lines(file):
            lines += 1
            try:
                row = parse_line(raw if unseal is None else unseal(raw), kind_hint)
            except (ValueError, RecursionError) as error:
                rejects.append(Reject(file.name, number, str(error)[:300], _shown(raw)))
                continue
            if "action" in row:
                actions[row["logged"]] += 1
                events.add(row)
            elif row["query_id"] in seen:
                folded += 1
            else:
                seen.add(row["query_id"])
                places += [row["place"]] if row["place"] is not None else []
                searches.add({**row, "line": number})
    if rejects_path is not None and rejects:
        rejects_path.parent.mkdir(parents=True, exist_ok=True)
        with naming(rejects_path), make_private(rejects_path).open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(asdict(r)) + "\n" for r in rejects)
    if not seen:
        reason = f"; the first reason: line {rejects[0].line}: {rejects[0].reason}; read are {_FORMATS}" if rejects else ""
        raise LogError(f"{', '.join(map(str, files))}: no usable query in {lines} lines{reason}")
    report = build_report(
        files=[f.name for f in files],
        lines=lines,
        rejects=rejects,
        rejects_path=str(rejects_path) if rejects_path is not None and rejects else None,
        folded=folded,
        lost=count_lost(places),
        searches=searches.values,
        events=events.values,
        actions=actions,
    )
    if connection is None:
        import ibis  # imported where it is used: a server starts without it

        connection = ibis.duckdb.connect()
    return SearchLog(
        connection,
        connection.create_table("searches", searches.table(), overwrite=True),
        connection.create_table("events", events.table(), overwrite=True),
        report,
    )


def _lines(path: Path) -> Iterator[tuple[int, bytes, str | None]]:
    """(line number, bytes, kind if a bulk action line named it) of every document line."""
    hint: str | None = None
    for number, raw in enumerate(log_lines(path), 1):
        if not raw.strip():
            continue
        action = _bulk_action(raw) if len(raw) < 4096 else None
        if action is not None:
            hint = action
            continue
        yield number, raw, hint
        hint = None


def _bulk_action(raw: bytes) -> str | None:
    """`query`, `event` or `` for an OpenSearch bulk action line, None for any other line."""
    if not _BULK_ACTION.match(raw):
        return None
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    inner = value.get("index", value.get("create")) if isinstance(value, dict) and len(value) == 1 else None
    if not isinstance(inner, dict):
        return None
    name = str(inner.get("_index", ""))
    return "query" if "quer" in name else "event" if "event" in name else ""


def _shown(raw: bytes) -> str:
    return raw[:500].decode("utf-8", "replace").rstrip("\n")
