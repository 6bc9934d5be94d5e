"""Garbage collection: content that no decision needs, and what killed processes left."""

import sqlite3
from datetime import timedelta

from corewrite.registry import ledger
from corewrite.registry.content import size
from corewrite.registry.errors import RegistryError
from corewrite.registry.records import Garbage
from corewrite.registry.shelves import Shelves
from corewrite.registry.staging import abandoned, remove_abandoned, staged
from corewrite.storage.durable import Disk

KEEP = 5
"""Champions that are kept, the present one among them."""
GRACE = timedelta(days=1)
"""Age from which an artifact that no decision needs may go."""


def find_garbage(connection: sqlite3.Connection, shelves: Shelves, keep: int, grace: timedelta) -> list[Garbage]:
    """What `collect_garbage` would remove now.

    Raises:
        RegistryError: `keep` is below 2.
    """
    if keep < 2:
        raise RegistryError(f"keep = {keep}: a rollback needs the champion before, keep at least 2")
    return [
        *(
            Garbage(hash, kind, "no decision needs it any more", size(shelves.folder(kind, hash)))
            for kind, hash in ledger.unneeded(connection, keep, grace)
        ),
        *(
            Garbage(path.name, kind, "not registered, its save or removal was cut off", size(path))
            for kind, path in shelves.strays(connection)
        ),
        *(Garbage(path.name, None, "left by a killed process", size(path)) for path in abandoned(shelves.staging)),
    ]


def collect_garbage(rows: ledger.Ledger, shelves: Shelves, disk: Disk, keep: int, grace: timedelta) -> list[Garbage]:
    """Mark the rows of what is not needed, then remove its content; see `Registry.gc`.

    Raises:
        RegistryError: `keep` is below 2.
    """
    with rows.write() as connection:
        found = find_garbage(connection, shelves, keep, grace)
        for kind, hash in ledger.unneeded(connection, keep, grace):
            ledger.collect(connection, kind, hash)
    # While the database is locked no save is half done and none revives a row.
    with staged(shelves.staging, disk) as trash, rows.write() as connection:
        shelves.move_away([path for _, path in shelves.strays(connection)], trash)
    remove_abandoned(shelves.staging, disk)
    return found
