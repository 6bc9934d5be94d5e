"""Read UBI search logs, 1.3.0 and before: NDJSON, plain or gzipped, bulk layout or one document per line.

Nothing is lost on bad input: a line that cannot be used goes to a rejects file with its number and the reason, the
others are kept.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa

from corewrite.domain.traffic_split import NUM_BUCKETS
from corewrite.logs.dialects import KNOWN_ACTIONS, SHOWN, parse_action, parse_client, parse_document, parse_hits, parse_ordinal
from corewrite.logs.files import LINE_LIMIT, LogError, log_lines
from corewrite.logs.sealing import Unseal
from corewrite.logs.served import LogPlace, count_lost, parse_marks
from corewrite.storage.durable import make_private, naming

_ID_LIMIT = 100
_BULK_ACTION = re.compile(rb'\s*\{\s*"(index|create)"')
_FORMATS = (
    "one UBI document a line (NDJSON, plain or gzipped), a bulk file (an action line before each document), the search hits "
    'that elasticdump writes ({"_index": ..., "_source": {...}}), Parquet of `corewrite log pack`'
)
SEARCH_SCHEMA = pa.schema(
    [
        ("query_id", pa.string()), ("user_id", pa.string()), ("session_id", pa.string()), ("timestamp", pa.float64()),
        ("query", pa.string()), ("hit_ids", pa.list_(pa.string())), ("context_titles", pa.list_(pa.string())),
        ("locale", pa.string()), ("arm", pa.string()), ("bucket", pa.int32()), ("impacted", pa.bool_()),
        ("pair", pa.list_(pa.string())), ("rewritten", pa.bool_()), ("texts", pa.string()), ("line", pa.int64()),
    ]
)  # fmt: skip
"""What is not logged is null, never false: `bucket`, `impacted`, and of a line that `corewrite serve` did not write `pair` (the
two arms, or versions of a ramp, that `impacted` compares; control first), `rewritten` (whether some stage used a rewrite) and
`texts` ("plain", "hashed", "sealed")."""
EVENT_SCHEMA = pa.schema(
    [
        ("query_id", pa.string()), ("user_id", pa.string()), ("action", pa.string()), ("document_id", pa.string()),
        ("position", pa.int64()), ("timestamp", pa.float64()), ("watch_seconds", pa.float64()),
        ("duration_seconds", pa.float64()),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class IngestReport:
    """What a log was found to hold.

    Attributes:
        files: The files read.
        lines: Lines that hold a query or an event, good or bad.
        rejected: Lines that could not be used.
        rejects_path: Where those went, None if nowhere.
        first_reject: File, line and reason of the first of them; None where there is none.
        queries: Searches kept.
        unique_queries: Distinct query texts among them.
        folded: Searches dropped since their query id stood before.
        actions: Events by action, as logged; of an older name of UBI's, the present one is what counts.
        unknown_actions: Of those, the actions that nothing reads: they only show that the user was there.
        lost: Searches that `corewrite serve` could not log, as far as the gaps in its numbering show.
        orphans: Events whose query is not in the log.
        clients: Distinct users of searches. An event counts for the user of its search: servers hash ids, an application's
            own events may have them as they are.
        largest_client_share: Share of searches, and events of known searches, of the busiest one.
        first, last: Time range, ISO 8601 in UTC.
        warnings: What to know before quoting a rate from it.
    """

    files: tuple[str, ...]
    lines: int
    rejected: int
    rejects_path: str | None
    first_reject: str | None
    queries: int
    unique_queries: int
    folded: int
    actions: dict[str, int]
    unknown_actions: dict[str, int]
    lost: int
    orphans: int
    clients: int
    largest_client_share: float
    first: str
    last: str
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The fields as a plain dictionary."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class SearchLog:
    """A log as two tables of an Ibis connection.

    Attributes:
        connection: Where the tables live (DuckDB in memory by default).
        searches: One row per search, columns of `SEARCH_SCHEMA`.
        events: One row per event, columns of `EVENT_SCHEMA`.
        report: What was found.
    """

    connection: Any
    searches: Any
    events: Any
    report: IngestReport


@dataclass
class _Columns:
    """Rows gathered column by column."""

    schema: pa.Schema
    values: dict[str, list[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.values = {name: [] for name in self.schema.names}

    def add(self, row: dict[str, Any]) -> None:
        for name, column in self.values.items():
            column.append(row[name])

    def table(self) -> pa.Table:
        return pa.table(self.values, schema=self.schema)


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
    searches, events = _Columns(SEARCH_SCHEMA), _Columns(EVENT_SCHEMA)
    seen: set[str] = set()
    actions: Counter[str] = Counter()
    lines = folded = 0
    rejects: list[dict[str, Any]] = []
    places: list[LogPlace] = []
    for file in files:
        for number, raw, kind_hint in _lines(file):
            lines += 1
            try:
                row = _parse(raw if unseal is None else unseal(raw), kind_hint)
            except (ValueError, RecursionError) as error:
                rejects.append({"file": file.name, "line": number, "reason": str(error)[:300], "text": _shown(raw)})
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
            out.writelines(json.dumps(r) + "\n" for r in rejects)
    if not seen:
        reason = (
            f"; the first reason: line {rejects[0]['line']}: {rejects[0]['reason']}; read are {_FORMATS}" if rejects else ""
        )
        raise LogError(f"{', '.join(map(str, files))}: no usable query in {lines} lines{reason}")
    where = str(rejects_path) if rejects_path is not None and rejects else None
    report = _report(files, lines, rejects, where, folded, count_lost(places), searches, events, actions)
    connection = connection or ibis.duckdb.connect()
    return SearchLog(
        connection,
        connection.create_table("searches", searches.table(), overwrite=True),
        connection.create_table("events", events.table(), overwrite=True),
        report,
    )


def _lines(path: Path) -> Iterator[tuple[int, bytes, str | None]]:
    """(line number, bytes, kind if a bulk action line told it) of every document line."""
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


def _parse(raw: bytes, hint: str | None) -> dict[str, Any]:
    """One document as a row of searches or events.

    Raises:
        ValueError: it is neither; the message says why.
    """
    if len(raw) > LINE_LIMIT:
        raise ValueError(f"line over the limit of {LINE_LIMIT} bytes")
    text = raw.decode("utf-8")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON, it begins {text[:40].strip()!r} ({error.msg}, character {error.pos + 1})") from None
    if "\\ud" in text or "\\uD" in text:
        _refuse_surrogates(value)
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object but a {type(value).__name__}")
    if "action_name" in value or hint == "event":
        return _event(value)
    if "user_query" in value:
        return _search(value)
    raise ValueError("neither a query (user_query) nor an event (action_name)")


def _search(value: dict[str, Any]) -> dict[str, Any]:
    extra = value.get("query_attributes") or {}
    if not isinstance(extra, dict):
        raise ValueError("query_attributes is not an object")
    served = extra.get("served")
    # A server of another make may use the name too.
    marks = parse_marks(served) if isinstance(served, dict) and "texts" in served else None
    hits_name, hits = parse_hits(value)
    titles = extra.get("context_titles") or []
    for name, items in ((hits_name, hits), ("context_titles", titles)):
        if not isinstance(items, list) or len(items) > 10_000:
            raise ValueError(f"{name} is not a list of at most 10000 items")
    return {
        "query_id": _id(value, "query_id"),
        "user_id": _id({"client_id": parse_client(value)}, "client_id"),
        "session_id": _text(extra.get("session_id") or value.get("session_id") or ""),
        "timestamp": parse_time(value.get("timestamp")),
        "query": _text(value["user_query"]),
        "hit_ids": [_text(h) for h in hits],
        "context_titles": [_text(t) for t in titles],
        "locale": _text(extra.get("locale") or ""),
        "arm": _text(extra.get("arm") or ""),
        "bucket": _bucket(extra.get("bucket")),
        # Format 1 compared what was displayed with what had no rewriter, which is no pair of arms.
        "impacted": _flag("impacted", extra.get("impacted")) if marks is None or marks.format > 1 else None,
        "pair": None if marks is None or marks.pair is None else list(map(str, marks.pair)),
        "rewritten": None if marks is None or marks.used_at is None else bool(marks.used_at),
        "texts": None if marks is None else marks.texts,
        "place": None if marks is None else marks.log,
    }


def _event(value: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(value.get("action_name"), str) or not value["action_name"]:
        raise ValueError("event without action_name")
    extra = value.get("event_attributes") or {}
    if not isinstance(extra, dict):
        raise ValueError("event_attributes is not an object")
    thing, place = parse_document(extra), extra.get("position") or {}
    if not isinstance(place, dict):
        raise ValueError("event_attributes.object or .position is not an object")
    ordinal = parse_ordinal(place)
    logged = _text(value["action_name"])[:_ID_LIMIT]
    if ordinal is not None and (isinstance(ordinal, bool) or not isinstance(ordinal, int) or not 0 <= ordinal < 2**31):
        raise ValueError(f"position.ordinal {ordinal!r:.50} is not a position")
    return {
        "query_id": _text(value.get("query_id") or ""),
        "user_id": _text(parse_client(value)),
        "action": parse_action(logged),
        "logged": logged,
        "document_id": _text(thing.get("object_id", "") if thing.get("object_id") is not None else ""),
        "position": ordinal,
        "timestamp": parse_time(value.get("timestamp")),
        "watch_seconds": _number(extra.get("watch_seconds")),
        "duration_seconds": _number(extra.get("duration_seconds")),
    }


def _id(value: dict[str, Any], name: str) -> str:
    text = _text(value.get(name) or "")
    if not text:
        raise ValueError(f"query without {name}")
    if len(text) > _ID_LIMIT:
        raise ValueError(f"{name} of {len(text)} characters is over the limit of {_ID_LIMIT}")
    return text


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r:.50} is not text")
    return str(value)


def _flag(name: str, value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise ValueError(f"{name} {value!r:.50} is neither true nor false: leave it out where it is not known")


def _bucket(value: Any) -> int | None:
    if value is None or (type(value) is int and 0 <= value < NUM_BUCKETS):
        return value
    raise ValueError(
        f"bucket {value!r:.50} is no whole number from 0 to {NUM_BUCKETS - 1}: leave it out where it is not that of "
        "corewrite.domain.traffic_split"
    )


def _refuse_surrogates(value: Any) -> None:
    """Escapes can spell half a character, which no store accepts."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("text with a lone surrogate") from None


def _number(value: Any) -> float | None:
    if value is None:
        return None
    seconds = _finite(value)
    if seconds is None or seconds < 0:
        raise ValueError(f"{value!r:.50} is not a duration in seconds")
    return seconds


def _finite(value: Any) -> float | None:
    """A JSON number as a float; None where it is none, or not finite as one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def parse_time(value: Any) -> float:
    """Seconds since the epoch of an ISO 8601 string (UTC where no offset is said) or an epoch in seconds or milliseconds.

    Raises:
        ValueError: it is neither.
    """
    try:
        seconds = _finite(float(value) if isinstance(value, str) else value)
        if seconds is not None and abs(seconds) > 1e11:
            seconds /= 1000
    except ValueError:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"timestamp {value!r:.50} is neither ISO 8601 nor an epoch") from None
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if seconds is None:
        raise ValueError(f"timestamp {value!r:.50} is neither ISO 8601 nor an epoch")
    if not 0 <= seconds < 4e9:
        raise ValueError(f"timestamp {value!r:.50} lies outside 1970-2096")
    return seconds


def _shown(raw: bytes) -> str:
    return raw[:500].decode("utf-8", "replace").rstrip("\n")


def iso(seconds: float) -> str:
    """ISO 8601 in UTC with milliseconds of an epoch."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _report(
    files: list[Path],
    lines: int,
    rejects: list[dict[str, Any]],
    where: str | None,
    folded: int,
    lost: int,
    searches: _Columns,
    events: _Columns,
    actions: Counter[str],
) -> IngestReport:
    owner = dict(zip(searches.values["query_id"], searches.values["user_id"], strict=True))
    about = list(zip(events.values["query_id"], events.values["user_id"], strict=True))
    clients = Counter(owner.values())
    clients.update(owner[query] for query, _ in about if query in owner)
    share = clients.most_common(1)[0][1] / clients.total()
    renamed = Counter({name: n for name, n in actions.items() if parse_action(name) != name})
    unknown = {name: n for name, n in actions.items() if parse_action(name) not in KNOWN_ACTIONS}
    orphans = sum(query not in owner for query, _ in about)
    otherwise = sum(bool(user) and owner.get(query, user) != user for query, user in about)
    times = [*searches.values["timestamp"], *events.values["timestamp"]]
    warnings = []
    if share > 0.2:
        warnings.append(f"one client holds {share:.0%} of the log's lines: rates of this log say little about people")
    if not any(events.values["watch_seconds"]):
        warnings.append("no watch times: conversions, else clicks, count as satisfaction")
    if not any(searches.values["hit_ids"]) and not any(actions[name] for name in SHOWN):
        warnings.append("nothing says what was displayed: D- and examination cannot be found")
    if renamed:
        said = ", ".join(f"{n} {name!r} as {parse_action(name)!r}" for name, n in renamed.most_common())
        warnings.append(f"actions of older logs are read under their present names: {said}")
    if unknown:
        said = ", ".join(f"{n} {name!r}" for name, n in Counter(unknown).most_common())
        warnings.append(f"nothing is read of actions other than {', '.join(KNOWN_ACTIONS)}; there are {said}")
    unreadable = sum(kind in ("hashed", "sealed") for kind in searches.values["texts"])
    if unreadable:
        warnings.append(
            f"{unreadable} of {len(owner)} searches hold no text that can be read (log.query_text of `corewrite serve`): "
            "training, ramps and experiments leave them out"
        )
    if lost:
        warnings.append(
            f"{lost} searches were not logged, by the gaps in the servers' numbering: see corewrite_log_lines_dropped"
        )
    if otherwise:
        warnings.append(
            f"{otherwise} events name another client than their search does, as where one of the two is hashed: that of the "
            "search counts"
        )
    if orphans:
        warnings.append(f"{orphans} events belong to no search of the log: whose they are is not known, no client counts them")
    first = f"{rejects[0]['file']}, line {rejects[0]['line']}: {rejects[0]['reason']}" if rejects else None
    return IngestReport(
        tuple(f.name for f in files),
        lines,
        len(rejects),
        where,
        first,
        len(owner),
        len(set(searches.values["query"])),
        folded,
        dict(sorted(actions.items())),
        dict(sorted(unknown.items())),
        lost,
        orphans,
        len(clients),
        share,
        iso(min(times)),
        iso(max(times)),
        tuple(warnings),
    )
