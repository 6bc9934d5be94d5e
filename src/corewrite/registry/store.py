"""The registry: save artifacts, decide which triple is in production, and keep why."""

import json
import re
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from corewrite.registry import ledger
from corewrite.registry.content import content_hash, difference, manifest
from corewrite.registry.durable import make_folder, move_folder, sync, sync_tree
from corewrite.registry.errors import ConflictError, RegistryError
from corewrite.registry.records import JSON, KINDS, Artifact, Candidate, Champion, Decision, Finding, Kind

_HASH = re.compile(r"[0-9a-f]{64}")


class Registry:
    """Artifacts and decisions under one folder of a local disk; safe to use from several processes at once.

    `artifacts/<kind>/<hash>/` holds the content, `<hash>.metadata.json` beside it a readable copy of its row,
    `registry.sqlite3` the rows and decisions. `staging/` holds what is being saved; what a killed process
    leaves there is never read.

    Attributes:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        """Open the registry at `root`, making an empty one where there is none.

        Raises:
            RegistryError: the database is unreadable, of a newer format, or gone while artifacts are there.
        """
        self.root = root.absolute()
        self._ledger = ledger.Ledger(self.root / "registry.sqlite3")
        for folder in (self._staging, *map(self._shelf, KINDS)):
            make_folder(folder)
        # In this order: another process that stores an artifact just now has made the tables before it.
        occupied = any(any(self._shelf(kind).iterdir()) for kind in KINDS)
        if not self._ledger.exists:
            if occupied:
                raise RegistryError(f"{self.root} holds artifacts but {self._ledger.path.name} is gone or empty: restore it")
            self._ledger.create()

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
        _known_kind(kind)
        plain = json.loads(ledger.to_json(metadata, "metadata"))  # refused before the long work of `write`
        with TemporaryDirectory(dir=self._staging) as temporary:
            content, note = Path(temporary) / "content", Path(temporary) / "metadata.json"
            content.mkdir()
            write(content)
            files = manifest(content)
            artifact = Artifact(kind, content_hash(files), files, plain, ledger.utc_now())
            note.write_text(ledger.to_json(vars(artifact), "metadata"), "utf-8")
            sync_tree(Path(temporary))
            destination = self._folder(kind, artifact.hash)
            if destination.exists():
                _compare(artifact, destination)
            with self._ledger.write() as connection:
                known = ledger.find_artifact(connection, kind, artifact.hash)
                move_folder(content, destination)  # or leave it: what stands there has the same hash
                if known is None:
                    note.replace(destination.with_name(f"{artifact.hash}.metadata.json"))
                sync(destination.parent)
                if known is None:
                    ledger.add_artifact(connection, artifact)
        return known or artifact

    def artifact(self, kind: Kind, hash: str) -> Artifact:
        """What is known of an artifact.

        Raises:
            RegistryError: there is none of this kind and hash.
        """
        with self._ledger.read() as connection:
            return _registered(connection, kind, hash)

    def artifacts(self) -> list[Artifact]:
        """Every artifact, oldest first."""
        with self._ledger.read() as connection:
            return ledger.all_artifacts(connection)

    def path(self, artifact: Artifact) -> Path:
        """The folder with the artifact's content, to be read only.

        Raises:
            RegistryError: it is missing.
        """
        _known_hash(artifact.kind, artifact.hash)
        folder = self._folder(artifact.kind, artifact.hash)
        if not folder.is_dir():
            raise RegistryError(f"{folder} is missing: restore it, or save the same content again")
        return folder

    def verify(self, kind: Kind, hash: str) -> None:
        """Hash an artifact's content again.

        Raises:
            RegistryError: it is unknown, missing or differs; the message names the files.
        """
        artifact = self.artifact(kind, hash)
        _compare(artifact, self.path(artifact))

    def verify_all(self) -> list[Finding]:
        """Hash all artifacts again and look for entries on disk that are none; no finding: all is well."""
        findings = []
        artifacts = self.artifacts()
        for artifact in artifacts:
            try:
                _compare(artifact, self.path(artifact))
            except RegistryError as error:
                findings.append(Finding(artifact.kind, artifact.hash, str(error)))
        for kind in KINDS:
            known = {name for a in artifacts if a.kind == kind for name in (a.hash, f"{a.hash}.metadata.json")}
            findings += [
                Finding(
                    kind,
                    path.name,
                    f"{path} is not registered, its save was cut off: save it again or remove it",
                )
                for path in sorted(self._shelf(kind).iterdir())
                if path.name not in known
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
            RegistryError: an artifact is unknown, missing, damaged or quarantined; or the candidate is the
                champion already.
        """
        for kind, hash in candidate.hashes.items():
            self.verify(kind, hash)
        with self._ledger.write() as connection:
            champion = _champion_as_seen(connection, expected)
            if champion is not None and champion.hashes == candidate.hashes:
                raise RegistryError(f"this candidate is the champion already (version {champion.version}): nothing to promote")
            for kind, hash in candidate.hashes.items():
                quarantine = ledger.quarantine_of(connection, kind, hash)
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

    def rollback(self, *, expected: int, reason: str) -> Decision:
        """Put the champion before this one back, at once: content is not hashed again.

        An earlier champion with an artifact that is quarantined or missing is passed over, and so is the same
        triple. Rolling back again goes back further; the log keeps everything.

        Args:
            expected: Version of the champion to leave.
            reason: Why, in words.

        Raises:
            ConflictError: the champion is another by now.
            RegistryError: there is no champion, or no usable one before it.
        """
        with self._ledger.write() as connection:
            champion = _champion_as_seen(connection, expected)
            if champion is None:
                raise RegistryError("there is no champion to roll back: promote a candidate first")
            for earlier in ledger.champions(connection):
                usable = all(self._usable(connection, kind, hash) for kind, hash in earlier.hashes.items())
                if usable and earlier.hashes != champion.hashes:
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
            RegistryError: the verdict is another, or an artifact is unknown.
        """
        if verdict not in ("hold", "reject"):
            raise RegistryError(f"verdict {verdict!r} cannot be recorded, only 'hold' and 'reject': use the method for it")
        with self._ledger.write() as connection:
            for kind, hash in candidate.hashes.items():
                _registered(connection, kind, hash)
            return ledger.append(
                connection,
                verdict,
                candidate.hashes,
                reason=reason,
                evidence=evidence,
                previous=_version(ledger.current(connection)),
            )

    def quarantine(self, kind: Kind, hash: str, reason: str, evidence: JSON = None) -> Decision:
        """Bar an artifact from ever being promoted or rolled back to.

        Raises:
            RegistryError: it is unknown, or part of the champion.
        """
        with self._ledger.write() as connection:
            _registered(connection, kind, hash)
            champion = ledger.current(connection)
            if champion is not None and champion.hashes[kind] == hash:
                raise RegistryError(f"{kind} {hash} is part of the champion: roll back or promote another first")
            return ledger.append(
                connection,
                "quarantine",
                {kind: hash},
                reason=reason,
                evidence=evidence,
                previous=_version(champion),
            )

    @property
    def _staging(self) -> Path:
        return self.root / "staging"

    def _shelf(self, kind: Kind) -> Path:
        return self.root / "artifacts" / kind

    def _folder(self, kind: Kind, hash: str) -> Path:
        return self._shelf(kind) / hash

    def _usable(self, connection: sqlite3.Connection, kind: Kind, hash: str) -> bool:
        return self._folder(kind, hash).is_dir() and ledger.quarantine_of(connection, kind, hash) is None


def _known_kind(kind: Kind) -> None:
    if kind not in KINDS:
        raise RegistryError(f"kind {kind!r} is none of {', '.join(KINDS)}")


def _known_hash(kind: Kind, hash: str) -> None:
    _known_kind(kind)
    if not _HASH.fullmatch(hash):
        raise RegistryError(f"{hash!r} is not a content hash: 64 lower-case hexadecimal digits are wanted")


def _registered(connection: sqlite3.Connection, kind: Kind, hash: str) -> Artifact:
    _known_hash(kind, hash)
    artifact = ledger.find_artifact(connection, kind, hash)
    if artifact is None:
        raise RegistryError(f"there is no {kind} {hash} in the registry: save it first")
    return artifact


def _compare(artifact: Artifact, folder: Path) -> None:
    found = manifest(folder)
    if content_hash(found) != artifact.hash:
        raise RegistryError(
            f"{artifact.kind} {artifact.hash} is damaged, {difference(artifact.files, found)}: "
            f"move {folder} away and save the same content again"
        )


def _champion_as_seen(connection: sqlite3.Connection, expected: int | None) -> Champion | None:
    champion = ledger.current(connection)
    if _version(champion) != expected:
        raise ConflictError(f"the champion is version {_version(champion)}, not {expected}: read it again and decide anew")
    return champion


def _version(champion: Champion | None) -> int | None:
    return None if champion is None else champion.version
