"""Everything that a long command reads, and the room for what it writes, looked at before it begins.

A file that is missing, a model folder that is none, or a disk that is too small shows here within a second, and not after the
minutes of work that come before it is needed. All problems are reported together.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from corewrite.domain.extras import MissingExtraError, require_extras
from corewrite.fusion import load_spec
from corewrite.logs.files import log_lines
from corewrite.logs.sealing import Sealer, load_keys
from corewrite.search.documents import check_columns, check_documents, parquet_files

LABELS = ("query", "document_id", "grade")
"""Columns of rated results."""
REWRITES = ("query", "rewrite")
"""Columns of queries with their rewrites."""
DECODER_BYTES = 8 * 2**20
"""Weights of the small decoder that is trained from scratch where no model is named, at the least."""
POLICIES = 7
"""How often a training writes the weights of its model at the least: what it starts from, its candidate, and a checkpoint of
weights and two moments of the optimizer, most of it a second time while the next one is written."""


class InputError(ValueError):
    """Inputs that cannot be used."""


def check_inputs(
    *,
    documents: Path | None = None,
    labels: Path | None = None,
    pairs: Path | None = None,
    logs: Sequence[Path] = (),
    spec: Path | None = None,
    keys: Path | None = None,
    public_key: Path | None = None,
    model: str | None = None,
    writes: Sequence[Path] = (),
    room: int = 0,
    extras: Sequence[str] = (),
) -> None:
    """Check what a command is going to need; None, or nothing, is not looked at.

    Of Parquet files the columns are read, of logs the first line, of a model its configuration and not its weights.

    Args:
        documents: Parquet file or folder, see `read_catalogue`.
        labels: Parquet of rated results.
        pairs: Parquet of queries with their rewrites.
        logs: Log files.
        spec: Fusion spec.
        keys: Folder of private keys.
        public_key: What texts are sealed to.
        model: Path or name of a causal LM.
        writes: Folders that are written to, there or not.
        room: Bytes that the first of them must have room for.
        extras: Extras of the distribution whose packages are needed, see `EXTRAS`.

    Raises:
        InputError: one cannot be used; the message names every one in a line of its own, and why.
    """
    problems: list[str] = []

    def look(what: str, check: Callable[[], object]) -> None:
        try:
            check()
        except (ValueError, OSError, MissingExtraError) as error:
            problems.append(f"{what}: {error}")

    look("packages", lambda: require_extras(*extras))
    if documents is not None:
        look("documents", lambda: check_documents(documents))
    if labels is not None:
        look("labels", lambda: check_columns(labels, LABELS))
    if pairs is not None:
        look("pairs", lambda: check_columns(pairs, REWRITES))
    for file in logs:
        look("log", lambda file=file: next(log_lines(file), None))  # type: ignore[misc]
    if spec is not None:
        look("fusion spec", lambda: load_spec(spec))
    if keys is not None:
        look("keys", lambda: load_keys(keys))
    if public_key is not None:
        look("public key", lambda: Sealer(public_key))
    if model is not None:
        from corewrite.rewriter.artifact import check_model  # heavy, and nothing to a server

        look("model", lambda: check_model(model))
    for folder in writes:
        look("folder", lambda folder=folder: _check_writable(folder))  # type: ignore[misc]
    if writes and room:
        look("room", lambda: _check_room(writes[0], room))
    if problems:
        raise InputError("\n".join(dict.fromkeys(problems)))


def training_room(documents: Path, logs: Sequence[Path], model: str | None, *, converted: bool) -> int:
    """Bytes that a training writes at the least: the log's searches and what was mined of them, its documents once more (where
    they are converted, uncompressed), and its model's weights `POLICIES` times. What cannot be read counts as nothing.

    Args:
        documents: Parquet file or folder.
        logs: Log files that are mined.
        model: Path or name of a causal LM; None: a small decoder.
        converted: Whether documents stay on disk, see `open_documents`.
    """
    try:
        files = parquet_files(documents)
    except ValueError:
        files = []
    of_documents = sum(f.stat().st_size for f in files) * (2 if converted else 1)
    of_logs = sum(f.stat().st_size for f in logs if f.is_file()) // 4
    weights = DECODER_BYTES if model is None else sum(f.stat().st_size for f in Path(model).glob("*.safetensors"))
    return of_documents + of_logs + POLICIES * weights


def _check_writable(folder: Path) -> None:
    there = _nearest(folder)
    if not there.is_dir():
        raise NotADirectoryError(f"{folder}: {there} is a file: name another folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder}: {there} may not be written to: change its rights, or name another folder")


def _check_room(folder: Path, room: int) -> None:
    there = _nearest(folder)
    free = shutil.disk_usage(there).free
    if free < room:
        raise OSError(
            f"{folder}: at least some {_size(room)} are written here, and {_size(free)} are free: free some space, or name "
            "another folder"
        )


def _nearest(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
