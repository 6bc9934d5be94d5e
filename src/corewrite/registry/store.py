"""The registry: save artifacts, decide which triple is in production, and keep why."""

import json
import os
import re
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Literal

from corewrite.registry import ledger
from corewrite.registry.content import content_hash, manifest
from corewrite.registry.errors import RegistryError
from corewrite.registry.garbage import GRACE, KEEP, collect_garbage, find_garbage
from corewrite.registry.lookups import (
    champion_version,
    expect_champion,
    find_known,
    find_registered,
    require_hash,
    require_kind,
)
from corewrite.registry.records import JSON, Artifact, Candidate, Champion, Decision, Finding, Garbage, Kind
from corewrite.registry.shelves import Shelves, compare_content
from corewrite.registry.staging import staged
from corewrite.storage.durable import DISK, Disk, move_folder, naming, sync_tree

_PREFIX = re.compile(r"[0-9a-f]{6,64}")


class Registry:
    """Artifacts and decisions under one folder of a local disk; safe to use from several processes at once.

    `artifacts/<kind>/<hash>/` holds the content, `<hash>.metadata.json` beside it a readable copy of its row,
    `registry.sqlite3` the rows and decisions. `staging/` holds what is being saved or removed; what a killed
    process leaves there is never read, and `gc` removes it. A folder on a shelf is whole or not there: it
    comes and goes by one rename, made while the database is locked.

    Attributes:
        root: The folder.
    """

    def __init__(self, root: Path, disk: Disk = DISK) -> None:
        """Open the registry at `root`, making an empty one where there is none.

        Args:
            root: The folder.
            disk: What changes it.

        Raises:
            RegistryError: the database is unreadable, of a newer format, or gone while artifacts are there;
                or a folder of the registry is a link.
        """
        self.root = root.absolute()
        self._disk = disk
        self._ledger = ledger.Ledger(self.root / "registry.sqlite3")
        self._shelves = Shelves(self.root, disk)
        # In this order: another process that stores an artifact just now has made the tables before it.
        occupied = self._shelves.occupied
        found = self._ledger.format
        if found == 0 and occupied:
            raise RegistryError(f"{self.root} holds artifacts but {self._ledger.path.name} is gone or empty: restore it")
        if found < ledger.FORMAT:
            self._ledger.upgrade()

    def save(self, kind: Kind, write: Callable[[Path], None], metadata: Mapping[str, JSON]) -> Artifact:
        """Store what `write` writes, durably and all or nothing.

        Content that is stored already is not stored twice: the artifact keeps the metadata of the first time.

        Args:
            kind: What it is.
            write: Called once with an empty folder to fill with plain files.
            metadata: Metrics, times, provenance (`Provenance.as_dict()`); not part of the hash.

        Raises:
            RegistryError: the content is empty or holds links, special files, pickles or code; the metadata
                is not JSON; or the same content is stored already and was damaged since.
        """
        require_kind(kind)
        plain = json.loads(ledger.to_json(metadata, "metadata"))  # refused before the long work of `write`
        with naming(self.root), staged(self._shelves.staging, self._disk) as temporary:
            content, note = temporary / "content", temporary / "metadata.json"
            self._disk.make(content)
            write(content)
            files = manifest(content)
            new = Artifact(kind, content_hash(files), files, plain, ledger.utc_now())
            sync_tree(content, self._disk)
            destination = self._shelves.folder(kind, new.hash)
            self._refuse_damaged(new)
            with self._ledger.write() as connection:
                known = ledger.find_artifact(connection, kind, new.hash)
                artifact = new if known is None else replace(known, collected=None)
                if known is None or known.collected is not None:
                    # What stands there now, a killed process left; it was not looked at, so it makes room.
                    self._shelves.move_away([destination], temporary)
                    note.write_text(ledger.to_json(vars(artifact), "metadata"), "utf-8")
                    self._disk.sync(note)
                    self._disk.rename(note, self._shelves.note(kind, new.hash))
                move_folder(content, destination, self._disk)  # or leave it: what stands there has the same hash
                self._disk.sync(destination.parent)
                ledger.put_artifact(connection, artifact)
        return artifact

    def artifact(self, kind: Kind, hash: str) -> Artifact:
        """What is known of an artifact.

        Raises:
            RegistryError: there is none of this kind and hash, or the garbage collection removed it.
        """
        with self._ledger.read() as connection:
            return find_registered(connection, kind, hash)

    def artifacts(self, *, collected: bool = False) -> list[Artifact]:
        """Every artifact, oldest first; with `collected` also those whose content the garbage collection removed."""
        with self._ledger.read() as connection:
            return [a for a in ledger.all_artifacts(connection) if collected or a.collected is None]

    def find(self, prefix: str, kind: Kind | None = None) -> Artifact:
        """The one artifact, collected ones among them, whose hash starts so.

        Args:
            prefix: At least 6 lower-case hexadecimal digits.
            kind: Look only among these.

        Raises:
            RegistryError: the prefix is no such text, or of no artifact or several.
        """
        if kind is not None:
            require_kind(kind)
        if not _PREFIX.fullmatch(prefix):
            raise RegistryError(f"{prefix!r} is no hash: give at least 6 of its lower-case hexadecimal digits")
        every = [a for a in self.artifacts(collected=True) if kind in (None, a.kind)]
        found = [a for a in every if a.hash.startswith(prefix)]
        if len(found) != 1:
            what = "no artifact" if not found else f"{len(found)} ({', '.join(f'{a.kind} {a.hash[:12]}' for a in found)})"
            raise RegistryError(f"{prefix!r} is the start of {what}: give a hash of one {kind or 'artifact'}, or more digits")
        return found[0]

    def path(self, artifact: Artifact) -> Path:
        """The folder with the artifact's content, to be read only.

        Raises:
            RegistryError: it is missing.
        """
        require_hash(artifact.kind, artifact.hash)
        return self._shelves.open_content(artifact)

    def verify(self, kind: Kind, hash: str) -> None:
        """Hash an artifact's content again.

        Raises:
            RegistryError: it is unknown, missing or differs; the message names the files.
        """
        artifact = self.artifact(kind, hash)
        compare_content(artifact, self.path(artifact))

    def verify_all(self) -> list[Finding]:
        """Hash all artifacts again and look for entries on disk that are none; no finding: all is well."""
        findings = []
        artifacts = self.artifacts()
        for artifact in artifacts:
            try:
                compare_content(artifact, self.path(artifact))
            except RegistryError as error:
                if self._live(artifact):  # else it was collected meanwhile
                    findings.append(Finding(artifact.kind, artifact.hash, str(error)))
        with self._ledger.read() as connection:
            findings += [
                Finding(kind, path.name, f"{path} is not registered, its save or removal was cut off: save it again or run gc")
                for kind, path in self._shelves.strays(connection)
            ]
        return findings

    def champion(self) -> Champion | None:
        """What is in production; None before the first promote."""
        with self._ledger.read() as connection:
            return ledger.current(connection)

    def decisions(self) -> list[Decision]:
        """The whole log, oldest first."""
        with self._ledger.read() as connection:
            return ledger.all_decisions(connection)

    def promote(self, candidate: Candidate, *, expected: int | None, reason: str, evidence: JSON) -> Decision:
        """Make `candidate` the champion.

        Args:
            candidate: Three saved artifacts.
            expected: Version of the champion the caller compared with; None if there was none.
            reason: Why, in words.
            evidence: Why, in numbers.

        Raises:
            ConflictError: the champion is another by now.
            RegistryError: an artifact is unknown, missing, damaged, quarantined or removed by the garbage
                collection; or the candidate is the champion already.
        """
        for kind, hash in candidate.hashes.items():
            self.verify(kind, hash)
        with self._ledger.write() as connection:
            champion = expect_champion(connection, expected)
            if champion is not None and champion.hashes == candidate.hashes:
                raise RegistryError(f"this candidate is the champion already (version {champion.version}): nothing to promote")
            for kind, hash in candidate.hashes.items():
                find_registered(connection, kind, hash)  # again: it may have been collected while it was hashed
                quarantine = ledger.load_quarantine(connection, kind, hash)
                if quarantine is not None:
                    raise RegistryError(f"{kind} {hash} is quarantined ({quarantine}): propose another")
            return ledger.append(
                connection,
                "promote",
                candidate.hashes,
                reason=reason,
                evidence=evidence,
                previous=expected,
                fallback=expected,
            )

    def rollback(self, *, expected: int, reason: str, to: int | None = None) -> Decision:
        """Put the champion before this one back, at once: content is not hashed again.

        An earlier champion with an artifact that is quarantined, collected or missing is passed over, and so
        is the same triple. Rolling back again goes back further; the log keeps everything.

        Args:
            expected: Version of the champion to leave.
            reason: Why, in words.
            to: Champions after this version are passed over too; None: the nearest will do.

        Raises:
            ConflictError: the champion is another by now.
            RegistryError: there is no champion, or no usable one before it.
        """
        with self._ledger.write() as connection:
            champion = expect_champion(connection, expected)
            if champion is None:
                raise RegistryError("there is no champion to roll back: promote a candidate first")
            for earlier in ledger.champions(connection):
                usable = all(self._usable(connection, kind, hash) for kind, hash in earlier.hashes.items())
                wanted = to is None or earlier.version <= to
                if usable and wanted and earlier.hashes != champion.hashes:
                    return ledger.append(
                        connection,
                        "rollback",
                        earlier.hashes,
                        reason=reason,
                        evidence={"from": expected, "to": earlier.version},
                        previous=expected,
                        fallback=earlier.fallback,
                    )
            raise RegistryError(f"no usable champion stands before version {expected}: promote another candidate")

    def record(self, verdict: Literal["hold", "reject"], candidate: Candidate, reason: str, evidence: JSON) -> Decision:
        """Note that `candidate` did not become the champion.

        Raises:
            RegistryError: the verdict is another, or an artifact is unknown or collected.
        """
        if verdict not in ("hold", "reject"):
            raise RegistryError(f"verdict {verdict!r} cannot be recorded, only 'hold' and 'reject': use the method for it")
        with self._ledger.write() as connection:
            for kind, hash in candidate.hashes.items():
                find_registered(connection, kind, hash)
            return ledger.append(
                connection,
                verdict,
                candidate.hashes,
                reason=reason,
                evidence=evidence,
                previous=champion_version(ledger.current(connection)),
            )

    def quarantine(self, kind: Kind, hash: str, reason: str, evidence: JSON = None) -> Decision:
        """Bar an artifact from ever being promoted or rolled back to; a collected one too, since a save brings it back.

        Raises:
            RegistryError: it is unknown, or part of the champion.
        """
        with self._ledger.write() as connection:
            find_known(connection, kind, hash)
            champion = ledger.current(connection)
            if champion is not None and champion.hashes[kind] == hash:
                raise RegistryError(f"{kind} {hash} is part of the champion: roll back or promote another first")
            return ledger.append(
                connection,
                "quarantine",
                {kind: hash},
                reason=reason,
                evidence=evidence,
                previous=champion_version(champion),
            )

    def garbage(self, *, keep: int = KEEP, grace: timedelta = GRACE) -> list[Garbage]:
        """What `gc` would remove now, with the same arguments."""
        with self._ledger.read() as connection:
            return find_garbage(connection, self._shelves, keep, grace)

    def gc(self, *, keep: int = KEEP, grace: timedelta = GRACE) -> list[Garbage]:
        """Remove content that nothing needs, and what killed processes left.

        Kept are the last `keep` champions, the champions that `keep - 1` rollbacks in a row would restore, a
        candidate on hold against the present champion, and what was saved within `grace`. Rows, their
        metadata and all decisions stay for ever. The rows are marked first, in a transaction of their own:
        from then on no decision can build on them, and a kill anywhere leaves what the next call finishes.
        Saving the same content again brings it back, at any moment.

        Args:
            keep: Champions to keep, the present one among them.
            grace: Age at which an artifact that no decision needs may go; the time a cycle takes from saving
                a candidate to deciding on it must be shorter.

        Returns:
            What was removed.

        Raises:
            RegistryError: `keep` is below 2.
        """
        return collect_garbage(self._ledger, self._shelves, self._disk, keep, grace)

    def _refuse_damaged(self, artifact: Artifact) -> None:
        """Raise if content of the same hash is stored, and was damaged."""
        folder = self._shelves.folder(artifact.kind, artifact.hash)
        try:
            if os.path.lexists(folder):
                compare_content(artifact, folder)
        except RegistryError:
            if self._live(artifact):
                raise

    def _live(self, artifact: Artifact) -> bool:
        with self._ledger.read() as connection:
            known = ledger.find_artifact(connection, artifact.kind, artifact.hash)
        return known is not None and known.collected is None

    def _usable(self, connection: sqlite3.Connection, kind: Kind, hash: str) -> bool:
        """Whether a rollback may put an artifact back: there, not collected, not quarantined."""
        collected = find_known(connection, kind, hash).collected is not None
        there = self._shelves.holds(kind, hash)
        return there and not collected and ledger.load_quarantine(connection, kind, hash) is None
