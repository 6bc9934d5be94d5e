"""Time and bytes that one exchange with a server may take, all its reads and writes together.

The timeouts of client libraries are of one wait: a server that sends a byte now and then is never late by them. So the sockets
below the clients ask here, before every wait, how much of the whole is left.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Budget:
    """What is left of an exchange.

    Args:
        seconds: Wall-clock time from now; None: any.
        most_bytes: Bytes that may be read; None: any number.
    """

    def __init__(self, seconds: float | None, most_bytes: int | None = None) -> None:
        self._until = None if seconds is None else time.monotonic() + seconds
        self._bytes_left = most_bytes
        self.most_bytes = most_bytes

    def wait(self, timeout: float | None) -> float | None:
        """Seconds that the next wait may take: `timeout`, or what is left where that is less; None: any time.

        Raises:
            TimeoutError: nothing is left.
        """
        if self._until is None:
            return timeout
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the exchange was not over in its time")
        return left if timeout is None else min(left, timeout)

    def read(self, num_bytes: int) -> None:
        """Note what was read.

        Raises:
            OSError: it is more than the exchange may have.
        """
        if self._bytes_left is not None:
            self._bytes_left -= num_bytes
            if self._bytes_left < 0:
                raise OSError(f"the answer is longer than {self.most_bytes} bytes")


_ANY = Budget(None)
_present: ContextVar[Budget] = ContextVar("budget", default=_ANY)


def present_budget() -> Budget:
    """The budget of the exchange that this thread is at; one without limits outside of `spending`."""
    return _present.get()


@contextmanager
def spending(budget: Budget) -> Iterator[None]:
    """All that bounded sockets do inside counts."""
    token = _present.set(budget)
    try:
        yield
    finally:
        _present.reset(token)
