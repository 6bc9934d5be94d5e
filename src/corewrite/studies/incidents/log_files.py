"""Incidents of the week's log file."""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from corewrite.domain import Catalogue, keyed_uniform, text_key, words
from corewrite.logs.times import iso, parse_time
from corewrite.logs.writer import APPLICATION
from corewrite.studies.incidents.incident import BranchPoint, Incident, Injection, UbiLine

_SHOWN: Final = 10


def read_lines(path: Path) -> list[UbiLine]:
    """The lines of a log, plain or gzipped."""
    raw = path.read_bytes()
    return [json.loads(line) for line in (gzip.decompress(raw) if path.suffix == ".gz" else raw).splitlines()]


def write_lines(lines: Sequence[UbiLine], path: Path) -> None:
    """Write a gzipped log, with the same bytes every time."""
    text = b"".join(json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode() + b"\n" for line in lines)
    path.write_bytes(gzip.compress(text, compresslevel=3, mtime=0))


def is_query(line: UbiLine) -> bool:
    """Whether a line is a search, not an event."""
    return "user_query" in line


def described_alike(lines: Sequence[UbiLine], descriptions: Mapping[str, str]) -> dict[str, str]:
    """Descriptions of what searches want, for raters; a search that nobody described is taken for one that others typed alike.

    Args:
        lines: Of the log.
        descriptions: By search id.
    """
    queries = [line for line in lines if is_query(line)]
    by_text = {line["user_query"]: descriptions[line["query_id"]] for line in queries if line["query_id"] in descriptions}
    alike = {line["query_id"]: by_text[line["user_query"]] for line in queries if line["user_query"] in by_text}
    return {**alike, **descriptions}


def with_bots(lines: Sequence[UbiLine], catalogue: Catalogue, share: float, seed: int) -> list[UbiLine]:
    """The log with the sessions of a click farm that is paid to make one creator known.

    A bot searches as some user did, passes over what it sees, searches again with the creator's name behind, and watches one of
    the creator's videos to the end.

    Args:
        lines: Of the log.
        catalogue: Its creators are the last words of the documents' texts.
        share: Of the searches in the log, the bots' included.
        seed: Of the draws.
    """
    queries = [line for line in lines if is_query(line)]
    rng = np.random.default_rng([seed, 96])
    creator, videos = promoted_creator(catalogue, seed)
    sessions = round(share / (1 - share) * len(queries) / 2)
    found = list(lines)
    for i, at in enumerate(np.sort(rng.integers(0, len(queries), sessions)).tolist()):
        template = queries[at]
        chosen = [catalogue.ids[row] for row in rng.permutation(videos)[:_SHOWN]]
        watched = int(rng.integers(len(chosen)))
        start = parse_time(template["timestamp"]) + 0.5
        found += _bot_session(template, f"bot-{seed}-{i}", creator, chosen, watched, start, catalogue)
    return found


def promoted_creator(catalogue: Catalogue, seed: int) -> tuple[str, npt.NDArray[np.int64]]:
    """A word that 5 to 60 documents' texts end with, one by the seed, and these documents' rows."""
    last = [(words(text) or [""])[-1] for text in catalogue.texts]
    names, of, count = np.unique(np.array(last), return_inverse=True, return_counts=True)
    some = np.flatnonzero((count >= 5) & (count <= 60) & (names != ""))
    if len(some) == 0:
        raise ValueError("no creator has 5 to 60 documents: a click farm has nobody to make known")
    chosen = some[int(keyed_uniform(seed, 97) * len(some))]
    return str(names[chosen]), np.flatnonzero(of == chosen)


def _bot_session(
    template: UbiLine, name: str, creator: str, videos: Sequence[str], watched: int, start: float, catalogue: Catalogue
) -> list[UbiLine]:
    """Two searches, a click and a watch."""
    shared = {**template["query_attributes"], "session_id": f"{name}-s"}

    def search(number: int, text: str, hits: Sequence[str], at: float) -> UbiLine:
        return {
            "application": APPLICATION,
            "query_id": f"{name}-{number}",
            "client_id": name,
            "user_query": text,
            "timestamp": iso(at),
            "query_response_id": f"{name}-{number}",
            "query_response_hit_ids": list(hits),
            "query_attributes": shared,
        }

    seconds = float(catalogue.seconds[catalogue.find([videos[watched]])[0]])

    def event(action: str, at: float, **more: float) -> UbiLine:
        return {
            "application": APPLICATION,
            "action_name": action,
            "query_id": f"{name}-1",
            "session_id": f"{name}-s",
            "client_id": name,
            "timestamp": iso(at),
            "event_attributes": {
                "object": {"object_id": videos[watched], "object_id_type": "video"},
                "position": {"ordinal": watched + 1},
                **more,
            },
        }

    text = str(template["user_query"])
    return [
        search(0, text, template["query_response_hit_ids"], start),
        search(1, f"{text} {creator}", videos, start + 8),
        event("click", start + 12),
        event("watch", start + 12 + seconds, watch_seconds=seconds, duration_seconds=seconds),
    ]


def with_wrong_clicks(lines: Sequence[UbiLine], share: float) -> list[UbiLine]:
    """The log, in which the events of a share of the searches belong to the next search of the log, somebody else's.

    Args:
        lines: Of the log, searches in the order of time.
        share: Of the searches.
    """
    ids = [str(line["query_id"]) for line in lines if is_query(line)]
    next_id = {a: b for a, b in zip(ids, ids[1:] + ids[:1], strict=True) if float(keyed_uniform(98, text_key(a))) < share}
    return [line if is_query(line) else {**line, "query_id": next_id.get(line["query_id"], line["query_id"])} for line in lines]


def _has_bots(strength: float, point: BranchPoint) -> Injection:
    return Injection(log=lambda lines, catalogue: with_bots(lines, catalogue, strength, point.seed))


def _has_wrong_clicks(strength: float, point: BranchPoint) -> Injection:
    return Injection(log=lambda lines, catalogue: with_wrong_clicks(lines, strength))


def _is_read_twice(strength: float, point: BranchPoint) -> Injection:
    return Injection(log=lambda lines, catalogue: [*lines, *lines])


def _is_missing(strength: float, point: BranchPoint) -> Injection:
    return Injection(log=lambda lines, catalogue: [])


LOG_INCIDENTS = (
    Incident(
        "bot-clicks",
        "learned hack",
        "a click farm makes one creator known: relevance model, repairs and reward learn from its searches",
        (0.2, 0.4, 0.6),
        "share of the log's searches",
        None,
        True,
        _has_bots,
    ),
    Incident(
        "wrong-clicks",
        "fault",
        "clicks are attributed to the next search of the log, somebody else's, for two weeks",
        (0.5, 1.0),
        "share of the searches",
        2,
        True,
        _has_wrong_clicks,
    ),
    Incident("log-twice", "fault", "a log is read twice", (1.0,), "weeks", 1, True, _is_read_twice),
    Incident("week-missing", "fault", "a week has no log", (1.0,), "weeks", 1, True, _is_missing),
)
