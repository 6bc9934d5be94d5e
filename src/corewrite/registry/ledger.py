"""The registry's SQLite database: rows of artifacts, and decisions that are only ever appended.

The champion is no field of its own but the last decision that promoted or rolled back, so pointer and log
cannot disagree. The database must lie on a local disk. `journal_mode=DELETE` since the write-ahead log of
SQLite before 3.51.3 has a race between processes; `synchronous=EXTRA` so that a commit outlives a power cut.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from corewrite.registry.errors import RegistryError
from corewrite.registry.records import JSON, Artifact, Candidate, Champion, Decision, DecisionKind, Kind
from corewrite.version import VERSION

_BUSY_SECONDS = 30.0
# The three kind columns are constants: they let a hash refer to the artifact of that kind.
_FORMAT_1 = (
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
# A row stays when the content goes: decisions refer to it for ever. The trigger also binds processes of an
# older corewrite that opened the database before the columns were there, and do not know them.
_FORMAT_2 = (
    "ALTER TABLE artifacts ADD COLUMN collected TEXT",
    "ALTER TABLE artifacts ADD COLUMN saved TEXT",
    """
    CREATE TRIGGER decisions_not_on_collected BEFORE INSERT ON decisions
    WHEN NEW.verdict <> 'quarantine' AND EXISTS (
        SELECT * FROM artifacts WHERE collected IS NOT NULL
        AND (kind, hash) IN (VALUES ('policy', NEW.policy), ('relevance', NEW.relevance), ('spec', NEW.spec))
    )
    BEGIN SELECT RAISE(ABORT, 'an artifact was removed by the garbage collection'); END
    """,
)
_STEPS = (_FORMAT_1, _FORMAT_2)
FORMAT = len(_STEPS)
_ARTIFACT = "kind, hash, files, metadata, created, collected"
_DECISION = "number, time, verdict, policy, relevance, spec, previous, reason, evidence, code_version"


class Ledger:
    """The database file; every operation has a connection of its own.

    Attributes:
        path: Where it lies.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def format(self) -> int:
        """Format of the tables; 0 where there are none.

        Raises:
            RegistryError: the file is no database, or of a format this version does not know.
        """
        if not self.path.exists():
            return 0
        with self.read() as connection:
            found = _format(connection)
        if found > FORMAT:
            raise RegistryError(f"{self.path} has format {found}, corewrite {VERSION} knows {FORMAT}: use a newer corewrite")
        return found

    def upgrade(self) -> None:
        """Bring the tables to the present format, from none or from an older one, unless another process was faster."""
        with self._connect("rwc") as connection, _transaction(connection):
            for statements in _STEPS[_format(connection) :]:
                for statement in statements:
                    connection.execute(statement)
            if _format(connection) < FORMAT:
                connection.execute(f"PRAGMA user_version = {FORMAT}")

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


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _format(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def utc_now() -> str:
    """The time, ISO 8601 in UTC with milliseconds."""
    return _iso(datetime.now(UTC))


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
    row = connection.execute(f"SELECT {_ARTIFACT} FROM artifacts WHERE kind = ? AND hash = ?", (kind, hash)).fetchone()
    return None if row is None else _artifact(row)


def all_artifacts(connection: sqlite3.Connection) -> list[Artifact]:
    """Every artifact, collected ones too, oldest first."""
    return [_artifact(row) for row in connection.execute(f"SELECT {_ARTIFACT} FROM artifacts ORDER BY created, kind, hash")]


def put_artifact(connection: sqlite3.Connection, artifact: Artifact) -> None:
    """Note that the artifact was saved: insert its row, or bring the one that is there back to life."""
    connection.execute(
        f"INSERT INTO artifacts ({_ARTIFACT}, saved) VALUES (?, ?, ?, ?, ?, NULL, ?) "
        "ON CONFLICT DO UPDATE SET collected = NULL, saved = excluded.saved",
        (
            artifact.kind,
            artifact.hash,
            to_json(artifact.files, "files"),
            to_json(artifact.metadata, "metadata"),
            artifact.created,
            utc_now(),
        ),
    )


def collect(connection: sqlite3.Connection, kind: Kind, hash: str) -> None:
    """Mark an artifact: its content is about to be removed, no decision may build on it any more."""
    connection.execute("UPDATE artifacts SET collected = ? WHERE kind = ? AND hash = ?", (utc_now(), kind, hash))


def unneeded(connection: sqlite3.Connection, keep: int, grace: timedelta) -> list[tuple[Kind, str]]:
    """Kind and hash of the artifacts whose content may go.

    Needed is what was saved within `grace`; what the last `keep` champions consist of; what `keep - 1`
    rollbacks in a row would restore; and what is on hold against the present champion.
    """
    query = "SELECT policy, relevance, spec FROM decisions WHERE"
    triples: list[tuple[str, str, str]] = connection.execute(
        f"{query} verdict IN ('promote', 'rollback') ORDER BY number DESC LIMIT ?", (keep,)
    ).fetchall()
    champion = current(connection)
    triples += connection.execute(
        f"{query} verdict = 'hold' AND previous IS ?", (None if champion is None else champion.version,)
    )
    sound = (c for c in champions(connection) if not any(load_quarantine(connection, *item) for item in c.hashes.items()))
    distinct = dict.fromkeys((c.policy, c.relevance, c.spec) for c in sound)
    triples += islice(distinct, keep)
    needed = {item for triple in triples for item in Candidate(*triple).hashes.items()}
    rows = connection.execute(
        "SELECT kind, hash FROM artifacts WHERE collected IS NULL AND coalesce(saved, created) <= ? "
        "ORDER BY created, kind, hash",
        (_iso(datetime.now(UTC) - grace),),
    )
    return [(kind, hash) for kind, hash in rows if (kind, hash) not in needed]


def load_quarantine(connection: sqlite3.Connection, kind: Kind, hash: str) -> str | None:
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
    verdict: DecisionKind,
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


def _artifact(row: tuple[Any, ...]) -> Artifact:
    kind, hash, files, metadata, created, collected = row
    return Artifact(kind, hash, json.loads(files), json.loads(metadata), created, collected)


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
