"""Where a run stands: finished and unfinished weeks, champion, rollout."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from typing_extensions import TypedDict

from corewrite.cycle.config import CycleConfig
from corewrite.cycle.records import RECORD, CycleJournal, WeekRecord, open_journals
from corewrite.cycle.steps.rollout import load_rollout
from corewrite.registry import Registry
from corewrite.storage.journal import JournalError, running
from corewrite.storage.run_layout import RunLayout


class RolloutStatus(TypedDict):
    """The rollout of the newest champion."""

    status: str
    champion: int
    share: float
    """Of the users who get the champion."""
    last: str
    """What the last look said."""


class CycleStatus(TypedDict):
    """Where a run stands."""

    champion: Mapping[str, object] | None
    """See `Champion`."""
    running: str | None
    """The process that is at work."""
    unfinished: Mapping[str, list[str]]
    """Steps done of the weeks that can be gone on with."""
    weeks: list[WeekRecord]
    """Finished weeks, in order."""
    ramp: RolloutStatus | None


def load_history(run: Path) -> list[WeekRecord]:
    """Records of the finished cycles, in the order of the weeks' names.

    Raises:
        JournalError: a record is damaged.
    """
    found = [_finished(journal) for journal in open_journals(run)]
    return [record for record in found if record is not None]


def _finished(journal: CycleJournal) -> WeekRecord | None:
    """The record of a finished cycle, as far as others show it and go by it; None where it is not finished."""
    record = journal.read(RECORD)
    if record is not None and record["week"] != journal.week:
        file = journal.folder / f"{RECORD.name}.json"
        raise JournalError(f"{file} is damaged (it is of week {record['week']!r}): restore it")
    return record


def cycle_status(config: CycleConfig) -> CycleStatus:
    """Where a run stands.

    Raises:
        JournalError: a record is damaged.
    """
    run, registry = config.run, RunLayout(config.run).registry
    champion = Registry(registry).champion() if registry.is_dir() else None
    weeks = load_history(run)
    last = weeks[-1]["week"] if weeks else ""
    # What a later week has overtaken cannot be gone on with.
    unfinished = {j.week: j.done() for j in open_journals(run) if j.read(RECORD) is None and j.week > last}
    return {
        "champion": None if champion is None else asdict(champion),
        "running": running(run),
        "unfinished": unfinished,
        "weeks": weeks,
        "ramp": _rollout_status(run),
    }


def _rollout_status(run: Path) -> RolloutStatus | None:
    if (found := load_rollout(run)) is None:
        return None
    state, config = found
    return {
        "status": state.status,
        "champion": state.champion,
        "share": state.share(config),
        "last": state.history[-1].reason if state.history else "no look yet",
    }
