"""Putting files on disk so that they are there after a power cut."""

import errno
import os
from pathlib import Path


def sync(path: Path) -> None:
    """Force a file's bytes, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Force a folder with all files and folders below it to the disk, the innermost first."""
    for path in folder.iterdir():
        if path.is_dir():
            sync_tree(path)
        else:
            sync(path)
    sync(folder)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, and force the new entries to the disk."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync(folder.parent)


def move_folder(source: Path, destination: Path) -> bool:
    """Rename a folder in one step; False, nothing changed, where `destination` holds something already."""
    try:
        source.rename(destination)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True
