"""Which weeks there is a log of."""

from collections.abc import Sequence
from pathlib import Path

from corewrite.logs.files import ENDINGS, log_files


class CycleError(ValueError):
    """A cycle that cannot be run; the message says why and what to do."""


def weekly_logs(logs: Path) -> dict[str, list[Path]]:
    """Log files by week, in the order of the weeks' names.

    Raises:
        CycleError: the folder does not exist.
    """
    if not logs.is_dir():
        raise CycleError(f"logs {logs} is no folder: name the folder with a UBI log for every week")
    weeks: dict[str, list[Path]] = {}
    for path in sorted(p for p in logs.iterdir() if not p.name.startswith(".")):  # hidden: still being written
        name = path.name
        for ending in ENDINGS:
            name = name.removesuffix(ending)
        if path.is_dir():
            found = log_files(path)
            if found:  # a folder without a log, such as lost+found, is no week
                weeks[path.name] = found
        elif path.name != name:
            weeks.setdefault(name, []).append(path)
    return weeks


def split_windows(
    logs: Path | None, earlier: Sequence[Path], window: Sequence[Path], weeks: int
) -> tuple[list[Path], list[Path]]:
    """Log files of the window that gives the reward its instances, and of those before it, for the relevance model.

    Args:
        logs: Folder with a log for every week, of which the newest is the window; None: there is none.
        earlier: Files that are named for the earlier window.
        window: Files that are named for the window; both are named, or none.
        weeks: How many weeks before the newest the earlier window has.

    Returns:
        Files of the earlier window and of the window.

    Raises:
        CycleError: one of the two is neither named nor in the folder.
    """
    if earlier and window:
        return list(earlier), list(window)
    if earlier or window or logs is None:
        raise CycleError("say which logs to train on: --earlier-log and --log, or `logs:` in the settings (--config)")
    found = list(weekly_logs(logs).values())
    if len(found) < 2:
        raise CycleError(
            f"logs {logs} holds {len(found)} weeks of log: training needs a week, and one before it for the relevance model"
        )
    return [file for week in found[:-1][-weeks:] for file in week], found[-1]
