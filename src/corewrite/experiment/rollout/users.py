"""Users of a rollout: treatment and control, and the sums over their searches."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corewrite.experiment.assignment import ARMS, CONTROL, TREATMENT

FloatArray = npt.NDArray[np.float64]

_COLUMNS: Final = {"give_up": "gave_up", "errors": "error", "neutral_share": "neutral"}
_LATER: Final = {"change_query": "changed", "unsatisfied": "unsatisfied"}
"""Columns that tables of earlier versions lack."""


@dataclass(frozen=True)
class Sums:
    """Sums over the users of an arm, each counting once with a share of their searches in [0, 1].

    Attributes:
        users: How many.
        give_up, errors, neutral_share: Sum of the users' shares.
        change_query, unsatisfied: The same; None where the table did not say.
    """

    users: int = 0
    give_up: float = 0.0
    errors: float = 0.0
    neutral_share: float = 0.0
    change_query: float | None = None
    unsatisfied: float | None = None


@dataclass(frozen=True)
class Observation:
    """All users of a stage from its beginning, not only those since the last observation.

    Attributes:
        id: Names it; the rollout takes no notice of an id it has seen.
        since: When the stage began, seconds.
        until: End of the log it was made from, seconds.
        control, treatment: The arms; control is not read in the shadow stage.
        lost_share: Share of the searches whose line the log has lost.
    """

    id: str
    since: float
    until: float
    control: Sums
    treatment: Sums
    lost_share: float = 0.0


def observe(
    searches: pa.Table, *, observation_id: str, since: float, until: float, window: float = 3600.0, lost_share: float = 0.0
) -> Observation:
    """Fold the searches of a stage into sums over users.

    A user counts with the mean over the searches of the first window they search in, once that window is over.
    What they do later is left out: it would make one person many, or revise an outcome that was counted before,
    and then the bounds would not hold at all times at once.

    Args:
        searches: One row per search: user_id, arm ("control" | "treatment"), timestamp (seconds), and gave_up,
            error, neutral as bool or share in [0, 1]. Rows before `since` or after the last whole window are left
            out, other columns ignored; changed and unsatisfied likewise where they are there. For the shadow stage:
            the shadow's answers as arm "treatment", gave_up not read but there.
        observation_id: Names the observation.
        since: When the stage began, seconds: `RolloutState.since`.
        until: End of the log, seconds; by then outcomes must be settled (no search be censored any more).
        window: Length of a window, seconds; the same throughout a rollout.
        lost_share: Share of the searches whose line the log has lost.

    Raises:
        ValueError: a column is missing, of a wrong type, or holds a null or a value it may not hold; a user is in
            both arms; `window` is not positive or `until` is before `since`.
    """
    if not window > 0:
        raise ValueError(f"window {window} must be above 0 seconds")
    if until < since:
        raise ValueError(f"until {until} is before since {since}: the log ends before the stage began")
    columns = _COLUMNS | {metric: column for metric, column in _LATER.items() if column in searches.column_names}
    names = ("user_id", "arm", "timestamp", *columns.values())
    missing = [name for name in names if name not in searches.column_names]
    if missing:
        raise ValueError(f"the searches lack column {missing[0]!r}, add it: there are {', '.join(searches.column_names)}")
    for name in names:
        if searches[name].null_count:
            raise ValueError(f"column {name!r} holds nulls: pass a log whose outcomes are settled")
    at = _floats(searches, "timestamp")
    counted = (at >= since) & (at < since + (until - since) // window * window)
    users, rows = np.unique(np.asarray(searches["user_id"].to_pylist(), np.str_)[counted], return_inverse=True)
    arms = np.asarray(searches["arm"].to_pylist(), np.str_)[counted]
    others = sorted(set(arms.tolist()) - set(ARMS))
    if others:
        raise ValueError(f"column 'arm' holds {others[0]!r}, must be one of {', '.join(ARMS)}")
    treated = np.bincount(rows, arms == TREATMENT, len(users)) / np.bincount(rows, minlength=len(users))
    torn = users[(treated > 0) & (treated < 1)]
    if len(torn):
        raise ValueError(f"{len(torn)} users are in both arms, such as {str(torn[0])!r}: arms go by user, see in_treatment")
    windows = (at[counted] - since) // window
    first = np.full(len(users), np.inf)
    np.minimum.at(first, rows, windows)
    kept = windows == first[rows]
    searched = np.bincount(rows[kept], minlength=len(users))
    shares = {}
    for metric, column in columns.items():
        values = _floats(searches, column)
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(f"column {column!r} must be a bool or a share in [0, 1]")
        shares[metric] = np.bincount(rows[kept], values[counted][kept], len(users)) / searched
    members = {CONTROL: treated == 0, TREATMENT: treated == 1}
    control, treatment = (
        Sums(int(of.sum()), **{metric: float(share[of].sum()) for metric, share in shares.items()})
        for of in (members[CONTROL], members[TREATMENT])
    )
    return Observation(observation_id, since, until, control, treatment, lost_share)


def _floats(searches: pa.Table, name: str) -> FloatArray:
    try:
        return np.asarray(searches[name].cast(pa.float64()).to_numpy())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"column {name!r} is {searches[name].type}, must be a number: {error}") from error
