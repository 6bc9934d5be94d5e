"""Documents on disk: found by id and read by row, without a table of them in memory."""

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from filelock import FileLock

from corewrite.domain import Catalogue, ColumnValues, Documents, sha256_json
from corewrite.domain.documents import RepeatedIds, checked_rows, column_error, known_rows
from corewrite.relevance.embedded import check_embedded
from corewrite.search.column_file import ColumnFile
from corewrite.search.document_columns import ColumnType, Kind, Layout
from corewrite.search.documents import DocumentsError, build_catalogue, kept_batches, parquet_files, read_layout
from corewrite.search.id_index import IdIndex, hash_ids, sorted_hashes
from corewrite.storage.durable import PARTIAL, make_folder, move_folder, naming, sync, sync_tree, whole_file

IntArray = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]

_FORMAT = 1
_ABOUT, _SOURCE, _TABLE, _HASHES, _ROWS = "about.json", "source.json", "documents.arrow", "id-hashes.npy", "id-rows.npy"
_BATCH_BYTES = 64 * 2**20
"""Documents kept together in the Arrow file: what the conversion holds in memory, about three times over."""
_READ = 4_096
"""Values read at once."""
_FOLDER = re.compile(rf"({re.escape(PARTIAL)})?[0-9a-f]{{16}}")
_RACY_NS = 2 * 10**9
"""A file changed this shortly before it was looked at may have changed once more since, within the clock's tick."""


class DocumentStore:
    """The documents of Parquet files, on disk (`Documents`).

    Opened first, the files are converted to one Arrow IPC file with an index of the ids, in a folder beside them or where
    `cache` says. It goes by content: files that were only copied or touched are not converted again, others are. The
    conversion takes the disk of the columns uncompressed, and in memory 24 bytes a document beside some hundred MiB; opening
    what is converted takes none to speak of.
    """

    def __init__(self, folder: Path) -> None:
        """Open a converted folder; `open` finds it.

        Raises:
            ValueError: it is not whole, or of another format.
            OSError: a file is missing.
        """
        about = json.loads((folder / _ABOUT).read_text("utf-8"))
        if about["format"] != _FORMAT:
            raise ValueError(f"{folder} has format {about['format']}, not {_FORMAT}")
        for name, size in about["sizes"].items():
            if (found := (folder / name).stat().st_size) != size:
                raise ValueError(f"{folder / name} has {found} bytes instead of {size}")
        self._folder = folder
        self._layout = Layout({c["name"]: ColumnType(Kind(c["kind"]), c["width"]) for c in about["columns"]}, about["left_out"])
        self._file = ColumnFile(folder / _TABLE, tuple(self._layout.types.values()))
        self._place = {name: i for i, name in enumerate(self._layout.types)}
        hashes, rows = (np.load(folder / name, mmap_mode="r") for name in (_HASHES, _ROWS))
        self._index = IdIndex(hashes, rows, self.load_ids)

    @classmethod
    def open(cls, path: Path, *, cache: Path | None = None, progress: Progress = lambda done, total: None) -> "DocumentStore":
        """Open the documents of a Parquet file, or of a folder of them in the order of their names.

        Args:
            path: See `read_catalogue` for the columns.
            cache: Where they are converted to, of these documents alone; None: beside them, `.NAME.store`.
            progress: Called with (documents converted, of how many).

        Raises:
            DocumentsError: a file cannot be read or holds unusable documents.
            OSError: the cache cannot be written.
        """
        files = parquet_files(path)
        cache = cache or path.absolute().with_name(f".{path.absolute().name}.store")
        known = _known(cache)
        entries = _identified(files, known)
        folder = cache / _key(entries)
        store = _opened(folder)
        if store is None:
            make_folder(cache)
            with FileLock(cache / ".lock"):
                store = _opened(folder)  # by who held the lock before
                if store is None:
                    _convert_whole(path, files, entries, folder, progress)
                    store = cls(folder)
                _write_source(cache, entries)
                _remove_others(cache, folder)
        elif entries != known:
            with suppress(OSError):  # it only spares reading the files the next time; the cache may be read-only
                _write_source(cache, entries)
        return store

    @property
    def column_names(self) -> tuple[str, ...]:
        """See `Documents.column_names`."""
        return tuple(self._layout.types)

    def __len__(self) -> int:
        return len(self._file)

    def __reduce__(self) -> tuple[type["DocumentStore"], tuple[Path]]:
        return DocumentStore, (self._folder,)

    def id_at(self, row: int) -> str:
        """See `Documents.id_at`."""
        return self.load_ids(np.array([row], np.int64))[0]

    def load_ids(self, rows: IntArray) -> list[str]:
        """See `Documents.load_ids`."""
        return list(map(str, self.column("id", rows)))

    def rows(self, ids: Sequence[str]) -> IntArray:
        """See `Documents.rows`."""
        return known_rows(self.find(ids), ids)

    def find(self, ids: Sequence[str]) -> IntArray:
        """See `Documents.find`."""
        return self._index.find(ids)

    def column(self, name: str, rows: IntArray) -> ColumnValues:
        """See `Documents.column`."""
        if name not in self._place:
            raise column_error(name, self.column_names, self._layout.left_out.get(name))
        rows = checked_rows(rows, len(self))
        wanted, place = self._layout.types[name], self._place[name]
        order = np.argsort(rows, kind="stable")
        parts = [self._file.read(place, rows[order[i : i + _READ]]) for i in range(0, max(1, len(order)), _READ)]
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        if wanted.kind in (Kind.TEXT, Kind.FRAMES):
            values: list[Any] = [value for part in parts for value in part]
            return [values[i] for i in back.tolist()]
        return np.concatenate([np.asarray(part) for part in parts])[back]

    @cached_property
    def catalogue(self) -> Catalogue:
        """All documents in memory, kept there.

        Raises:
            TooManyDocumentsError: there are more than fit.
        """
        return _in_memory(self)

    def repeated(self) -> RepeatedIds | None:
        """Documents that have the id of an earlier one; none in what `open` gives."""
        return self._index.repeated()

    @property
    def left_out(self) -> dict[str, str]:
        """Columns of the files that `column` refuses, and standard ones that they lack, with the reason."""
        return dict(self._layout.left_out)


def in_memory(documents: Documents) -> Catalogue:
    """The documents as a table in memory, which the bundled models and the embedded engine need.

    Raises:
        TooManyDocumentsError: there are more than this machine's memory holds.
    """
    if isinstance(documents, Catalogue):
        return documents
    return documents.catalogue if isinstance(documents, DocumentStore) else _in_memory(documents)


def _in_memory(documents: Documents) -> Catalogue:
    check_embedded(len(documents))
    every = np.arange(len(documents))
    return build_catalogue(lambda name: documents.column(name, every), documents.column_names, documents.left_out, len(every))


def _opened(folder: Path) -> DocumentStore | None:
    """What was converted; None where it is not there or not whole."""
    try:
        return DocumentStore(folder)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None


def _known(cache: Path) -> list[dict[str, Any]]:
    """What identified the files that were converted last."""
    try:
        files = json.loads((cache / _SOURCE).read_text("utf-8"))["files"]
        return [{k: entry[k] for k in ("path", "size", "mtime_ns", "at_ns", "sha256")} for entry in files]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _identified(files: Sequence[Path], known: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What identifies the files; contents that cannot have changed since `known` was written are not read again."""
    before = {entry["path"]: entry for entry in known}
    found = []
    for file in files:
        stat = file.stat()
        entry = {"path": str(file.absolute()), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        last = before.get(entry["path"])
        if last is not None and entry.items() <= last.items() and last["at_ns"] - last["mtime_ns"] > _RACY_NS:
            found.append(last)
            continue
        at = time.time_ns()
        with file.open("rb") as content:
            found.append(entry | {"at_ns": at, "sha256": hashlib.file_digest(content, "sha256").hexdigest()})
    return found


def _key(entries: Sequence[dict[str, Any]]) -> str:
    return sha256_json([_FORMAT, [entry["sha256"] for entry in entries]])[:16]


def _write_source(cache: Path, entries: Sequence[dict[str, Any]]) -> None:
    with whole_file(cache / _SOURCE) as temporary:
        temporary.write_text(json.dumps({"files": entries}, indent=1) + "\n", "utf-8")


def _remove_others(cache: Path, folder: Path) -> None:
    """Remove what was converted before, or half; processes that have it open keep it."""
    for other in cache.iterdir():
        if other != folder and _FOLDER.fullmatch(other.name):
            shutil.rmtree(other, ignore_errors=True)


def _convert_whole(
    path: Path, files: Sequence[Path], entries: Sequence[dict[str, Any]], folder: Path, progress: Progress
) -> None:
    """Convert the files to `folder`, whole or not at all; what is there is no good."""
    staging = folder.with_name(f"{PARTIAL}{folder.name}")
    for left in (folder, staging):
        shutil.rmtree(left, ignore_errors=True)
    staging.mkdir()
    try:
        with naming(folder):
            _convert(files, staging, progress)
        if (repeated := DocumentStore(staging).repeated()) is not None:
            raise DocumentsError(f"{path}: {repeated}")
        for entry in entries:
            now = Path(entry["path"]).stat()
            if (now.st_size, now.st_mtime_ns) != (entry["size"], entry["mtime_ns"]):
                raise DocumentsError(f"{entry['path']} was changed while it was read: try again")
        sync_tree(staging)
        move_folder(staging, folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _convert(files: Sequence[Path], folder: Path, progress: Progress) -> None:
    layout, documents = read_layout(files)
    hashes, done = [np.empty(0, np.uint64)], 0
    with pa.OSFile(str(folder / _TABLE), "wb") as sink, pa.ipc.new_file(sink, layout.schema) as writer:
        for batch in _large(kept_batches(files, layout)):
            writer.write_batch(batch)
            hashes.append(hash_ids(batch.column("id").to_pylist()))
            done += batch.num_rows
            progress(done, documents)
    for name, values in zip((_HASHES, _ROWS), sorted_hashes(np.concatenate(hashes)), strict=True):
        np.save(folder / name, values)
    about = {
        "format": _FORMAT,
        "documents": done,
        "columns": [{"name": name, "kind": t.kind, "width": t.width} for name, t in layout.types.items()],
        "left_out": dict(layout.left_out),
        "sizes": {name: (folder / name).stat().st_size for name in (_TABLE, _HASHES, _ROWS)},
    }
    (folder / _ABOUT).write_text(json.dumps(about, indent=1) + "\n", "utf-8")


def _large(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same documents in batches of about `_BATCH_BYTES`: many rows are then found in few of them."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        held.append(batch)
        size += batch.nbytes
        if size >= _BATCH_BYTES:
            yield pa.concat_batches(held)
            held, size = [], 0
    if held:
        yield pa.concat_batches(held)
