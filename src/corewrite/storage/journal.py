"""The journal of a cycle: each step's result, written once; and the lock that keeps two cycles apart."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from corewrite.storage.durable import make_folder, make_private, naming, whole_file
from corewrite.storage.json_file import read_object
from corewrite.storage.run_layout import RunLayout

_PATIENCE = 1.0
"""Seconds to wait for the lock: `running` takes it for a moment, and a cycle must not give up because somebody looks."""


class CycleRunningError(RuntimeError):
    """Another cycle is at work in the run folder."""


class JournalError(RuntimeError):
    """A cycle that cannot be continued with what was given."""


class Journal:
    """Results of the steps of one cycle, a JSON file each.

    A step is done exactly when its file is there: it is written beside its place, synced and renamed. What a step makes besides
    (artifacts, mined windows, training phases) is whole or absent by itself, and making it again gives the same.

    Args:
        folder: Of the cycle.
        shapes: By step, the types of what it wrote down, checked whenever that is read.

    Attributes:
        folder: Of the cycle.
    """

    def __init__(self, folder: Path, shapes: Mapping[str, TypeAdapter[Any]] = MappingProxyType({})) -> None:
        self.folder = folder
        self._shapes = shapes

    def once(self, step: str, compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The step's result: read where it is done, else computed and written.

        Raises:
            JournalError: the file holds no JSON object, or values of other types than the step writes.
        """
        if (found := self.read(step)) is None:
            make_folder(self.folder)
            write_json(self._file(step), compute())
            found = self.result(step)
        return found

    def read(self, step: str) -> dict[str, Any] | None:
        """The step's result; None where it is not done. A key that it lacks is a `JournalError` too.

        Raises:
            JournalError: the file holds no JSON object, or values of other types than the step writes.
        """
        file = self._file(step)
        if not file.is_file():
            return None
        return read_object(file, JournalError, "remove it, and the step is done again", self._shapes.get(step))

    def result(self, step: str) -> dict[str, Any]:
        """The result of a step that is done.

        Raises:
            JournalError: it is not done, or its file is damaged.
        """
        if (found := self.read(step)) is None:
            raise JournalError(f"{self._file(step)} is missing: the step must be done first")
        return found

    def done(self) -> list[str]:
        """Steps that are done, in the order they were."""
        files = [f for f in self.folder.glob("*.json") if f.is_file()]
        return [f.stem for f in sorted(files, key=lambda f: f.stat().st_mtime_ns)]

    def _file(self, step: str) -> Path:
        return self.folder / f"{step}.json"


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """Write JSON that is there whole, or not at all, after a power cut; for its owner alone, since it may quote searches."""
    with whole_file(file) as temporary:
        make_private(temporary).write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", "utf-8")


@contextmanager
def cycle_lock(run: Path) -> Iterator[None]:
    """Hold the run folder; the system lets go of it when the process dies.

    Raises:
        CycleRunningError: another process holds it.
    """
    make_folder(run)
    holder = RunLayout(run).cycle_holder
    lock = FileLock(RunLayout(run).cycle_lock)
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout as error:
        raise CycleRunningError(
            f"a cycle is at work in {run} (process {_holder(run)}): wait for it; `corewrite cycle status`"
        ) from error
    try:
        with naming(holder):
            holder.write_text(f"{os.getpid()}\n", "utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def running(run: Path) -> str | None:
    """The process that holds the run folder, by its lock and not by what a dead one left; None: none does."""
    if not RunLayout(run).cycle_lock.is_file():
        return None
    lock = FileLock(RunLayout(run).cycle_lock)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return _holder(run)
    lock.release()
    return None


def _holder(run: Path) -> str:
    file = RunLayout(run).cycle_holder
    return file.read_text("utf-8").strip() if file.is_file() else "unknown"
