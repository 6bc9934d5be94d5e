"""The number of threads, which rounding depends on: a run that is gone on with takes those it began with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def with_threads(count: int | None) -> Iterator[int]:
    """Compute with so many threads, None with as many as now; gives the number, and puts the old one back."""
    before = torch.get_num_threads()
    try:
        if count is not None and count != before:
            torch.set_num_threads(count)
        yield torch.get_num_threads()
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
