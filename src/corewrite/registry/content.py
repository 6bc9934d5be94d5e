"""What an artifact folder holds: its files with their hashes, and what must not be among them."""

import hashlib
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from corewrite.domain import sha256_json
from corewrite.registry.errors import RegistryError
from corewrite.storage.model_files import UnsafeModelError, check_model_file


def manifest(folder: Path) -> dict[str, str]:
    """Hex SHA-256 of every file of `folder` by relative POSIX path, sorted.

    Raises:
        RegistryError: `folder` is no folder, or it or one below is empty, or it holds a link, a special
            file, a name that another program may take for a path, or a file that `check_model_file` refuses;
            or it changes while it is read.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise RegistryError(f"{folder} is missing or is no folder: an artifact is a folder of plain files")
    hashes = {}
    try:
        for path in _files(folder):
            _refuse_unsafe(path)
            with path.open("rb") as file:
                hashes[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise RegistryError(f"{error.filename} is missing, it went away while {folder} was read: try again") from error
    return dict(sorted(hashes.items()))


def size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder; links are not followed, and what went away meanwhile counts nothing."""
    try:
        if path.is_dir() and not path.is_symlink():
            return sum(map(size, path.iterdir()))
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def content_hash(files: Mapping[str, str]) -> str:
    """The hash of an artifact with these `files`: hex SHA-256 of the manifest's canonical JSON."""
    return sha256_json(dict(files))


def difference(wanted: Mapping[str, str], found: Mapping[str, str]) -> str:
    """Names of the files in which two manifests differ; empty where they are equal."""
    parts = {
        "changed": [name for name in wanted if name in found and wanted[name] != found[name]],
        "missing": [name for name in wanted if name not in found],
        "unexpected": [name for name in found if name not in wanted],
    }
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in parts.items() if names)


def _files(folder: Path) -> Iterator[Path]:
    entries = sorted(folder.iterdir())
    if not entries:
        raise RegistryError(f"{folder} is empty, and a hash over files cannot see it: write a file into it or leave it away")
    for path in entries:
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            yield from _files(path)
        elif not stat.S_ISREG(mode):
            what = "a symbolic link" if stat.S_ISLNK(mode) else "a special file"
            raise RegistryError(f"{path} is {what}: an artifact holds plain files only, copy the content instead")
        else:
            yield path


def _refuse_unsafe(path: Path) -> None:
    if not path.name.isprintable() or "\\" in path.name:
        raise RegistryError(f"{str(path)!r} is a name that another program may read as a path: use plain letters and digits")
    try:
        check_model_file(path)
    except UnsafeModelError as error:
        raise RegistryError(str(error)) from error
