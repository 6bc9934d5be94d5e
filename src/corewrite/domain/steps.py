"""How a long run shows what it is at."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol


class Steps(Protocol):
    """Shows and times the steps of a run."""

    def step(self, title: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """Enter a step; the value takes (done, total)."""
        ...
