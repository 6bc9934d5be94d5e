"""The table an A/B reader needs, one row per search: checked, and folded to one row per user."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corewrite.domain import Outcome
from corewrite.experiment.assignment import ARMS

SEARCH_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("arm", pa.string()),
        ("timestamp", pa.float64()),
        ("outcome", pa.string()),
        ("impacted", pa.bool_()),
        ("plain_changed", pa.float64()),
        ("watch_seconds", pa.float64()),
    ]
)
_NAN_ALLOWED = "plain_changed"


def check_searches(searches: pa.Table) -> pa.Table:
    """Check a table of searches and reduce it to the columns that are read.

    Args:
        searches: One row per search: user_id, arm ("control" | "treatment"), timestamp (seconds), outcome
            (`Outcome` values), impacted (bool), plain_changed (0, 1, NaN or null where censored),
            watch_seconds (at least 0). Other columns are ignored.

    Returns:
        The table in `SEARCH_SCHEMA`, rows in their order; a null in plain_changed has become NaN.

    Raises:
        ValueError: a column is missing, of a wrong type, or holds a null or a value it may not hold; or a
            user is in both arms.
    """
    missing = [name for name in SEARCH_SCHEMA.names if name not in searches.column_names]
    if missing:
        there = ", ".join(searches.column_names) or "none"
        raise ValueError(f"the searches lack column {missing[0]!r}, add it: there are {there}")
    columns = {field.name: _cast(searches, field) for field in SEARCH_SCHEMA}
    columns[_NAN_ALLOWED] = pc.fill_null(columns[_NAN_ALLOWED], float("nan"))
    for name, column in columns.items():
        if column.null_count:
            raise ValueError(f"column {name!r} holds {column.null_count} nulls: fill or drop these searches")
    _refuse_others("arm", columns["arm"], ARMS, "rename it, or drop searches outside the launch (a holdback's)")
    _refuse_others("outcome", columns["outcome"], tuple(map(str, Outcome)), "see corewrite.domain.Outcome")
    plain = columns[_NAN_ALLOWED].to_numpy()
    if not np.isin(plain[~np.isnan(plain)], (0.0, 1.0)).all():
        raise ValueError("column 'plain_changed' must be 0, 1, or NaN where censored")
    watch = columns["watch_seconds"].to_numpy()
    if not (np.isfinite(watch) & (watch >= 0)).all():
        raise ValueError("column 'watch_seconds' must be finite and at least 0: 0 where nothing was watched")
    if not np.isfinite(columns["timestamp"].to_numpy()).all():
        raise ValueError("column 'timestamp' must be finite: seconds since the epoch")
    table = pa.table(columns, schema=SEARCH_SCHEMA)
    arms = table.group_by("user_id").aggregate([("arm", "count_distinct")])
    torn = arms.filter(pc.greater(arms["arm_count_distinct"], 1))["user_id"].to_pylist()
    if torn:
        raise ValueError(
            f"{len(torn)} users are in both arms, such as {min(torn)!r}: arms go by user; "
            "where worlds or seeds share user ids, join them with pool_tables"
        )
    return table


def first_impacted(searches: pa.Table) -> pa.Table:
    """The first impacted search of every user who has one; of equal timestamps the earlier row.

    Up to that search both arms have shown the user the same, so whether and when it comes does not depend on
    the arm. Later impacted searches do: a treatment that satisfies leaves fewer of them.

    Args:
        searches: A checked table.

    Returns:
        user_id, arm, outcome, and changed, gave_up, satisfied as 0.0 or 1.0 (all 0 where censored); sorted by
        user.
    """
    impacted = searches.filter(searches["impacted"]).sort_by("timestamp")
    first = impacted.group_by("user_id", use_threads=False).aggregate([("arm", "first"), ("outcome", "first")])
    outcome = first["outcome_first"]
    return pa.table(
        {
            "user_id": first["user_id"],
            "arm": first["arm_first"],
            "outcome": outcome,
            "changed": _is(outcome, Outcome.CHANGED),
            "gave_up": _is(outcome, Outcome.GAVE_UP),
            "satisfied": _is(outcome, Outcome.SATISFIED),
        }
    ).sort_by("user_id")


def drop_censored(first: pa.Table) -> pa.Table:
    """`first_impacted` without the users whose first impacted search is censored.

    They are dropped rather than given their next search: near the log's end a search can be known to be
    satisfied or changed, but never to be given up, so to replace a censored search is to choose by outcome.
    """
    return first.filter(pc.not_equal(first["outcome"], str(Outcome.CENSORED)))


def per_user(searches: pa.Table) -> pa.Table:
    """Sums over each user's searches.

    Args:
        searches: A checked table.

    Returns:
        One row per user, sorted: user_id, arm, and float64 sums: searches that are impacted, that ended (not
        censored), changed (unsatisfied), gave up, alone or with "_impacted"; those of which the plain change
        is known, and those where it is true; watch_seconds.
    """
    impacted = pc.cast(searches["impacted"], pa.float64())
    changed = _is(searches["outcome"], Outcome.CHANGED)
    gave_up = _is(searches["outcome"], Outcome.GAVE_UP)
    ended = pc.subtract(1.0, _is(searches["outcome"], Outcome.CENSORED))
    plain = searches["plain_changed"]
    known = pc.invert(pc.is_nan(plain))
    numbers = {
        "impacted": impacted,
        "ended": ended,
        "ended_impacted": pc.multiply(ended, impacted),
        "changed": changed,
        "changed_impacted": pc.multiply(changed, impacted),
        "gave_up_impacted": pc.multiply(gave_up, impacted),
        "plain_known": pc.cast(known, pa.float64()),
        "plain_changed": pc.if_else(known, plain, 0.0),
        "watch_seconds": searches["watch_seconds"],
    }
    rows = pa.table({"user_id": searches["user_id"], "arm": searches["arm"], **numbers})
    # Unthreaded: float sums then have one order, and the same table gives the same bytes.
    sums = rows.group_by(["user_id", "arm"], use_threads=False).aggregate([(name, "sum") for name in numbers])
    return pa.table(
        {name: sums[name] for name in ("user_id", "arm")} | {name: sums[f"{name}_sum"] for name in numbers}
    ).sort_by("user_id")


def _cast(searches: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    column = searches[field.name]
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"column {field.name!r} is {column.type}, must be {field.type}: {error}") from error


def _refuse_others(name: str, column: pa.ChunkedArray, known: tuple[str, ...], fix: str) -> None:
    others = sorted(set(column.unique().to_pylist()) - set(known))
    if others:
        raise ValueError(f"column {name!r} holds {others[0]!r}, must be one of {', '.join(known)}: {fix}")


def _is(outcome: pa.ChunkedArray, wanted: Outcome) -> pa.ChunkedArray:
    return pc.cast(pc.equal(outcome, str(wanted)), pa.float64())
