"""The registry's SQLite database: rows of artifacts, and decisions that are only ever appended.

The champion is no field of its own but the last decision that promoted or rolled back, so pointer and log
cannot disagree. The database must lie on a local disk. `journal_mode=DELETE` since the write-ahead log of
SQLite before 3.51.3 has a race between processes; `synchronous=EXTRA` so that a commit outlives a power cut.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from corewrite.registry.errors import RegistryError
from corewrite.registry.records import JSON, Artifact, Candidate, Champion, Decision, Kind, Verdict
from corewrite.version import VERSION

_FORMAT = 1
_BUSY_SECONDS = 30.0
# The three kind columns are constants: they let a hash refer to the artifact of that kind.
_SCHEMA = (
    """
    CREATE TABLE artifacts (
        kind TEXT NOT NULL CHECK (kind IN ('policy', 'relevance', 'spec')),
        hash TEXT NOT NULL,
        files TEXT NOT NULL,
        metadata TEXT NOT NULL,
        created TEXT NOT NULL,
        PRIMARY KEY (kind, hash)
    )
    """,
    """
    CREATE TABLE decisions (
        number INTEGER PRIMARY KEY,
        time TEXT NOT NULL,
        verdict TEXT NOT NULL CHECK (verdict IN ('promote', 'hold', 'reject', 'rollback', 'quarantine')),
        policy TEXT,
        relevance TEXT,
        spec TEXT,
        previous INTEGER REFERENCES decisions (number),
        fallback INTEGER REFERENCES decisions (number),
        reason TEXT NOT NULL,
        evidence TEXT NOT NULL,
        code_version TEXT NOT NULL,
        policy_kind TEXT AS ('policy'),
        relevance_kind TEXT AS ('relevance'),
        spec_kind TEXT AS ('spec'),
        FOREIGN KEY (policy_kind, policy) REFERENCES artifacts (kind, hash),
        FOREIGN KEY (relevance_kind, relevance) REFERENCES artifacts (kind, hash),
        FOREIGN KEY (spec_kind, spec) REFERENCES artifacts (kind, hash),
        CHECK (
            (policy IS NULL) + (relevance IS NULL) + (spec IS NULL)
            = CASE verdict WHEN 'quarantine' THEN 2 ELSE 0 END
        )
    )
    """,
    *(
        f"""
        CREATE TRIGGER decisions_no_{action.lower()} BEFORE {action} ON decisions
        BEGIN SELECT RAISE(ABORT, 'decisions are append-only'); END
        """
        for action in ("UPDATE", "DELETE")
    ),
    # INSERT OR REPLACE deletes without firing a DELETE trigger.
    """
    CREATE TRIGGER decisions_no_replace BEFORE INSERT ON decisions
    WHEN NEW.number IS NOT (SELECT coalesce(max(number), 0) + 1 FROM decisions)
    BEGIN SELECT RAISE(ABORT, 'decisions are append-only: the number must be the next one'); END
    """,
)
_DECISION = "number, time, verdict, policy, relevance, spec, previous, reason, evidence, code_version"


class Ledger:
    """The database file; every operation has a connection of its own.

    Attributes:
        path: Where it lies.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def exists(self) -> bool:
        """Whether the tables are there.

        Raises:
            RegistryError: the file is no database, or of a format this version does not know.
        """
        if not self.path.exists():
            return False
        with self.read() as connection:
            found = _format(connection)
        if found not in (0, _FORMAT):
            raise RegistryError(f"{self.path} has format {found}, corewrite {VERSION} knows {_FORMAT}: use a newer corewrite")
        return found == _FORMAT

    def create(self) -> None:
        """Make the tables, unless another process was faster."""
        with self._connect("rwc") as connection, _transaction(connection):
            if _format(connection) == 0:
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {_FORMAT}")

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection whose reads see one state."""
        with self._connect("rw") as connection:
            connection.execute("BEGIN")
            yield connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A connection that alone may write; committed at the end, undone by any exception."""
        with self._connect("rw") as connection, _transaction(connection):
            yield connection

    @contextmanager
    def _connect(self, mode: str) -> Iterator[sqlite3.Connection]:
        # Mode rw, not rwc: a database that vanished is an error, never a fresh start.
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        try:
            with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
                if connection.execute("PRAGMA journal_mode = DELETE").fetchone()[0] != "delete":
                    raise RegistryError(f"{self.path} is in use with another journal mode: close what holds it open")
                connection.execute("PRAGMA synchronous = EXTRA")
                connection.execute("PRAGMA foreign_keys = ON")
                yield connection
        except sqlite3.Error as error:
            raise RegistryError(
                f"{self.path}: {error}: check the file, its rights and who else holds it, then try again"
            ) from error


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.execute("COMMIT")  # after an exception the connection is closed, which undoes


def _format(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def utc_now() -> str:
    """The time, ISO 8601 in UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_json(value: object, what: str) -> str:
    """Canonical JSON of `value`.

    Raises:
        RegistryError: JSON cannot express it (NaN and infinity included).
    """
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise RegistryError(f"{what} is not JSON: {error}; convert it to plain types, None for a missing number") from error


def find_artifact(connection: sqlite3.Connection, kind: Kind, hash: str) -> Artifact | None:
    """The artifact's row, None where there is none."""
    row = connection.execute(
        "SELECT files, metadata, created FROM artifacts WHERE kind = ? AND hash = ?", (kind, hash)
    ).fetchone()
    return None if row is None else Artifact(kind, hash, json.loads(row[0]), json.loads(row[1]), row[2])


def all_artifacts(connection: sqlite3.Connection) -> list[Artifact]:
    """Every artifact, oldest first."""
    rows = connection.execute("SELECT kind, hash, files, metadata, created FROM artifacts ORDER BY created, kind, hash")
    return [Artifact(k, h, json.loads(files), json.loads(metadata), t) for k, h, files, metadata, t in rows]


def add_artifact(connection: sqlite3.Connection, artifact: Artifact) -> None:
    """Insert the artifact's row."""
    connection.execute(
        "INSERT INTO artifacts (kind, hash, files, metadata, created) VALUES (?, ?, ?, ?, ?)",
        (
            artifact.kind,
            artifact.hash,
            to_json(artifact.files, "files"),
            to_json(artifact.metadata, "metadata"),
            artifact.created,
        ),
    )


def quarantine_of(connection: sqlite3.Connection, kind: Kind, hash: str) -> str | None:
    """Why the artifact is in quarantine, None where it is not."""
    row = connection.execute(
        f"SELECT reason FROM decisions WHERE verdict = 'quarantine' AND {kind} = ? ORDER BY number DESC",
        (hash,),
    ).fetchone()
    return None if row is None else str(row[0])


def champions(connection: sqlite3.Connection) -> Iterator[Champion]:
    """The champion and those that rollbacks go to from it, the nearest first."""
    query = "SELECT policy, relevance, spec, number, fallback FROM decisions"
    row = connection.execute(f"{query} WHERE verdict IN ('promote', 'rollback') ORDER BY number DESC LIMIT 1").fetchone()
    while row is not None:
        champion = Champion(*row)
        yield champion
        row = connection.execute(f"{query} WHERE number = ?", (champion.fallback,)).fetchone()


def current(connection: sqlite3.Connection) -> Champion | None:
    """The champion, None before the first promote."""
    return next(champions(connection), None)


def all_decisions(connection: sqlite3.Connection) -> list[Decision]:
    """The whole log, oldest first."""
    return [_decision(row) for row in connection.execute(f"SELECT {_DECISION} FROM decisions ORDER BY number")]


def append(
    connection: sqlite3.Connection,
    verdict: Verdict,
    hashes: Mapping[Kind, str],
    *,
    reason: str,
    evidence: JSON,
    previous: int | None,
    fallback: int | None = None,
) -> Decision:
    """Append a decision and return it.

    Args:
        connection: From `Ledger.write`.
        verdict: What was decided.
        hashes: All three of a candidate, or the one of a quarantine.
        reason: Why; must not be blank.
        evidence: Anything JSON can express.
        previous: Version of the champion at the time.
        fallback: Where a rollback from here goes.

    Raises:
        RegistryError: the reason is blank or the evidence is not JSON.
    """
    if not reason.strip():
        raise RegistryError(f"a {verdict} needs a reason: say in words why")
    (number,) = connection.execute("SELECT coalesce(max(number), 0) + 1 FROM decisions").fetchone()
    connection.execute(
        f"INSERT INTO decisions ({_DECISION}, fallback) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            number,
            utc_now(),
            verdict,
            hashes.get("policy"),
            hashes.get("relevance"),
            hashes.get("spec"),
            previous,
            reason,
            to_json(evidence, "evidence"),
            VERSION,
            fallback,
        ),
    )
    return _decision(connection.execute(f"SELECT {_DECISION} FROM decisions WHERE number = ?", (number,)).fetchone())


def _decision(row: tuple[Any, ...]) -> Decision:
    number, time, verdict, policy, relevance, spec, previous, reason, evidence, code_version = row
    hashes: dict[Kind, str | None] = {"policy": policy, "relevance": relevance, "spec": spec}
    alone = next(((kind, hash) for kind, hash in hashes.items() if hash is not None), None)
    quarantine = verdict == "quarantine"
    return Decision(
        number,
        time,
        verdict,
        None if quarantine else Candidate(policy, relevance, spec),
        alone if quarantine else None,
        previous,
        reason,
        json.loads(evidence),
        code_version,
    )
