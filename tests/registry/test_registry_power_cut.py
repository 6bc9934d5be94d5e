"""A power cut at any moment: what was not synced may be lost, each part of it on its own."""

import itertools
import json
import os
import shutil
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from corewrite.registry import KINDS, Candidate, Registry
from corewrite.registry.content import content_hash, manifest
from corewrite.storage.durable import Disk

Entries = dict[str, int]
Tree = dict[str, "Tree | bytes"]


class RecordingDisk(Disk):
    """A disk that knows what is surely on it, and copies that before and after every operation.

    Surely there is: of a file, its bytes at the last sync; of a folder, its entries at the last sync. Both are
    kept by inode, so that a rename carries them along. The SQLite file is there as it stands.

    With `forgets` = k the k-th sync is left out.
    """

    def __init__(self, root: Path, cuts: Path, forgets: int | None = None) -> None:
        self.root, self.cuts, self.forgets = root, cuts, forgets
        self.open: dict[int, int] = {}  # a descriptor of every inode seen, so that no number is used twice
        self.bytes: dict[int, bytes] = {}
        self.entries: dict[int, Entries] = {}
        self.syncs: list[str] = []
        self.states: dict[tuple[object, ...], tuple[Path, str]] = {}
        self.stage = "start"
        self.top = self.inode(root)
        self.entries[self.top] = {}

    def close(self) -> None:
        for descriptor in self.open.values():
            os.close(descriptor)

    def inode(self, path: str | Path, folder: int | None = None) -> int:
        """The inode of a path, below a folder's descriptor where one is given."""
        number = os.stat(path, dir_fd=folder, follow_symlinks=False).st_ino
        if number not in self.open:
            self.open[number] = os.open(path, os.O_RDONLY, dir_fd=folder)
        return number

    def listing(self, folder: int) -> Entries:
        """The entries now of a folder given by its inode; none where it was removed."""
        descriptor = self.open[folder]
        names = sorted(os.listdir(descriptor))  # noqa: PTH208 (a path takes no descriptor)
        return {name: self.inode(name, descriptor) for name in names if not name.startswith("registry.sqlite3")}

    def sync(self, path: Path) -> None:
        self.cut()
        self.syncs.append(f"{self.stage}: {path.name}")
        if len(self.syncs) - 1 != self.forgets:
            if path.is_dir():
                self.entries[self.inode(path)] = self.listing(self.inode(path))
            else:
                self.bytes[self.inode(path)] = path.read_bytes()
        self.cut()

    def make(self, folder: Path) -> None:
        super().make(folder)
        self.cut()

    def rename(self, source: Path, target: Path) -> None:
        self.cut()
        super().rename(source, target)
        self.cut()

    def remove(self, path: Path) -> None:
        self.cut()
        super().remove(path)
        self.cut()

    def cut(self) -> None:
        """Every disk that may be found when the power goes now, in a folder of its own; equal ones once.

        The kernel may have written more than it was asked to: contents, entries of the shelves, or entries of
        the other folders.
        """
        for data, shelves, others in itertools.product((False, True), repeat=3):
            tree = self.found(self.top, "", "", data, shelves, others)
            database = self.root / "registry" / "registry.sqlite3"
            rows = database.read_bytes() if database.exists() else b""
            key = (self.stage, repr(tree), rows)
            if key not in self.states:
                folder = self.cuts / str(len(self.states))
                self.states[key] = (folder, self.stage)
                put(tree, folder)
                if rows and (folder / "registry").is_dir():
                    (folder / "registry" / database.name).write_bytes(rows)

    def found(self, number: int, parent: str, name: str, data: bool, shelves: bool, others: bool) -> "Tree | bytes":
        descriptor = self.open[number]
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            return os.pread(descriptor, 1 << 20, 0) if data else self.bytes.get(number, b"")
        live = shelves if parent == "artifacts" else others
        entries = self.listing(number) if live else self.entries.get(number, {})
        return {below: self.found(inode, name, below, data, shelves, others) for below, inode in entries.items()}


def put(found: "Tree | bytes", path: Path) -> None:
    if isinstance(found, bytes):
        path.write_bytes(found)
        return
    path.mkdir(parents=True)
    for name, below in found.items():
        put(below, path / name)


def save(registry: Registry, kind: str, text: str) -> str:
    def write(folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "sub" / "a.txt").write_text(text)

    return registry.save(kind, write, {"text": text}).hash  # type: ignore[arg-type]


def work(disk: RecordingDisk) -> dict[str, list[Candidate | None]]:
    """Everything that writes; the champions that a cut may show, by stage."""
    allowed: dict[str, list[Candidate | None]] = {"open": [None]}
    disk.stage = "open"
    registry = Registry(disk.root / "registry", disk)
    now: Candidate | None = None

    def stage(name: str, *champions: Candidate | None) -> None:
        disk.stage = name
        allowed[name] = list(champions)
        disk.cut()

    stage("shared", now)
    shared = [save(registry, kind, kind) for kind in KINDS[1:]]
    first = None
    for text in "abc":
        stage(f"save {text}", now)
        new = Candidate(save(registry, "policy", text), *shared)
        first = first or new
        stage(f"promote {text}", now)
        version = registry.champion()
        registry.promote(new, expected=version.version if version else None, reason="r", evidence=None)
        now, before = new, now
        stage(f"promoted {text}", now)
    stage("gc", now)
    assert {g.name for g in registry.gc(keep=2, grace=timedelta(0))} == {first.policy} if first else False
    stage("collected", now)
    save(registry, "policy", "a")
    stage("revived", now)
    registry.rollback(expected=3, reason="r")
    stage("rolled back", before)
    registry.gc(keep=2, grace=timedelta(0))
    stage("end", before)
    return allowed


def check(root: Path, stage: str, allowed: dict[str, list[Candidate | None]]) -> None:
    """What must hold of a disk after a power cut."""
    root = root / "registry"
    for folder in root.glob("artifacts/*/*/"):
        assert content_hash(manifest(folder)) == folder.name, "a partial artifact"
    registry = Registry(root)
    champion = registry.champion()
    assert (None if champion is None else Candidate(**champion.hashes)) in allowed[stage]
    for artifact in registry.artifacts():
        registry.verify(artifact.kind, artifact.hash)
        note = root / "artifacts" / artifact.kind / f"{artifact.hash}.metadata.json"
        assert json.loads(note.read_bytes())["metadata"] == artifact.metadata
    registry.gc(grace=timedelta(days=1))
    assert registry.verify_all() == []


@pytest.fixture
def fast(tmp_path: Path) -> Iterator[Path]:
    memory = Path("/dev/shm")
    root = memory / f"corewrite-cut-{os.getpid()}" if memory.is_dir() else tmp_path
    root.mkdir(exist_ok=True)
    yield root
    shutil.rmtree(root)


def run(fast: Path, forgets: int | None = None) -> tuple[RecordingDisk, dict[str, list[Candidate | None]]]:
    live = fast / "live"
    live.mkdir()
    disk = RecordingDisk(live, fast / "cuts", forgets)
    try:
        return disk, work(disk)
    finally:
        disk.close()


def test_after_a_power_cut_at_any_moment_the_registry_is_whole(fast: Path) -> None:
    disk, allowed = run(fast)
    assert len(disk.states) > 80
    for folder, stage in disk.states.values():
        check(folder, stage, allowed)


def test_every_sync_is_needed(fast: Path) -> None:
    """Without any one of them some power cut leaves a registry that is not whole: the test above can fail."""
    disk, _ = run(fast)
    syncs, harmless = disk.syncs, []
    tried = [i for i, what in enumerate(syncs) if what.split(": ")[0] in ("open", "save a", "gc", "collected")]
    for forgotten in tried:
        shutil.rmtree(fast / "live")
        shutil.rmtree(fast / "cuts")
        disk, allowed = run(fast, forgotten)
        try:
            for folder, stage in disk.states.values():
                check(folder, stage, allowed)
        except (AssertionError, ValueError, OSError):
            continue
        harmless.append(syncs[forgotten])
    # One for each folder in it, of which the last would do.
    assert harmless == ["open: registry", "open: artifacts", "open: artifacts"]
    assert len(tried) > 15
