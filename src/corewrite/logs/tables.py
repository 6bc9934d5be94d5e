"""The tables of a log: one row per search, one per event."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from corewrite.logs.ingest_report import IngestReport

SEARCH_SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("user_id", pa.string()),
        ("session_id", pa.string()),
        ("timestamp", pa.float64()),
        ("query", pa.string()),
        ("hit_ids", pa.list_(pa.string())),
        ("context_titles", pa.list_(pa.string())),
        ("locale", pa.string()),
        ("arm", pa.string()),
        ("bucket", pa.int32()),
        ("impacted", pa.bool_()),
        ("pair", pa.list_(pa.string())),
        ("rewritten", pa.bool_()),
        ("texts", pa.string()),
        ("line", pa.int64()),
    ]
)
"""What is not logged is null, never false: `bucket`, `impacted`, and of a line that `corewrite serve` did not write `pair` (the
two arms, or versions of a rollout, that `impacted` compares; control first), `rewritten` (whether some stage used a rewrite)
and `texts` ("plain", "hashed", "sealed")."""
EVENT_SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("user_id", pa.string()),
        ("action", pa.string()),
        ("document_id", pa.string()),
        ("position", pa.int64()),
        ("timestamp", pa.float64()),
        ("watch_seconds", pa.float64()),
        ("duration_seconds", pa.float64()),
    ]
)


@dataclass(frozen=True, eq=False)
class SearchLog:
    """A log as two tables of an Ibis connection.

    Attributes:
        connection: Where the tables live (DuckDB in memory by default).
        searches: One row per search, columns of `SEARCH_SCHEMA`.
        events: One row per event, columns of `EVENT_SCHEMA`.
        report: What was found.
    """

    connection: Any
    searches: Any
    events: Any
    report: IngestReport


class Columns:
    """Rows gathered column by column.

    Attributes:
        schema: Of the table.
        values: By column, a value of each row.
    """

    def __init__(self, schema: pa.Schema) -> None:
        """No rows yet."""
        self.schema = schema
        self.values: dict[str, list[Any]] = {name: [] for name in schema.names}

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row; what it holds besides the columns is left out."""
        for name, column in self.values.items():
            column.append(row[name])

    def table(self) -> pa.Table:
        """The rows so far."""
        return pa.table(self.values, schema=self.schema)
