"""Folders of work in progress; a lock distinguishes those of killed processes from those of living ones.

A lock of `flock` goes with the process that holds it, however that ends, and unlike a process number it is
never another process's by chance.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from corewrite.storage.durable import DISK, Disk, remove_tree


@contextmanager
def staged(parent: Path, disk: Disk = DISK) -> Iterator[Path]:
    """A new folder under `parent`, held by this process and removed at the end."""
    with _held(parent):  # so that no process takes the folder for abandoned before its own lock is there
        folder = Path(mkdtemp(dir=parent))
        lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        try:
            remove_tree(folder, disk)
        finally:
            os.close(lock)


def abandoned(parent: Path) -> list[Path]:
    """The entries of `parent` that no living process holds."""
    with _held(parent):
        return _abandoned(parent)


def remove_abandoned(parent: Path, disk: Disk = DISK) -> None:
    """Remove the entries of `parent` that no living process holds."""
    with _held(parent):
        for path in _abandoned(parent):
            remove_tree(path, disk)


def _abandoned(parent: Path) -> list[Path]:
    return [path for path in sorted(parent.iterdir()) if not _alive(path)]


def _alive(path: Path) -> bool:
    try:
        # Not through a link, and not waiting at a pipe: neither is a folder of ours.
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except NotADirectoryError:
        return False
    except FileNotFoundError:  # its owner has just removed it
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A lock that is free because its owner has removed the folder, since it was opened here, abandons nothing.
        return not os.path.lexists(path)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
