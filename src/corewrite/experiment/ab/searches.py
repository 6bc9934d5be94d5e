"""The table of searches that an A/B reader needs, one row per search: validation, and aggregation by user."""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corewrite.domain import Outcome
from corewrite.domain.traffic_split import STAGES_OF, current_arm

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

SEARCH_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("arm", pa.string()),
        ("timestamp", pa.float64()),
        ("outcome", pa.string()),
        ("impacted", pa.bool_()),
        ("plain_changed", pa.float64()),
        ("watch_seconds", pa.float64()),
        ("pair", pa.list_(pa.string())),
        ("rewritten", pa.bool_()),
    ]
)
_MAY_BE_NULL = ("impacted", "pair", "rewritten")
_MAY_BE_MISSING = ("pair", "rewritten")


def check_searches(searches: pa.Table) -> pa.Table:
    """Check a table of searches and reduce it to the columns that are read.

    Args:
        searches: One row per search: user_id, arm (as served; "" where none was logged), timestamp (seconds), outcome
            (`Outcome` values), impacted (bool; null or NaN where it is not known), plain_changed (0, 1, NaN or
            null where censored), watch_seconds (at least 0). Where there are such columns, pair: the two arms that
            impacted compares, and rewritten: whether a rewrite was used, both null where that was not logged. Other columns
            are ignored.

    Returns:
        The table in `SEARCH_SCHEMA`, rows in their order; what is not known is null, NaN in plain_changed.

    Raises:
        ValueError: a column is missing, of a wrong type, or holds a null or a value it may not hold.
    """
    missing = [n for n in SEARCH_SCHEMA.names if n not in searches.column_names and n not in _MAY_BE_MISSING]
    if missing:
        there = ", ".join(searches.column_names) or "none"
        raise ValueError(f"the searches lack column {missing[0]!r}, add it: there are {there}")
    columns = {field.name: _cast(searches, field) for field in SEARCH_SCHEMA}
    columns["plain_changed"] = pc.fill_null(columns["plain_changed"], float("nan"))
    for name, column in columns.items():
        if name not in _MAY_BE_NULL and column.null_count:
            raise ValueError(f"column {name!r} holds {column.null_count} nulls: fill or drop these searches")
    outcomes = tuple(map(str, Outcome))
    if others := sorted(set(columns["outcome"].unique().to_pylist()) - set(outcomes)):
        raise ValueError(
            f"column 'outcome' holds {others[0]!r}, must be one of {', '.join(outcomes)}: see corewrite.domain.Outcome"
        )
    plain = columns["plain_changed"].to_numpy()
    if not np.isin(plain[~np.isnan(plain)], (0.0, 1.0)).all():
        raise ValueError("column 'plain_changed' must be 0, 1, or NaN where censored")
    watch = columns["watch_seconds"].to_numpy()
    if not (np.isfinite(watch) & (watch >= 0)).all():
        raise ValueError("column 'watch_seconds' must be finite and at least 0: 0 where nothing was watched")
    if not np.isfinite(columns["timestamp"].to_numpy()).all():
        raise ValueError("column 'timestamp' must be finite: seconds since the epoch")
    return pa.table(columns, schema=SEARCH_SCHEMA)


def select_arms(searches: pa.Table, control: str, treatment: str) -> tuple[pa.Table, dict[str, int]]:
    """The searches of two arms.

    Args:
        searches: A checked table.
        control, treatment: The arms' names, as served.

    Returns:
        Their searches, rows in their order, and how many users each arm that was left out has.

    Raises:
        ValueError: the names are the same, an arm has no search, or a user is in both.
    """
    if control == treatment:
        raise ValueError(f"arm {control!r} is both control and treatment: name two arms")
    users_of = searches.group_by(["arm", "user_id"]).aggregate([]).group_by("arm").aggregate([("user_id", "count")])
    users = dict(zip(users_of["arm"].to_pylist(), users_of["user_id_count"].to_pylist(), strict=True))
    for arm in (control, treatment):
        if arm not in users:
            raise ValueError(
                f"no search is in arm {arm!r}: there are {_names(users)}; name the arms to compare as they were served, "
                "control and treatment"
            )
    pair = searches.filter(pc.is_in(searches["arm"], pa.array([control, treatment])))
    arms = pair.group_by("user_id").aggregate([("arm", "count_distinct")])
    if torn := arms.filter(pc.greater(arms["arm_count_distinct"], 1))["user_id"].to_pylist():
        raise ValueError(
            f"{len(torn)} users are in both arms, such as {min(torn)!r}: arms go by user; "
            "where worlds or seeds share user ids, join them with pool_tables"
        )
    return pair, {arm: users[arm] for arm in sorted(users) if arm not in (control, treatment)}


def impacted_between(searches: pa.Table, control: str, treatment: str) -> pa.Table:
    """The searches with `impacted` between two arms: of what was logged between two others it is not known.

    Args:
        searches: A checked table. Where it names no pair, `impacted` is taken to be between these two. Arms of serving that
            use the rewrite at the same stages show the same.
        control, treatment: The arms.

    Raises:
        ValueError: all that is known is between others.
    """
    pairs = [None if pair is None else tuple(pair) for pair in searches["pair"].to_pylist()]
    wanted = {_shown(control), _shown(treatment)}
    of_others = [pair is not None and {_shown(arm) for arm in pair} != wanted for pair in pairs]
    impacted = searches["impacted"]
    left = pc.if_else(pa.array(of_others, pa.bool_()), pa.scalar(None, pa.bool_()), impacted)
    if impacted.null_count < len(impacted) == left.null_count:
        logged = " and ".join(map(repr, next(pair for pair, other in zip(pairs, of_others, strict=True) if pair and other)))
        raise ValueError(
            f"whether the lists differ was logged between {logged}, not between {control!r} and {treatment!r}: serve with "
            "these two as `log.pair`"
        )
    return searches.set_column(searches.column_names.index("impacted"), "impacted", left)


def treated_share(searches: pa.Table, control: str, treatment: str) -> float | None:
    """Share of treatment's impacted searches that were served with a rewrite; refuses arms that were not served as named.

    Args:
        searches: A checked table.
        control, treatment: The arms. Of arms of serving (`STAGES_OF`) it is known which use rewrites.

    Returns:
        None where the log does not say, or treatment is none of the arms of serving.

    Raises:
        ValueError: an arm without a rewriter was served one, or an arm with one never.
    """
    searches = searches.filter(pc.is_valid(searches["rewritten"]))
    found: float | None = None
    for arm in (control, treatment):
        stages = _shown(arm)
        rows = searches.filter(pc.equal(searches["arm"], arm))
        if stages == () and pc.any(rows["rewritten"]).as_py():
            raise ValueError(
                f"{pc.sum(rows['rewritten']).as_py()} searches of arm {arm!r}, which has no rewriter, were served with a "
                "rewrite: the arms of this log are not those that were served"
            )
        rows = rows.filter(pc.fill_null(rows["impacted"], False))
        if isinstance(stages, str) or not stages or not len(rows):
            continue
        share = float(pc.mean(rows["rewritten"]).as_py())
        if not share:
            raise ValueError(
                f"none of the {len(rows)} impacted searches of arm {arm!r} was served with a rewrite (shadow mode, the kill "
                "switch, or rewrites that always came late): its users saw what control saw"
            )
        found = share if arm == treatment else found
    return found


def trigger_known(searches: pa.Table) -> BoolArray:
    """Whether the first impacted search of a search's user is known, or that the user has none.

    A user is lost at the first search of which it is not known whether it is impacted, unless an impacted one came
    before. Up to the first impacted search both arms show the same, so that users are lost alike in both, whether it was
    drawn by search or by user which of them are logged. The first impacted search *that was logged* is another matter: a
    treatment that satisfies leaves fewer searches to draw it from.

    Args:
        searches: Columns user_id, timestamp and impacted, null where not known; of equal timestamps the earlier row is
            first.

    Returns:
        One per row.
    """
    # Positions in time: which of two nulls or of two impacted searches of a user is first is asked by the smallest.
    order = np.argsort(searches["timestamp"].to_numpy(), kind="stable")
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    users, user = np.unique(np.asarray(searches["user_id"].to_pylist(), object), return_inverse=True)
    impacted = searches["impacted"]

    def first(rows: BoolArray) -> IntArray:
        found = np.full(len(users), len(order))
        np.minimum.at(found, user[rows], position[rows])
        return found

    is_impacted = np.asarray(pc.fill_null(impacted, False).to_numpy(zero_copy_only=False), np.bool_)
    lost = first(np.asarray(impacted.is_null().to_numpy(zero_copy_only=False), np.bool_))
    known: BoolArray = (lost == len(order)) | (first(is_impacted) < lost)
    return known[user]


def first_impacted(searches: pa.Table) -> pa.Table:
    """The first impacted search of every user who has one; of equal timestamps the earlier row.

    Up to that search both arms have shown the user the same, so whether and when it comes does not depend on
    the arm. Later impacted searches do: a treatment that satisfies leaves fewer of them.

    Args:
        searches: A checked table of users whose trigger is known, see `trigger_known`.

    Returns:
        user_id, arm, outcome, and changed, gave_up, satisfied as 0.0 or 1.0 (all 0 where censored); sorted by
        user.
    """
    impacted = searches.filter(pc.fill_null(searches["impacted"], False)).sort_by("timestamp")
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
        One row per user, sorted: user_id, arm, and float64 sums: searches that are known to be impacted, that ended (not
        censored), changed (unsatisfied), gave up, alone or with "_impacted"; those of which the plain change
        is known, and those where it is true; watch_seconds.
    """
    impacted = pc.cast(pc.fill_null(searches["impacted"], False), pa.float64())
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
    if field.name not in searches.column_names:
        return pa.chunked_array([pa.nulls(len(searches), field.type)])
    column = searches[field.name]
    if pa.types.is_boolean(field.type) and pa.types.is_floating(column.type):
        numbers = column.to_numpy()
        if not np.isin(numbers[~np.isnan(numbers)], (0.0, 1.0)).all():
            raise ValueError(f"column {field.name!r} must be true, false, or null where it is not known")
        return pa.chunked_array([pa.array(numbers == 1.0, mask=np.isnan(numbers))])
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"column {field.name!r} is {column.type}, must be {field.type}: {error}") from error


def _shown(arm: str) -> str | tuple[str, ...]:
    """What determines the lists of an arm: the stages that use the rewrite, or the name of an arm that is not ours."""
    name = current_arm(arm)
    return next((stages for known, stages in STAGES_OF.items() if known == name), arm)


def _names(arms: Collection[str]) -> str:
    named = [repr(arm) for arm in sorted(arms) if arm]
    return " and ".join(filter(None, [", ".join(named), "searches without an arm" if "" in arms else ""])) or "none"


def _is(outcome: pa.ChunkedArray, wanted: Outcome) -> pa.ChunkedArray:
    return pc.cast(pc.equal(outcome, str(wanted)), pa.float64())
