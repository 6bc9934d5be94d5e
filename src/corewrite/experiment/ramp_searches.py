"""From the log of what was served to the table that a ramp looks at."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from corewrite.domain import Outcome, SignalStatus
from corewrite.experiment import TREATMENT
from corewrite.logs import LogError, find_outcomes, read_log
from corewrite.logs.files import log_lines


def ramp_searches(files: Sequence[Path], *, champion: int, share: float) -> pa.Table:
    """The searches of one stage of a ramp, as `corewrite cycle ramp --searches` takes them.

    Of the log only what was served at this stage counts: a server follows a new stage within a second, and the stage's time
    begins earlier, where the log ended that led to it.

    Args:
        files: The log of all workers, with the events about it.
        champion: Version being ramped up: `RampState.champion`.
        share: Share of clients in the stage: `RampState.share`. At 0, the shadow stage, the rows are the unseen answers.

    Returns:
        user_id, arm ("control" | "treatment"), timestamp (seconds), gave_up (false in the shadow stage), error: the rewriter,
        the scoring or the search itself failed, neutral: no stage had a rewrite. A rewrite that came too late is neutral.

    Raises:
        LogError: a file cannot be read, or nothing was served at this stage.
    """
    outcomes = find_outcomes(read_log(list(files)))
    # What happened to a search is read from the log; outcomes come from the events. Settled ones are the caller's to choose.
    rows = {name: outcomes.to_arrow()[name].to_pylist() for name in ("query_id", "user_id", "timestamp", "outcome")}
    seen = {query_id: i for i, query_id in enumerate(rows["query_id"])}
    out: dict[str, list[Any]] = {name: [] for name in _SCHEMA.names}
    for query_id, served in _served(files):
        ramp = served.get("ramp")
        if ramp is None or ramp["arm"] is None or (ramp["champion"], ramp["share"]) != (champion, share):
            continue
        answered = served if share > 0 else served["shadow"]
        if answered is None or query_id not in seen:
            continue
        i = seen.pop(query_id)
        states = answered["signal_status"].values()
        row = {
            "user_id": rows["user_id"][i],
            "arm": ramp["arm"] if share > 0 else TREATMENT,
            "timestamp": rows["timestamp"][i],
            "gave_up": share > 0 and rows["outcome"][i] == Outcome.GAVE_UP,
            "error": SignalStatus.ERROR in states,
            "neutral": not answered["used_at"],
        }
        for name, value in row.items():
            out[name].append(value)
    if not out["arm"]:
        raise LogError(f"{', '.join(map(str, files))}: nothing was served at {share:.0%} of a ramp of version {champion}")
    return pa.table(out, schema=_SCHEMA)


_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("arm", pa.string()),
        ("timestamp", pa.float64()),
        ("gave_up", pa.bool_()),
        ("error", pa.bool_()),
        ("neutral", pa.bool_()),
    ]
)

NOTHING = _SCHEMA.empty_table()
"""The table of no search."""


def _served(files: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    for file in files:
        for line in log_lines(file):
            try:
                entry = json.loads(line)
                yield entry["query_id"], entry["query_attributes"]["served"]
            except (ValueError, TypeError, KeyError, RecursionError):
                continue  # an event, or a line cut off by a full disk
