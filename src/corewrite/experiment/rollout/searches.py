"""From the served log to the table of searches that `observe` takes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from corewrite.domain import Outcome, SignalStatus
from corewrite.experiment.assignment import TREATMENT
from corewrite.logs import LogError, SatisfactionThresholds, find_outcomes, read_log
from corewrite.logs.files import log_lines
from corewrite.logs.outcomes import Overlap
from corewrite.logs.sealing import Unseal
from corewrite.logs.served import ServedLine, count_lost, read_served
from corewrite.logs.texts import require_texts

_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("arm", pa.string()),
        ("timestamp", pa.float64()),
        ("gave_up", pa.bool_()),
        ("changed", pa.bool_()),
        ("unsatisfied", pa.bool_()),
        ("error", pa.bool_()),
        ("neutral", pa.bool_()),
    ]
)


@dataclass(frozen=True, eq=False)
class StageSearches:
    """The searches of one stage of a rollout.

    Attributes:
        table: A row each: user_id, arm ("control" | "treatment"), timestamp (seconds), gave_up, changed (unsatisfied) and
            unsatisfied (all false in the shadow stage), error: the rewriter, the scoring or the search itself failed, neutral:
            no stage had a rewrite. A rewrite that came too late is neutral.
        lost_share: Share of the log's searches whose line is missing.
    """

    table: pa.Table
    lost_share: float = 0.0


NOTHING = StageSearches(_SCHEMA.empty_table())
"""No search."""


def rollout_searches(
    files: Sequence[Path],
    *,
    champion: int,
    share: float,
    overlap: Overlap | None = None,
    thresholds: SatisfactionThresholds | None = None,
    unseal: Unseal | None = None,
) -> StageSearches:
    """The searches of one stage of a rollout.

    How a search ended must not depend on the arm it was served in: whether two queries have the same intent is decided from
    their texts and `overlap`, a function of the texts alone, never from the lists that were displayed; and satisfaction from
    thresholds that were frozen before the rollout began. Of the log only what was served at this stage counts: a server follows
    a new stage within a second, and the stage's time begins earlier, where the log ended that led to it.

    Args:
        files: The log of all workers, with the events about it.
        champion: Version being rolled out: `RolloutState.champion`.
        share: Share of clients in the stage: `RolloutState.share`. At 0, the shadow stage, the rows are the unseen answers.
        overlap: Of two texts' results under the original-only ranking; not needed in the shadow stage.
        thresholds: Watch times that satisfy, frozen; None: this log's own, or none where nobody's watch time is known.
        unseal: Opens sealed texts.

    Raises:
        LogError: a file cannot be read, its texts cannot (in a stage that users see), or nothing was served at this stage.
        ValueError: users see the stage, and there is no `overlap`.
    """
    lines = list(_served(files, unseal))
    ended: dict[str, Outcome] = {}
    if share > 0:
        if overlap is None:
            raise ValueError("outcomes need the overlap of two texts' results under the ranking without a rewriter")
        outcomes = find_outcomes(require_texts(read_log(list(files), unseal=unseal)), overlap=overlap, thresholds=thresholds)
        ended = dict(zip(outcomes.query_id.tolist(), outcomes.outcome.tolist(), strict=True))
    out: dict[str, list[Any]] = {name: [] for name in _SCHEMA.names}
    seen: set[str] = set()
    for line in lines:
        served, place = line.served, line.served.ramp
        if place is None or place.arm is None or (place.champion, place.share) != (champion, share) or line.query_id in seen:
            continue
        answered = served if share > 0 else served.shadow
        outcome = ended.get(line.query_id)
        if answered is None or (share > 0 and outcome is None):
            continue
        seen.add(line.query_id)
        row = {
            "user_id": line.client_id,
            "arm": place.arm if share > 0 else TREATMENT,
            "timestamp": line.seconds,
            "gave_up": outcome == Outcome.GAVE_UP,
            "changed": outcome == Outcome.CHANGED,
            "unsatisfied": outcome in (Outcome.GAVE_UP, Outcome.CHANGED),
            "error": SignalStatus.ERROR in answered.signal_status.values(),
            "neutral": not answered.used_at,
        }
        for name, value in row.items():
            out[name].append(value)
    if not out["arm"]:
        raise LogError(f"{', '.join(map(str, files))}: nothing was served at {share:.0%} of a rollout of version {champion}")
    places = [line.served.log for line in lines if line.served.log is not None]
    lost = count_lost(places)
    return StageSearches(pa.table(out, schema=_SCHEMA), lost / max(1, lost + len(places)))


def _served(files: Sequence[Path], unseal: Unseal | None) -> Iterator[ServedLine]:
    for file in files:
        for line in log_lines(file):
            try:
                yield read_served(line if unseal is None else unseal(line))
            except ValueError:
                continue  # an event, or a line cut off by a full disk
