"""Putting files on disk so that they are there after a power cut, and taking them away."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial-"
"""How the name of what is being written begins; a process that is killed may leave such a file behind."""


class Disk:
    """The primitive operations that change a disk.

    All that the registry does to its folders goes through here, so that a test can put in its place a disk
    which loses what was not synced.
    """

    def sync(self, path: Path) -> None:
        """Force a file's bytes, or a folder's entries, to the disk."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def make(self, folder: Path) -> None:
        """Make a folder; one that is there already is fine."""
        folder.mkdir(exist_ok=True)

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file over another, or a folder over nothing or an empty one."""
        source.rename(target)

    def remove(self, path: Path) -> None:
        """Remove a file, a link or an empty folder."""
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()


DISK = Disk()


def sync(path: Path) -> None:
    """Force a file's bytes, or a folder's entries, to the disk."""
    DISK.sync(path)


def sync_tree(folder: Path, disk: Disk = DISK) -> None:
    """Force a folder with all files and folders below it to the disk, the innermost first."""
    for path in folder.iterdir():
        if path.is_dir():
            sync_tree(path, disk)
        else:
            disk.sync(path)
    disk.sync(folder)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the disk name the path that was written to: what a full one refuses in the middle of a file says none.

    Libraries that are not of Python word it in an exception of their own; it becomes the `OSError` that it is.
    """
    try:
        yield
    except Exception as error:
        found = error.errno if isinstance(error, OSError) else _number(error)
        # Of two names, as after a copy, the first is what was read.
        named = isinstance(error, OSError) and error.filename is not None and error.filename2 is None
        if found is None or found not in _OF_THE_DISK or named:
            raise
        raise OSError(found, os.strerror(found), str(path)) from error


def _number(error: Exception) -> int | None:
    found = _RUST.search(str(error))
    return int(found[1]) if found else None


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a disk, or of a user's share of it, that is full."""
_OF_THE_DISK = (*FULL, errno.EIO, errno.EROFS)
_RUST = re.compile(r"\(os error (\d+)\)")
"""How safetensors and tokenizers word an error of the system."""


def make_private(path: Path) -> Path:
    """An empty file in this place that its owner alone may read or write, for texts of users; the path again.

    What opens it for writing, a library too, leaves it so.

    Raises:
        OSError: it cannot be made, or is another user's.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)  # one that was there keeps its own
    finally:
        os.close(descriptor)
    return path


@contextmanager
def whole_file(final: Path) -> Iterator[Path]:
    """A file to write to that takes the place of `final` once on the disk; after an error it is gone and `final` as it was.

    It lies beside `final`, hidden, under a name that ends as `final` does: some writers go by the ending.
    """
    temporary = final.with_name(f"{PARTIAL}{final.name}")
    try:
        with naming(final):
            yield temporary
            sync(temporary)
            temporary.replace(final)
            sync(final.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def make_folder(folder: Path, disk: Disk = DISK) -> None:
    """Make a folder and its parents, and force the new entries to the disk."""
    if folder.is_dir():
        return
    make_folder(folder.parent, disk)
    disk.make(folder)
    disk.sync(folder.parent)


def move_folder(source: Path, destination: Path, disk: Disk = DISK) -> bool:
    """Rename a folder in one step; False, nothing changed, where `destination` holds something already."""
    try:
        disk.rename(source, destination)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def remove_tree(path: Path, disk: Disk = DISK) -> None:
    """Remove a file, a link (never what it points to) or a folder with all below it."""
    if path.is_dir() and not path.is_symlink():
        for entry in path.iterdir():
            remove_tree(entry, disk)
    disk.remove(path)
