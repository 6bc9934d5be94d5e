"""Progress of long commands: a bar per step on a terminal, lines elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

_SILENT = 30.0
"""Seconds after which a step without a terminal says that it is still at work."""


class ProgressSteps:
    """Shows a bar per step on a terminal and keeps the seconds of each.

    Elsewhere (a file, a scheduler's log) a line at the end of each step, and one every half minute of a long one.

    Attributes:
        seconds: Seconds by step, in order.
    """

    def __init__(self, console: Console) -> None:
        self.seconds: dict[str, float] = {}
        self._console = console

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """Enter a step; call the value with (done, total) where the step can tell."""
        since = perf_counter()
        with (self._bar if self._console.is_terminal else self._lines)(title) as advance:
            yield advance
        spent = perf_counter() - since
        self.seconds[title] = round(self.seconds.get(title, 0.0) + spent, 2)
        self._console.print(f"[green]✓[/green] {title:<34} {spent:6.1f} s", highlight=False)

    @contextmanager
    def _bar(self, title: str) -> Iterator[Callable[[int, int], None]]:
        columns = (TextColumn("{task.description:<34}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True) as bars:
            task = bars.add_task(title, total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total)

    @contextmanager
    def _lines(self, title: str) -> Iterator[Callable[[int, int], None]]:
        since, ended, share = perf_counter(), Event(), ""

        def advance(done: int, total: int) -> None:
            nonlocal share
            share = f" {done / total:4.0%}" if total else ""

        def speak() -> None:
            while not ended.wait(_SILENT):
                self._console.print(f"… {title:<34} {perf_counter() - since:6.1f} s{share}", highlight=False)

        speaker = Thread(target=speak, name="progress", daemon=True)
        speaker.start()
        try:
            yield advance
        finally:
            ended.set()
            speaker.join()
