"""Live metrics: the records of a training's phases, sent on to what draws them, beside the training and never in its way."""

import json
import logging
import math
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

TrackerName = Literal["tensorboard", "wandb", "mlflow"]
_LOG = logging.getLogger(__name__)
_POLL, _PATIENCE = 1.0, 60.0


class Tracker(Protocol):
    """Where metrics go."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send the metrics of a step."""
        ...

    def close(self) -> None:
        """Send what is left, and let go."""
        ...


Open = Callable[[str], Tracker]
"""Opens a tracker, given the training's id: the same when the training goes on in another process."""


def scalars(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The finite numbers of a phase's record by their path, such as "losses/preference"."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield f"{prefix}{name}", float(value)


@contextmanager
def tracked(
    folder: Path, trackers: Mapping[str, Open], *, poll_seconds: float = _POLL, patience_seconds: float = _PATIENCE
) -> Iterator[None]:
    """Send the record of each phase to the trackers as soon as it is written, for as long as the training within runs.

    A thread of its own follows the folder: the training does nothing for it and waits for none of it, but at the end for
    `patience_seconds`. What a tracker raises is logged once as a warning, and the training goes on without that tracker.
    What was sent stands in `tracking.json`, so that a training that goes on sends each phase once, and one that began without
    trackers sends all that it has.

    Args:
        folder: Of the training run; its first process's.
        trackers: How each is opened, by name; none: nothing is done.
        poll_seconds: Time between two looks.
        patience_seconds: Time that the trackers have after the training has ended.
    """
    if not trackers:
        yield
        return
    follower = _Follower(folder, trackers)
    thread = threading.Thread(target=follower.run, args=(poll_seconds,), name="trackers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        follower.ended.set()
        thread.join(patience_seconds)
        if thread.is_alive():
            _LOG.warning("trackers: not all was sent within %g s after the training; the rest is left", patience_seconds)


class _Follower:
    """What the thread does."""

    def __init__(self, folder: Path, trackers: Mapping[str, Open]) -> None:
        self.ended = threading.Event()
        self._folder, self._openers = folder, trackers
        self._open: dict[str, Tracker] = {}
        self._sent: dict[str, int] = {}
        self._id = ""

    def run(self, poll_seconds: float) -> None:
        """Follow until the training has ended, and a last time then."""
        try:
            self._remember()
            for name, open_tracker in self._openers.items():
                with self._surviving(name):
                    self._open[name] = open_tracker(self._id)
            while self._open and not self.ended.wait(poll_seconds):
                self._catch_up()
            self._catch_up()
        except Exception as error:  # the run's folder, which the training itself will complain of
            _LOG.warning("trackers: %s: %s; nothing is sent any more", type(error).__name__, error)
        for name, tracker in list(self._open.items()):
            with self._surviving(name):
                tracker.close()

    def _catch_up(self) -> None:
        for name, tracker in list(self._open.items()):
            with self._surviving(name):
                while (record := self._record(phase := self._sent.get(name, 0))) is not None:
                    tracker.log(phase, dict(scalars(record)))
                    self._sent[name] = phase + 1
                    self._write()

    def _record(self, phase: int) -> dict[str, Any] | None:
        """Of a phase; None before it is written."""
        try:
            text = (self._folder / "phases" / f"{phase:03d}" / "record.json").read_text("utf-8")
        except FileNotFoundError:
            return None
        found: dict[str, Any] = json.loads(text)
        return found

    @property
    def _file(self) -> Path:
        return self._folder / "tracking.json"

    def _remember(self) -> None:
        try:
            known = json.loads(self._file.read_text("utf-8"))
            self._id, self._sent = str(known["id"]), {str(k): int(v) for k, v in known["sent"].items()}
        except FileNotFoundError:
            self._id = uuid.uuid4().hex
            self._write()

    def _write(self) -> None:
        # Under a name of its own until it is whole: the training removes what a killed one was writing.
        self._folder.mkdir(parents=True, exist_ok=True)
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps({"id": self._id, "sent": self._sent}), "utf-8")
        new.replace(self._file)

    @contextmanager
    def _surviving(self, name: str) -> Iterator[None]:
        """Let go of a tracker that fails."""
        try:
            yield
        except Exception as error:
            self._open.pop(name, None)
            _LOG.warning("tracker %s: %s: %s; the training goes on without it", name, type(error).__name__, error)
