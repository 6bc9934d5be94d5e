"""The thread that ranks, beside the event loop."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

HANG_SECONDS = 25.0
"""A call that takes longer hangs: no search may take so long."""
T = TypeVar("T")


class LateError(Exception):
    """The time of a search is over."""


class RankingThread:
    """Runs calls one after the other: the cascade fills its tables while it ranks, and they are not made for two threads."""

    def __init__(self) -> None:
        """Start no thread yet; the first call does."""
        self._executor = ThreadPoolExecutor(1, "ranking")
        self._started: float | None = None  # when the call that is running began

    def close(self) -> None:
        """End the thread; calls that wait are cancelled."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    @property
    def hangs(self) -> bool:
        """Whether a call has been running for longer than a search can take; an idle thread does not hang."""
        started = self._started  # the thread may reset it between two looks
        return started is not None and time.monotonic() - started > HANG_SECONDS

    async def run(self, call: Callable[[], T], seconds: float | None = None) -> T:
        """What `call` returns.

        Args:
            call: Runs in the thread.
            seconds: How long its turn and its result are waited for; None: without limit.

        Raises:
            LateError: the result is not there in time; a call that waits for its turn is cancelled.
        """

        def timed() -> T:
            self._started = time.monotonic()
            try:
                return call()
            finally:
                self._started = None

        future = asyncio.get_running_loop().run_in_executor(self._executor, timed)
        if seconds is None:
            return await future
        done, _ = await asyncio.wait({future}, timeout=max(0.0, seconds))
        if done:
            return future.result()
        future.cancel()
        # Nobody awaits it any more: without this asyncio would log its exception as never retrieved.
        future.add_done_callback(lambda f: f.cancelled() or f.exception())
        raise LateError
