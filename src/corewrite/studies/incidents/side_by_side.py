"""Arms of a study in processes of one thread each, with progress by week."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from corewrite.domain.extras import from_extra
from corewrite.domain.steps import Steps
from corewrite.studies.incidents.config import IncidentsConfig
from corewrite.studies.incidents.layout import StudyLayout
from corewrite.studies.incidents.run import ArmPlan, load_rows, remove_run, run_arm
from corewrite.studies.incidents.summary import load_weeks
from corewrite.studies.side_by_side import processes

_LOOK = 2.0
"""Seconds between two looks at how far the arms are."""
Piece = tuple[IncidentsConfig, Path, ArmPlan]
"""Settings, folder of the study, and which of its arms."""


def run_arms(
    pieces: Sequence[Piece], workers: int, steps: Steps, *, until: float = float("inf"), keep_runs: bool = True
) -> bool:
    """Run arms of studies whose healthy weeks are there, or go on with them; one that fails does not stop the others.

    Args:
        pieces: Which arms.
        workers: Processes.
        steps: Shows progress.
        until: Monotonic time after which no further week begins.
        keep_runs: Whether run folders and logs stay when an arm is finished.

    Returns:
        Whether all of them are whole.

    Raises:
        Exception: what the first arm failed with that failed, when the others are done.
    """
    failed: list[BaseException] = []
    missing = [piece for piece in pieces if not load_weeks(*piece)]
    if missing and monotonic() < until:
        title = f"{len(missing)} arms, the first {missing[0][2].name}"
        with processes(workers) as pool, steps.step(title) as progress:
            waiting, running = list(reversed(missing)), set[Future[None]]()
            while (waiting and monotonic() < until) or running:
                while waiting and len(running) < workers and monotonic() < until:
                    config, folder, plan = waiting.pop()
                    running.add(pool.submit(_run, config.model_dump_json(), folder, plan, until - monotonic(), keep_runs))
                done, running = wait(running, _LOOK, FIRST_COMPLETED)
                failed += [error for future in done if (error := future.exception()) is not None]
                progress(sum(len(load_rows(*p)) for p in missing), sum(p[0].weeks_of(p[2].gated) + 1 for p in missing))
    if failed:
        raise failed[0]
    return all(load_weeks(*piece) for piece in pieces)


def _run(settings: str, folder: Path, plan: ArmPlan, seconds: float, keep_run: bool) -> None:
    with from_extra("train", "a process is kept to one core by threadpoolctl"):
        from threadpoolctl import threadpool_limits
    torch.set_num_threads(1)
    threadpool_limits(1)
    config, end = IncidentsConfig.model_validate_json(settings), monotonic() + seconds
    while not load_weeks(config, folder, plan) and monotonic() < end:
        run_arm(config, folder, plan, _Unseen(), weeks=1)
    if not keep_run and load_weeks(config, folder, plan):
        remove_run(StudyLayout(folder), plan)


class _Unseen:
    """Steps of a process without a terminal."""

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[int, int], Any]]:
        yield lambda done, total: None
