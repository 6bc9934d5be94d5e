"""Write what the platform shows the world: documents as Parquet, the log as UBI, signals in a side table.

What only the simulation knows (intents, what users felt) is not in any of these files.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corewrite.domain import Catalogue
from corewrite.logs import UbiWriter
from corewrite.simulation.week import Week
from corewrite.storage.durable import naming


def write_log(week: Week, catalogue: Catalogue, path: Path, attributes: dict[str, str] | None = None) -> None:
    """Write a week as UBI 1.3.0 NDJSON, in the order of time (queries by theirs, each followed by its events)."""
    with UbiWriter(path) as out:
        for i in range(len(week)):
            rows = week.ranking.rows[i]
            query = week.queries[i]
            out.query(
                query_id=week.query_ids[i],
                client_id=week.user_ids[i],
                user_query=query.text,
                timestamp=float(week.timestamps[i]),
                hit_ids=[catalogue.ids[r] for r in rows if r >= 0],
                attributes={
                    "session_id": week.session_ids[i],
                    "locale": query.context.locale,
                    "context_titles": list(query.context.titles),
                    "arm": week.arms[i],
                    "impacted": bool(week.ranking.impacted[i]),
                    **(attributes or {}),
                },
            )
            for k in np.flatnonzero(week.click[i]):
                shared = {
                    "query_id": week.query_ids[i],
                    "client_id": week.user_ids[i],
                    "session_id": week.session_ids[i],
                    "object_id": catalogue.ids[rows[k]],
                    "ordinal": int(k) + 1,
                }
                clicked = float(week.click_time[i, k])
                watched = float(week.watch_seconds[i, k])
                out.event("click", timestamp=clicked, **shared)  # type: ignore[arg-type]
                out.event(
                    "watch",
                    timestamp=clicked + watched,
                    watch_seconds=watched,
                    duration_seconds=float(catalogue.seconds[rows[k]]),
                    **shared,  # type: ignore[arg-type]
                )


def write_signals(week: Week, catalogue: Catalogue, path: Path) -> None:
    """Write the factors of every displayed document as Parquet: query_id, rank, document_id, one column a factor."""
    shown = week.ranking.rows >= 0
    at, rank = np.nonzero(shown)
    columns: dict[str, object] = {
        "query_id": pa.array([week.query_ids[i] for i in at]),
        "rank": rank + 1,
        "document_id": pa.array([catalogue.ids[r] for r in week.ranking.rows[shown]]),
    }
    columns |= {name: values[shown] for name, values in week.ranking.columns.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        pq.write_table(pa.table(columns), path)
