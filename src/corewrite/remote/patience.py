"""A wall-clock limit around a call that may never end."""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar, cast

T = TypeVar("T")


class OutOfTimeError(TimeoutError):
    """A call that took too long, or could not begin because one before it still does."""


class Patience:
    """Calls of one backend, each within a limit of time, whatever it does: name look-ups, loops, its own time-outs.

    They run in a thread of their own, one after the other. A call that outlasts the limit is left to itself, since no thread
    can be stopped from outside; until it ends every further one is refused at once, so that no more than one thread is lost
    to a backend and no two calls meet in it.

    Args:
        name: Of the backend, for messages.
        seconds: Limit of one call, with the wait for those before it.
    """

    def __init__(self, name: str, seconds: float) -> None:
        self._name, self._seconds = name, seconds
        self._turn = threading.Lock()
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._began = 0.0
        self._abandoned: Future[Any] | None = None

    @property
    def stuck_seconds(self) -> float:
        """How long ago the call began that outlasted its limit and still runs; 0 where there is none."""
        return time.monotonic() - self._began if self._is_stuck else 0.0

    @property
    def _is_stuck(self) -> bool:
        left = self._abandoned
        return left is not None and not left.done()

    def call(self, function: Callable[[], T]) -> T:
        """What `function` returns or raises.

        Raises:
            OutOfTimeError: it did not end in time, or one before it did not and still runs.
        """
        until = time.monotonic() + self._seconds
        while not self._turn.acquire(timeout=max(0.0, min(0.01, until - time.monotonic()))):
            self._refuse_stuck()
            if time.monotonic() >= until:
                raise OutOfTimeError(f"{self._name} had no time for a call within {self._seconds:g} s")
        try:
            self._refuse_stuck()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"calls of {self._name}", daemon=True)
                self._thread.start()
            future: Future[T] = Future()
            self._began = time.monotonic()
            self._calls.put((future, function))
            try:
                return future.result(max(0.0, until - time.monotonic()))
            except TimeoutError:
                if future.done():  # the call's own
                    raise
                self._abandoned = cast("Future[Any]", future)
                raise OutOfTimeError(f"{self._name} did not answer within {self._seconds:g} s") from None
        finally:
            self._turn.release()

    def _refuse_stuck(self) -> None:
        if self._is_stuck:
            raise OutOfTimeError(f"{self._name} is still at a call that began {self.stuck_seconds:.1f} s ago")

    def _run(self) -> None:
        while True:
            future, function = self._calls.get()
            try:
                future.set_result(function())
            except BaseException as error:  # whatever it is, it belongs to who called
                future.set_exception(error)
            del future, function  # or the last answer would live until the next call
