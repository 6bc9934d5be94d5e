"""Where content lies: a shelf of folders for each kind of artifact, and the staging area of what is being saved or removed."""

import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from corewrite.registry import ledger
from corewrite.registry.content import content_hash, difference, manifest
from corewrite.registry.errors import RegistryError
from corewrite.registry.records import KINDS, Artifact, Kind
from corewrite.storage.durable import Disk, make_folder


class Shelves:
    """Folders of artifacts under the root of a registry; content comes and goes by one rename each.

    Attributes:
        root: Folder of the registry.
    """

    def __init__(self, root: Path, disk: Disk) -> None:
        """Make the folders that are missing.

        Raises:
            RegistryError: one of them is a link.
        """
        self.root, self._disk = root, disk
        for folder in (self.staging, *map(self.shelf, KINDS)):
            make_folder(folder, disk)
            if link := next((f for f in (folder, folder.parent) if f != root and f.is_symlink()), None):
                raise RegistryError(f"{link} is a symbolic link: link the whole registry if it must lie elsewhere")

    @property
    def staging(self) -> Path:
        """Folder of work in progress."""
        return self.root / "staging"

    @property
    def occupied(self) -> bool:
        """Whether anything lies on a shelf."""
        return any(any(self.shelf(kind).iterdir()) for kind in KINDS)

    def shelf(self, kind: Kind) -> Path:
        """Folder of the artifacts of a kind."""
        return self.root / "artifacts" / kind

    def folder(self, kind: Kind, hash: str) -> Path:
        """Folder of an artifact's content."""
        return self.shelf(kind) / hash

    def note(self, kind: Kind, hash: str) -> Path:
        """File with a readable copy of an artifact's row."""
        return self.shelf(kind) / f"{hash}.metadata.json"

    def holds(self, kind: Kind, hash: str) -> bool:
        """Whether an artifact's content is there."""
        folder = self.folder(kind, hash)
        return folder.is_dir() and not folder.is_symlink()

    def open_content(self, artifact: Artifact) -> Path:
        """Folder of an artifact's content, to be read only.

        Raises:
            RegistryError: it is missing.
        """
        folder = self.folder(artifact.kind, artifact.hash)
        if not self.holds(artifact.kind, artifact.hash):
            raise RegistryError(f"{folder} is missing or a link: restore it, or save the same content again")
        return folder

    def strays(self, connection: sqlite3.Connection) -> list[tuple[Kind, Path]]:
        """What lies on the shelves without a row, or with a marked one."""
        live = [a for a in ledger.all_artifacts(connection) if a.collected is None]
        known = {path for a in live for path in (self.folder(a.kind, a.hash), self.note(a.kind, a.hash))}
        return [(kind, path) for kind in KINDS for path in sorted(self.shelf(kind).iterdir()) if path not in known]

    def move_away(self, paths: Iterable[Path], trash: Path) -> None:
        """Move entries of shelves, those that exist, to where they are removed; from here on each is gone as a whole."""
        there = [path for path in paths if os.path.lexists(path)]
        for path in there:
            self._disk.rename(path, trash / f"{path.parent.name}-{path.name}")
        for shelf in dict.fromkeys(path.parent for path in there):
            self._disk.sync(shelf)


def compare_content(artifact: Artifact, folder: Path) -> None:
    """Hash a folder and compare it with the row of its artifact.

    Raises:
        RegistryError: they differ; the message names the files.
    """
    found = manifest(folder)
    if content_hash(found) != artifact.hash:
        raise RegistryError(
            f"{artifact.kind} {artifact.hash} is damaged, {difference(artifact.files, found)}: "
            f"move {folder} away and save the same content again"
        )
    if found != artifact.files:
        raise RegistryError(
            f"{artifact.kind} {artifact.hash}: its row in the database names other files, "
            f"{difference(artifact.files, found)}: restore the database"
        )
