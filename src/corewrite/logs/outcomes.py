"""Sessions, reformulation chains and how every search ended."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rapidfuzz import fuzz

from corewrite.domain import Outcome, normalise
from corewrite.logs.dialects import CHOSEN, CONVERTED, SHOWN
from corewrite.logs.tables import SearchLog

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

SESSION_GAP = 30 * 60.0
CHAIN_GAP = 5 * 60.0
SIMILAR = 70.0
OVERLAPPING = 0.2
BY_DISPLAYED = {b"same_intent": b"displayed lists"}
Overlap = Callable[[Sequence[tuple[str, str]]], FloatArray]


@dataclass(frozen=True, eq=False)
class SatisfactionThresholds:
    """Watch time that satisfies, by duration bucket: raw watch time would favour long videos.

    Attributes:
        edges: Upper edges of the duration buckets but the last, seconds, ascending.
        seconds: Watch time from which a clicked document of each bucket satisfies, seconds, len(edges) + 1.
    """

    edges: FloatArray
    seconds: FloatArray

    def satisfied(self, watch: FloatArray, duration: FloatArray) -> BoolArray:
        """Whether watch times of videos of these durations satisfy; NaN never does."""
        return np.asarray(watch >= self.seconds[np.searchsorted(self.edges, duration)])

    @classmethod
    def fit(cls, watch: FloatArray, duration: FloatArray, quantile: float = 0.5) -> "SatisfactionThresholds":
        """Thresholds at a quantile of the watch times of each decile of duration."""
        edges = np.unique(np.quantile(duration, np.arange(1, 10) / 10))
        bucket = np.searchsorted(edges, duration)
        overall = float(np.quantile(watch, quantile))
        seconds = [
            float(np.quantile(watch[bucket == b], quantile)) if (bucket == b).any() else overall for b in range(len(edges) + 1)
        ]
        return cls(edges, np.array(seconds))


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Every search with its place in session and chain, in the order of (user, time); arrays are aligned.

    Attributes:
        query_id, user_id, session_id, query, locale, arm: Names and texts, object arrays.
        timestamp: Seconds since the epoch.
        bucket: Of the user, as logged, int or None, object array; see `corewrite.domain.traffic_split`.
        impacted: Whether the lists of the arms under comparison differ, as logged, bool or None, object array: not logged is
            not false.
        pair: The two arms, or versions of a rollout, that `impacted` compares, control first; None where not logged.
        rewritten: Whether some stage used a rewrite, bool or None where not logged, object array.
        hit_ids: What was displayed, a tuple of ids each.
        context_queries, context_titles: What came before in the session, tuples, oldest first.
        chain: Number of the reformulation chain.
        outcome: `Outcome` values, object array.
        plain_changed: Whether any different query followed in the session within 30 minutes; NaN where censored.
        clicked: Documents clicked, a dict of id to watch seconds (NaN unknown) each.
        satisfied: Documents that satisfied, a tuple of ids each.
        watch_seconds: Total watch time.
        rule: How satisfaction was derived: `watch`, `conversion` or `click`.
        thresholds: For the rule `watch`, else None.
        by_displayed: Whether same intent was derived from the displayed lists, beside the texts: not between arms that display
            different ones.
    """

    query_id: npt.NDArray[np.object_]
    user_id: npt.NDArray[np.object_]
    session_id: npt.NDArray[np.object_]
    query: npt.NDArray[np.object_]
    locale: npt.NDArray[np.object_]
    arm: npt.NDArray[np.object_]
    timestamp: FloatArray
    bucket: npt.NDArray[np.object_]
    impacted: npt.NDArray[np.object_]
    pair: list[tuple[str, ...] | None]
    rewritten: npt.NDArray[np.object_]
    hit_ids: list[tuple[str, ...]]
    context_queries: list[tuple[str, ...]]
    context_titles: list[tuple[str, ...]]
    chain: npt.NDArray[np.int64]
    outcome: npt.NDArray[np.object_]
    plain_changed: FloatArray
    clicked: list[dict[str, float]]
    satisfied: list[tuple[str, ...]]
    watch_seconds: FloatArray
    rule: str
    thresholds: SatisfactionThresholds | None
    by_displayed: bool

    def __len__(self) -> int:
        return len(self.query_id)

    def to_arrow(self) -> pa.Table:
        """One row per search, what an A/B reader needs; null where something was not logged.

        Where same intent was derived from the displayed lists, the metadata of its schema say so (`BY_DISPLAYED`).
        """
        table = pa.table(
            {
                "query_id": pa.array(self.query_id, pa.string()),
                "user_id": pa.array(self.user_id, pa.string()),
                "session_id": pa.array(self.session_id, pa.string()),
                "timestamp": self.timestamp,
                "query": pa.array(self.query, pa.string()),
                "outcome": pa.array([str(o) for o in self.outcome], pa.string()),
                "plain_changed": self.plain_changed,
                "watch_seconds": self.watch_seconds,
                "clicks": np.array([len(c) for c in self.clicked], np.int64),
                "arm": pa.array(self.arm, pa.string()),
                "bucket": pa.array(self.bucket, pa.int32()),
                "impacted": pa.array(self.impacted, pa.bool_()),
                "pair": pa.array(self.pair, pa.list_(pa.string())),
                "rewritten": pa.array(self.rewritten, pa.bool_()),
            }
        )
        return table.replace_schema_metadata(BY_DISPLAYED) if self.by_displayed else table

    def unknown(self) -> str | None:
        """Why it is unknown how searches ended; None where it is known."""
        if not (self.outcome != Outcome.CENSORED).any():
            return (
                f"all {len(self)} searches came within {CHAIN_GAP / 60:.0f} minutes of the log's end, so none has ended: "
                "bring a longer log"
            )
        if not any(self.clicked):
            return (
                f"no search has a {', '.join(CHOSEN[:-1])} or {CHOSEN[-1]} event that names a document "
                "(event_attributes.object.object_id): bring the events beside the queries"
            )
        return None

    @property
    def num_censored(self) -> int:
        """How many searches came so late in the log that their users may yet go on."""
        return int((self.outcome == Outcome.CENSORED).sum())

    def shares(self) -> dict[str, float]:
        """Share of each outcome among searches that are not censored."""
        ended = self.outcome[self.outcome != Outcome.CENSORED]
        return {str(o): float((ended == o).mean()) if len(ended) else float("nan") for o in Outcome if o != Outcome.CENSORED}


def find_outcomes(
    log: SearchLog, *, overlap: Overlap | None = None, thresholds: SatisfactionThresholds | None = None, quantile: float = 0.5
) -> Outcomes:
    """Find sessions, chains and outcomes.

    Two successive queries of a user have the same intent where they come within 5 minutes of the last action and their
    texts are similar (token-set ratio of at least 70 of 100) or their top-50 lists overlap by at least 0.2. A satisfied
    search ends its chain: what follows is not a repair.

    Args:
        log: The log.
        overlap: Share of the top 50 under the original-only ranking that two texts have in common; None: displayed lists.
        thresholds: Satisfaction frozen on an earlier window; None: fitted on this log.
        quantile: Of watch times, for fitting.
    """
    table = _ordered(log)
    n = table.num_rows
    columns = {name: table[name].to_pylist() for name in table.column_names}
    user = np.array(columns["user_id"], object)
    time = np.array(columns["timestamp"], float)
    last_action = np.array(columns["last_action"], float)
    query = np.array(columns["query"], object)
    clicked, satisfied, rule, thresholds = _satisfaction(log, columns["query_id"], thresholds, quantile)
    good = np.array([bool(s) for s in satisfied])

    follows = np.r_[user[1:] == user[:-1], False] if n else np.zeros(0, np.bool_)
    gap = np.r_[time[1:], np.inf] - last_action
    session = _sessions(np.array(columns["session_id"], object), user, follows, np.r_[time[1:], np.inf] - time)
    near = follows & (gap <= CHAIN_GAP)
    same = np.zeros(n, np.bool_)
    at = np.flatnonzero(near)
    hits = [tuple(dict.fromkeys(h or ())) for h in columns["hit_ids"]]
    same[at] = _same_intent([(query[i], query[i + 1]) for i in at], [(hits[i], hits[i + 1]) for i in at], overlap)
    chain = np.cumsum(np.r_[True, ~(same & ~good)[:-1]]) - 1 if n else np.zeros(0, np.int64)

    different = np.array([normalise(a) != normalise(b) for a, b in zip(query[:-1], query[1:], strict=True)] + [False])[:n]
    end = max([*time, *last_action]) if n else 0.0
    outcome = np.full(n, Outcome.GAVE_UP, object)
    outcome[same & different] = Outcome.CHANGED
    outcome[good] = Outcome.SATISFIED
    # Searches of the last minutes are censored whatever their outcome: to keep only those already decided would bias the
    # rates. So is an earlier one that was still going on, of which what came next is not known.
    undecided = ~good & ~(same & different)
    outcome[(end - time < CHAIN_GAP) | (undecided & (end - last_action < CHAIN_GAP))] = Outcome.CENSORED
    later = follows & np.r_[session[1:] == session[:-1], False]
    plain = np.where(later & different & (gap <= SESSION_GAP), 1.0, 0.0)
    plain[(end - time < SESSION_GAP) | ((plain == 0) & (end - last_action < SESSION_GAP))] = np.nan

    context: list[tuple[str, ...]] = []
    for i in range(n):
        earlier = context[-1] + (query[i - 1],) if i and user[i] == user[i - 1] and session[i] == session[i - 1] else ()
        context.append(earlier[-5:])
    return Outcomes(
        query_id=np.array(columns["query_id"], object),
        user_id=user,
        session_id=session,
        query=query,
        locale=np.array(columns["locale"], object),
        arm=np.array(columns["arm"], object),
        timestamp=time,
        bucket=np.array(columns["bucket"], object),
        impacted=np.array(columns["impacted"], object),
        pair=[None if p is None else tuple(p) for p in columns["pair"]],
        rewritten=np.array(columns["rewritten"], object),
        hit_ids=hits,
        context_queries=context,
        context_titles=[tuple(t or ()) for t in columns["context_titles"]],
        chain=chain,
        outcome=outcome,
        plain_changed=plain,
        clicked=clicked,
        satisfied=satisfied,
        watch_seconds=np.array([float(np.nansum([*c.values(), 0.0])) for c in clicked]),
        rule=rule,
        thresholds=thresholds,
        by_displayed=overlap is None,
    )


def _ordered(log: SearchLog) -> pa.Table:
    """Searches in the order of (user, time, line) with the time of their last action and what was displayed."""
    import ibis  # imported where it is used: a server starts without it

    events = log.events
    actions = events.group_by("query_id").aggregate(last_event=events.timestamp.max())
    shown = events.filter(events.action.isin(SHOWN) & (events.document_id != ""))
    shown = shown.group_by("query_id").aggregate(seen_ids=shown.document_id.collect(order_by=shown.position))
    table = log.searches.left_join(actions, "query_id").drop("query_id_right")
    table = table.left_join(shown, "query_id").drop("query_id_right")
    has_hits = table.hit_ids.length() > 0
    table = table.mutate(
        last_action=ibis.greatest(table.timestamp, ibis.coalesce(table.last_event, table.timestamp)),
        hit_ids=ibis.ifelse(has_hits, table.hit_ids, table.seen_ids),
    )
    return table.order_by(["user_id", "timestamp", "line"]).to_pyarrow()


def _satisfaction(
    log: SearchLog, query_ids: Sequence[str], thresholds: SatisfactionThresholds | None, quantile: float
) -> tuple[list[dict[str, float]], list[tuple[str, ...]], str, SatisfactionThresholds | None]:
    """Per search what was clicked (id to watch seconds) and what satisfied, the rule and its thresholds."""
    e = log.events
    e = e.filter((e.document_id != "") & e.action.isin(CHOSEN))
    grouped = e.group_by(["query_id", "document_id"]).aggregate(
        watch=e.watch_seconds.max(),
        duration=e.duration_seconds.max(),
        converted=e.action.isin(CONVERTED).any(),
        at=e.timestamp.min(),
    )
    table = grouped.order_by(["query_id", "at", "document_id"]).to_pyarrow()
    watch = np.array(table["watch"].to_pylist(), float)
    duration = np.array(table["duration"].to_pylist(), float)
    converted = np.array(table["converted"].to_pylist(), np.bool_)
    known = np.isfinite(watch) & np.isfinite(duration)
    if known.any():
        rule = "watch"
        thresholds = thresholds or SatisfactionThresholds.fit(watch[known], duration[known], quantile)
        good = np.zeros(len(watch), np.bool_)
        good[known] = thresholds.satisfied(watch[known], duration[known])
    elif converted.any():
        rule, good, thresholds = "conversion", converted, None
    else:
        rule, good, thresholds = "click", np.ones(len(watch), np.bool_), None
    place = {q: i for i, q in enumerate(query_ids)}
    clicked: list[dict[str, float]] = [{} for _ in query_ids]
    satisfied: list[tuple[str, ...]] = [() for _ in query_ids]
    for query_id, document, seconds, ok in zip(
        table["query_id"].to_pylist(), table["document_id"].to_pylist(), watch, good, strict=True
    ):
        if query_id in place:
            clicked[place[query_id]][document] = float(seconds)
            if ok:
                satisfied[place[query_id]] += (document,)
    return clicked, satisfied, rule, thresholds


def _sessions(
    logged: npt.NDArray[np.object_], user: npt.NDArray[np.object_], follows: BoolArray, gap: FloatArray
) -> npt.NDArray[np.object_]:
    """The logged session, or where none is, a number by user and 30-minute gaps."""
    goes_on = np.r_[False, (follows & (gap <= SESSION_GAP))[:-1]] if len(user) else np.zeros(0, np.bool_)
    number = np.cumsum(~goes_on)
    return np.array([s or f"{u}#{k}" for s, u, k in zip(logged, user, number, strict=True)], object)


def _same_intent(
    pairs: list[tuple[str, str]], hits: list[tuple[tuple[str, ...], tuple[str, ...]]], overlap: Overlap | None
) -> BoolArray:
    known: dict[tuple[str, str], bool] = {}
    for a, b in pairs:
        if (a, b) not in known:
            known[a, b] = fuzz.token_set_ratio(normalise(a), normalise(b)) >= SIMILAR
    same = np.array([known[p] for p in pairs], np.bool_)
    open_ = [p for p, s in known.items() if not s]
    if overlap is not None and open_:
        common = dict(zip(open_, overlap(open_), strict=True))
        return same | np.array([common.get(p, 1.0) >= OVERLAPPING for p in pairs], np.bool_)
    shared = [len(set(a) & set(b)) / max(1, min(len(a), len(b))) if a and b else 0.0 for a, b in hits]
    return same | (np.array(shared) >= OVERLAPPING)
