"""Progress bars: one per step, timed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class ProgressSteps:
    """Shows a bar per step on a terminal (a line per step elsewhere) and keeps the seconds of each.

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
        columns = (TextColumn("{task.description:<34}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal) as bars:
            task = bars.add_task(title, total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total)
        spent = perf_counter() - since
        self.seconds[title] = round(self.seconds.get(title, 0.0) + spent, 2)
        self._console.print(f"[green]✓[/green] {title:<34} {spent:6.1f} s", highlight=False)
