"""What the commands share: exit codes, error reporting, JSON."""

import json
import logging
import math
import multiprocessing
import os
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from corewrite.storage.durable import FULL
from corewrite.storage.run_layout import RunLayout

if TYPE_CHECKING:
    from corewrite.registry import Registry


class Exit(IntEnum):
    """Exit codes."""

    OK = 0
    FAILED = 1
    USAGE = 2
    HOLD = 3
    REJECT = 4
    REJECTS = 5
    STOPPED = 130


VERDICT_EXITS = {"promote": Exit.OK, "hold": Exit.HOLD, "reject": Exit.REJECT}


@contextmanager
def reported_errors(again: str = "") -> Iterator[None]:
    """Turn errors of the input, which the user can mend, into one message and exit code 1; others keep their traceback.

    Ctrl-C ends with exit code 130, and what the command started ends too.

    Args:
        again: What the same command does after Ctrl-C, such as "it goes on from the last checkpoint"; said then.
    """
    try:
        yield
    except KeyboardInterrupt:
        _end_what_runs()
        if again:
            say(f"stopped; run the same command again: {again}", err=True, fg="yellow")
        raise typer.Exit(Exit.STOPPED) from None
    except (ValueError, OSError, RuntimeError, LookupError, ImportError) as error:
        if not is_of_the_input(error):
            raise
        say(*f"error: {_said(error)}".split("\n"), err=True, fg="red")
        raise typer.Exit(Exit.FAILED) from error


def is_of_the_input(error: Exception) -> bool:
    """Whether an error is raised with a message for people; a library's own failure deep inside is a bug to be seen whole."""
    return type(error).__module__.startswith("corewrite") or isinstance(error, ValueError | OSError)


def _said(error: Exception) -> str:
    """An error in words; of a full disk also what is left on it."""
    if not isinstance(error, OSError) or error.errno not in FULL or error.filename is None:
        return str(error)
    folder = Path(os.fsdecode(error.filename))
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    left = shutil.disk_usage(folder).free / 2**20
    return f"{error.filename}: {error.strerror} ({left:,.0f} MiB are left): free some space, and run the command again"


_PATIENCE = 1.0
"""Seconds that threads have to end after Ctrl-C."""


def _end_what_runs() -> None:
    """End child processes, and threads that are still at work when the command has ended.

    Such a thread is at some step of a training, and would keep the process for minutes. It may be stopped anywhere: what is
    written is whole or not there.
    """
    for child in multiprocessing.active_children():
        child.terminate()
    others = [t for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
    if not others:
        return

    def end() -> None:
        threading.main_thread().join()
        time.sleep(_PATIENCE)
        os._exit(Exit.STOPPED)

    threading.Thread(target=end, daemon=True).start()


def _spelled(text: str, keep: str = "") -> str:
    """See `domain.shown.spelled`; imported here, since numpy comes with it and `cores` has to be read before that."""
    from corewrite.domain.shown import spelled

    return spelled(text, keep=keep)


def visible(text: str) -> str:
    """See `domain.shown.visible`; imported here for the same reason."""
    from corewrite.domain.shown import visible

    return visible(text)


class _Spelled(logging.Formatter):
    """A message of ours may hold what a server, a log or a file said."""

    def format(self, record: logging.LogRecord) -> str:
        return _spelled(super().format(record), keep="\n")


@contextmanager
def plain_messages() -> Iterator[None]:
    """Warnings in one line each, without the place in the code where they arose; what is logged drives no terminal."""
    before, handler = warnings.formatwarning, logging.lastResort
    warnings.formatwarning = lambda message, *args, **rest: f"warning: {_spelled(str(message))}\n"
    formatter = None if handler is None else handler.formatter
    if handler is not None:
        handler.setFormatter(_Spelled())
    try:
        yield
    finally:
        warnings.formatwarning = before
        if handler is not None:
            handler.setFormatter(formatter)


def say(*lines: str, err: bool = False, fg: str | None = None) -> None:
    """Lines on the terminal, whatever stands in them: no text that comes from outside begins another or does anything else."""
    for line in lines:
        typer.secho(_spelled(line), err=err, fg=fg)


def warn_renamed(old: str, new: str) -> None:
    """Warn of a command, or an option, under its earlier name, which the next release will not know."""
    from corewrite.domain.earlier_config import OldConfigWarning

    warnings.warn(f"`{old}` is `{new}` now; the next release knows only that", OldConfigWarning, stacklevel=3)


def print_json(value: Any) -> None:
    """One JSON document on standard output, in ASCII; a number that is not finite, which JSON lacks, is null."""
    text = json.dumps(_finite(value), indent=1, default=str, allow_nan=False)
    sys.stdout.write(text.replace("\x7f", "\\u007f") + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def progress_console(quiet: bool) -> Console:
    """Where progress goes: standard error, so that standard output holds results only."""
    return Console(stderr=True, quiet=quiet)


def open_registry(run: Path) -> "Registry":
    """The registry of a run folder.

    Raises:
        FileNotFoundError: there is none.
    """
    from corewrite.registry import Registry

    root = RunLayout(run).registry
    if not root.is_dir():
        raise FileNotFoundError(f"{run} holds no registry: run `corewrite demo` or `corewrite train` first, or name --run")
    return Registry(root)
