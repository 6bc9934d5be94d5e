"""One line of a UBI log as a row of the searches or of the events."""

import json
from typing import Any, TypedDict, final

from corewrite.logs.dialects import parse_action, parse_client, parse_document, parse_hits, parse_ordinal
from corewrite.logs.files import LINE_LIMIT
from corewrite.logs.served import LogPlace, parse_marks
from corewrite.logs.times import parse_time
from corewrite.logs.values import ID_LIMIT, parse_bucket, parse_flag, parse_id, parse_seconds, parse_text, refuse_surrogates


@final
class SearchRow(TypedDict):
    """A search: the columns of `SEARCH_SCHEMA` but `line`, and its place in the numbering of the server that logged it."""

    query_id: str
    user_id: str
    session_id: str
    timestamp: float
    query: str
    hit_ids: list[str]
    context_titles: list[str]
    locale: str
    arm: str
    bucket: int | None
    impacted: bool | None
    pair: list[str] | None
    rewritten: bool | None
    texts: str | None
    place: LogPlace | None


@final
class EventRow(TypedDict):
    """An event: the columns of `EVENT_SCHEMA`, and its action as it was logged."""

    query_id: str
    user_id: str
    action: str
    logged: str
    document_id: str
    position: int | None
    timestamp: float
    watch_seconds: float | None
    duration_seconds: float | None


def parse_line(raw: bytes, hint: str | None) -> SearchRow | EventRow:
    """One document as a row of searches or events.

    Args:
        raw: The line.
        hint: `query` or `event`, where a bulk action line before it said so.

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
        refuse_surrogates(value)
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object but a {type(value).__name__}")
    if "action_name" in value or hint == "event":
        return _event(value)
    if "user_query" in value:
        return _search(value)
    raise ValueError("neither a query (user_query) nor an event (action_name)")


def _search(value: dict[str, Any]) -> SearchRow:
    extra = value.get("query_attributes") or {}
    if not isinstance(extra, dict):
        raise ValueError("query_attributes is not an object")
    served = extra.get("served")
    # A server of another make may use the name too.
    marks = parse_marks(served) if isinstance(served, dict) and "texts" in served else None
    arm = parse_text(extra.get("arm") or "")
    hits_name, hits = parse_hits(value)
    titles = extra.get("context_titles") or []
    for name, items in ((hits_name, hits), ("context_titles", titles)):
        if not isinstance(items, list) or len(items) > 10_000:
            raise ValueError(f"{name} is not a list of at most 10000 items")
    return {
        "query_id": parse_id(value, "query_id"),
        "user_id": parse_id({"client_id": parse_client(value)}, "client_id"),
        "session_id": parse_text(extra.get("session_id") or value.get("session_id") or ""),
        "timestamp": parse_time(value.get("timestamp")),
        "query": parse_text(value["user_query"]),
        "hit_ids": [parse_text(h) for h in hits],
        "context_titles": [parse_text(t) for t in titles],
        "locale": parse_text(extra.get("locale") or ""),
        "arm": arm if marks is None else marks.current_arm(arm),
        "bucket": parse_bucket(extra.get("bucket")),
        # Format 1 compared what was displayed with what had no rewriter, which is no pair of arms.
        "impacted": parse_flag("impacted", extra.get("impacted")) if marks is None or marks.format > 1 else None,
        "pair": None if marks is None or marks.pair is None else list(map(str, marks.pair)),
        "rewritten": None if marks is None or marks.used_at is None else bool(marks.used_at),
        "texts": None if marks is None else marks.texts,
        "place": None if marks is None else marks.log,
    }


def _event(value: dict[str, Any]) -> EventRow:
    if not isinstance(value.get("action_name"), str) or not value["action_name"]:
        raise ValueError("event without action_name")
    extra = value.get("event_attributes") or {}
    if not isinstance(extra, dict):
        raise ValueError("event_attributes is not an object")
    thing, place = parse_document(extra), extra.get("position") or {}
    if not isinstance(place, dict):
        raise ValueError("event_attributes.object or .position is not an object")
    ordinal = parse_ordinal(place)
    logged = parse_text(value["action_name"])[:ID_LIMIT]
    if ordinal is not None and (isinstance(ordinal, bool) or not isinstance(ordinal, int) or not 0 <= ordinal < 2**31):
        raise ValueError(f"position.ordinal {ordinal!r:.50} is not a position")
    return {
        "query_id": parse_text(value.get("query_id") or ""),
        "user_id": parse_text(parse_client(value)),
        "action": parse_action(logged),
        "logged": logged,
        "document_id": parse_text(thing.get("object_id", "") if thing.get("object_id") is not None else ""),
        "position": ordinal,
        "timestamp": parse_time(value.get("timestamp")),
        "watch_seconds": parse_seconds(extra.get("watch_seconds")),
        "duration_seconds": parse_seconds(extra.get("duration_seconds")),
    }
