"""What an artifact folder holds: its files with their hashes, and what must not be among them."""

import hashlib
import json
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from corewrite.domain import CODE, PICKLES, sha256_json
from corewrite.registry.errors import RegistryError


def manifest(folder: Path) -> dict[str, str]:
    """Hex SHA-256 of every file of `folder` by relative POSIX path, sorted.

    Raises:
        RegistryError: `folder` is no folder, or it or one below is empty, or it holds a link, a special
            file, a name that another program may take for a path, code, a model's reference to code, or a
            format that may need unpickling; or it changes while it is read.
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
    if path.suffix.lower() in PICKLES or _looks_pickled(path):
        raise RegistryError(f"{path} may need unpickling, which can run code: store arrays as safetensors")
    if path.suffix.lower() in CODE:
        raise RegistryError(f"{path} is code: artifacts hold data only, use a model class the library has")
    if path.name.lower().endswith("config.json") and (key := _remote_code(path)) is not None:
        raise RegistryError(f"{path} asks for code of its own ({key!r}): remove the key and use a model class the library has")


def _looks_pickled(path: Path) -> bool:
    """Whether it starts as a pickle or as the zip of `torch.save` and `numpy.savez`, whatever its name says."""
    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors file starts with the length of its header, which may by chance read as a pickle's first
    # two bytes; but its header follows at the ninth.
    pickled = start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5") and start[8:9] != b"{"
    return pickled or start.startswith(b"PK\x03\x04")


def _remote_code(path: Path) -> str | None:
    """The key of a model's configuration by which `transformers` would load code, None where there is none."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise RegistryError(f"{path} is not JSON: {error}: a model's configuration must be readable to be checked") from error
    return _code_key(found)


def _code_key(value: Any) -> str | None:
    if isinstance(value, dict):
        named = next((key for key in ("auto_map", "custom_pipelines") if value.get(key)), None)
        return named or next(filter(None, map(_code_key, value.values())), None)
    if isinstance(value, list):
        return next(filter(None, map(_code_key, value)), None)
    return None
