"""What was served, as UBI 1.3.0: one line a search, written by a thread of its own.

What a line says is `corewrite.logs.served`. A log that cannot be written costs lines, which are counted, and never a search.
"""

import hashlib
import hmac
import itertools
import logging
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import JsonValue

from corewrite.logs.sealing import Sealer
from corewrite.logs.served import Answer, Attributes, LogPlace, Pair, ServedLine, ServedSearch, Texts, UnseenAnswer
from corewrite.logs.times import iso
from corewrite.logs.writer import APPLICATION
from corewrite.serving.search_result import SearchResult
from corewrite.serving.settings import LogSettings

_log = logging.getLogger(__name__)
_COMPLAIN_SECONDS = 60.0
_DAY, _TIDY_SECONDS = 86_400.0, 3_600.0


class Hasher:
    """Keyed hashes in the place of names and texts."""

    def __init__(self, secret: str | None) -> None:
        self._key = (secret or "corewrite").encode()

    def __call__(self, text: str) -> str:
        """A hash of `text`, 32 hexadecimal digits."""
        return hmac.new(self._key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]


class Line(Protocol):
    """What a log holds."""

    def encoded(self) -> bytes:
        """The line, with its end."""
        ...


@dataclass(frozen=True)
class Compared:
    """What a comparison came to.

    Attributes:
        pair: What was compared, control first.
        lists: Catalogue rows of both sides, best first; None where one cannot be known.
    """

    pair: Pair
    lists: tuple[tuple[int, ...], tuple[int, ...]] | None


def build_line(
    found: SearchResult,
    *,
    query_id: str,
    client_id: str,
    bucket: int,
    session_id: str,
    timestamp: float,
    ids: Callable[[int], str],
    compared: Compared | None,
    shadow: SearchResult | None,
    backends: Mapping[str, JsonValue],
    texts: Texts,
    hasher: Hasher,
    place: LogPlace,
    sealer: Sealer | None = None,
) -> ServedLine:
    """The line of a search.

    Args:
        found: The search.
        query_id: Of this search.
        client_id: Of the user; only its hash is written.
        bucket: Of the user; see `corewrite.domain.traffic_split`.
        session_id: Only its hash is written.
        timestamp: Seconds since the epoch.
        ids: Document id by catalogue row.
        compared: What a comparison came to, where one was made.
        shadow: The answer of the champion that nobody sees yet, where it was computed.
        backends: What scored and recalled: `Ranker.facts`.
        texts: Whether the user's texts are written, their hashes, or sealed.
        hasher: Makes the hashes.
        place: Of the line in the log.
        sealer: Seals texts; needed where `texts` says so.
    """

    def shown(field: str, text: str) -> str:
        if texts == "plain":
            return text
        return hasher(text) if sealer is None else sealer.seal(query_id, field, text)

    def all_shown(field: str, several: Iterable[str]) -> tuple[str, ...]:
        return tuple(shown(f"{field}.{i}", text) for i, text in enumerate(several))

    ranked, context = found.ranked, found.query.context
    names = sorted({name for factors in ranked.factors for name in factors})
    lists = compared.lists if compared is not None else None
    served = ServedSearch(
        **dict(_answer(found, all_shown("rewrites", found.texts))),
        texts=texts,
        context_queries=all_shown("context_queries", context.queries),
        ramp=found.rollout,
        backends=dict(backends),
        factors={name: tuple(f.get(name, 1.0) for f in ranked.factors) for name in names},
        scores=ranked.scores,
        pair=None if compared is None else compared.pair,
        lists=None if lists is None else (_named(lists[0], ids), _named(lists[1], ids)),
        shadow=None
        if shadow is None
        else UnseenAnswer(
            **dict(_answer(shadow, all_shown("shadow.rewrites", shadow.texts))), hit_ids=_named(shadow.ranked.rows, ids)
        ),
        log=place,
    )
    return ServedLine(
        application=APPLICATION,
        query_id=query_id,
        client_id=hasher(client_id),
        user_query=shown("user_query", found.query.text),
        timestamp=iso(timestamp),
        query_response_id=query_id,
        query_response_hit_ids=_named(ranked.rows, ids),
        query_attributes=Attributes(
            session_id=hasher(session_id) if session_id else "",
            context_titles=all_shown("context_titles", context.titles),
            locale=context.locale,
            arm=found.arm,
            bucket=bucket,
            impacted=None if lists is None else lists[0] != lists[1],
            served=served,
        ),
    )


def _named(rows: tuple[int, ...], ids: Callable[[int], str]) -> tuple[str, ...]:
    return tuple(ids(row) for row in rows)


def _answer(found: SearchResult, rewrites: tuple[str, ...]) -> Answer:
    """What answered, and what became of the rewrite."""
    champion = found.version.champion
    return Answer(
        version=champion.version,
        policy=champion.policy,
        relevance=champion.relevance,
        spec=champion.spec,
        spec_hash=found.version.spec_hash,
        signal_status={name: str(state) for name, state in found.ranked.status.items()},
        rewrite=found.reason,
        rewrites=rewrites,
        used_at=found.used_at,
    )


class UbiLog:
    """Files of lines under one folder, one open at a time; `put` never waits.

    Attributes:
        written: Lines on disk, or at least with the operating system.
        dropped: Lines lost to a full queue or a disk that refused them.
    """

    def __init__(self, settings: LogSettings) -> None:
        """Start the thread.

        Raises:
            ValueError: the settings name no folder.
        """
        if settings.folder is None:
            raise ValueError("log.folder is not set: there is nowhere to write the log to")
        self._folder, self._limit = settings.folder, settings.rotate_bytes
        self._kept = None if settings.retention_days is None else settings.retention_days * _DAY
        self._begun = 0.0
        self._tidy_at = 0.0
        self._path: Path | None = None
        self._queue: queue.Queue[Line | None] = queue.Queue(settings.queue)
        self._writer, self._places = uuid.uuid4().hex, itertools.count()
        self._file: int | None = None
        self._size = self._number = 0
        self._torn = False
        self._complained = float("-inf")
        self.written = self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="ubi-log", daemon=True)
        self._thread.start()

    def next_place(self) -> LogPlace:
        """The place of the next search, whether its line gets there or is lost."""
        return LogPlace(writer=self._writer, sequence=next(self._places))

    def put(self, line: Line) -> bool:
        """Hand a line over; False where too many wait, so that it is dropped."""
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            self.dropped += 1
            return False
        return True

    def close(self) -> None:
        """Write what waits, sync it, and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _next(self) -> Line | None:
        """The next line; while there is none, old files are looked for now and then."""
        while True:
            try:
                return self._queue.get(timeout=None if self._kept is None else self._tidied())
            except queue.Empty:
                continue

    def _tidied(self) -> float:
        """Remove what is too old, where it is time to; seconds until it is again."""
        now = time.monotonic()
        if now >= self._tidy_at and self._kept is not None:
            self._tidy_at = now + _TIDY_SECONDS
            if self._file is not None and now - self._begun > min(_DAY, self._kept):
                self._rotate()
            try:
                for file in self._folder.glob("ubi-*.ndjson"):
                    if file != self._path and time.time() - file.stat().st_mtime > self._kept:
                        file.unlink(missing_ok=True)
            except OSError as error:  # of another worker, which removed it first, or of the disk
                _log.info("old files of the log in %s: %s", self._folder, error)
        return max(0.0, self._tidy_at - now)

    def _run(self) -> None:
        while (line := self._next()) is not None:
            lines = [line]
            last = False
            while len(lines) < 256:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    last = True
                    break
                lines.append(more)
            self._write(lines)
            if last:
                break
        self._rotate()

    def _write(self, lines: list[Line]) -> None:
        data = b"".join(line.encoded() for line in lines)
        try:
            file = self._open()
            # A line that a full disk cut off is ended, so that it spoils itself only.
            rest = memoryview(b"\n" + data if self._torn else data)
            while rest:
                done = os.write(file, rest)
                self._torn, rest = True, rest[done:]
                self._size += done
            self._torn = False
            self.written += len(lines)
        except OSError as error:
            self.dropped += len(lines)
            if time.monotonic() - self._complained > _COMPLAIN_SECONDS:
                self._complained = time.monotonic()
                _log.error(
                    "the log in %s cannot be written: %s; %d lines were dropped so far", self._folder, error, self.dropped
                )
        if self._size >= self._limit:
            self._rotate()

    def _open(self) -> int:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            path = self._folder / f"ubi-{stamp}-{os.getpid()}-{self._number}.ndjson"
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
            self._path, self._begun = path, time.monotonic()
            self._number += 1
            self._size, self._torn = 0, False
        return self._file

    def _rotate(self) -> None:
        if self._file is None:
            return
        try:
            try:
                os.fsync(self._file)
            finally:
                os.close(self._file)
        except OSError as error:
            _log.error("the log in %s cannot be synced: %s", self._folder, error)
        self._file = self._path = None
