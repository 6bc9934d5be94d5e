"""The log of what was served: files of lines under one folder, written by a thread of their own.

A log that cannot be written costs lines, which are counted, and never a search.
"""

import itertools
import logging
import os
import queue
import threading
import time
import uuid
from pathlib import Path
from typing import Protocol

from corewrite.logs.served import LogPlace
from corewrite.serving.settings import LogSettings

_log = logging.getLogger(__name__)
_ERROR_SECONDS = 60.0
_DAY, _TIDY_SECONDS = 86_400.0, 3_600.0


class Line(Protocol):
    """What a log holds."""

    def encoded(self) -> bytes:
        """The line, with its end."""
        ...


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
        self._error_logged = float("-inf")
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
            if time.monotonic() - self._error_logged > _ERROR_SECONDS:
                self._error_logged = time.monotonic()
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
