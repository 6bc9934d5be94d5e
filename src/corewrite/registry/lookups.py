"""Rows that a call builds on: found, or refused with the reason."""

import re
import sqlite3

from corewrite.registry import ledger
from corewrite.registry.errors import ConflictError, RegistryError
from corewrite.registry.records import KINDS, Artifact, Champion, Kind

_HASH = re.compile(r"[0-9a-f]{64}")


def require_kind(kind: Kind) -> None:
    """Refuse what is no kind of artifact.

    Raises:
        RegistryError: it is none.
    """
    if kind not in KINDS:
        raise RegistryError(f"kind {kind!r} is none of {', '.join(KINDS)}")


def require_hash(kind: Kind, hash: str) -> None:
    """Refuse what is no kind of artifact, or no content hash.

    Raises:
        RegistryError: it is so.
    """
    require_kind(kind)
    if not _HASH.fullmatch(hash):
        raise RegistryError(f"{hash!r} is not a content hash: 64 lower-case hexadecimal digits are wanted")


def find_known(connection: sqlite3.Connection, kind: Kind, hash: str) -> Artifact:
    """An artifact's row, also of a collected one.

    Raises:
        RegistryError: there is none.
    """
    require_hash(kind, hash)
    artifact = ledger.find_artifact(connection, kind, hash)
    if artifact is None:
        raise RegistryError(f"there is no {kind} {hash} in the registry: save it first")
    return artifact


def find_registered(connection: sqlite3.Connection, kind: Kind, hash: str) -> Artifact:
    """The row of an artifact whose content was not collected.

    Raises:
        RegistryError: there is none, or it was collected.
    """
    artifact = find_known(connection, kind, hash)
    if artifact.collected is not None:
        raise RegistryError(f"{kind} {hash} was removed by gc ({artifact.collected}): save the same content again")
    return artifact


def expect_champion(connection: sqlite3.Connection, expected: int | None) -> Champion | None:
    """The champion, where it is the one that the caller compared with.

    Raises:
        ConflictError: it is another by now.
    """
    champion = ledger.current(connection)
    if champion_version(champion) != expected:
        raise ConflictError(
            f"the champion is version {champion_version(champion)}, not {expected}: read it again and decide anew"
        )
    return champion


def champion_version(champion: Champion | None) -> int | None:
    """Version of a champion; None where there is none."""
    return None if champion is None else champion.version
