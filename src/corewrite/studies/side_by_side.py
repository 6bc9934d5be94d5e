"""Process pools that end with the command that started them."""

import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context


@contextmanager
def processes(number: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh processes. After an error, Ctrl-C too, they end at once: what they were at is not waited for."""
    with ProcessPoolExecutor(number, get_context("spawn"), initializer=_deaf) as pool:
        try:
            yield pool
        except BaseException:
            for process in list((pool._processes or {}).values()):  # `terminate_workers` of Python 3.14
                process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _deaf() -> None:
    # Ctrl-C reaches all of a terminal's processes: the command ends its own, each need not say so.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
