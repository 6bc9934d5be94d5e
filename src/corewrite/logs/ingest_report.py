"""What a log was found to hold, and what to know before quoting a rate from it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from corewrite.logs.dialects import KNOWN_ACTIONS, SHOWN, parse_action
from corewrite.logs.times import iso


@dataclass(frozen=True)
class IngestReport:
    """What a log was found to hold.

    Attributes:
        files: The files read.
        lines: Lines that hold a query or an event, good or bad.
        rejected: Lines that could not be used.
        rejects_path: Where those went, None if nowhere.
        first_reject: File, line and reason of the first of them; None where there is none.
        queries: Searches kept.
        unique_queries: Distinct query texts among them.
        folded: Searches dropped since their query id stood before.
        actions: Events by action, as logged; of an older name of UBI's, the present one is what counts.
        unknown_actions: Of those, the actions that nothing reads: they only show that the user was there.
        lost: Searches that `corewrite serve` could not log, as far as the gaps in its numbering show.
        orphans: Events whose query is not in the log.
        clients: Distinct users of searches. An event counts for the user of its search: servers hash ids, an application's
            own events may have them as they are.
        largest_client_share: Share of searches, and events of known searches, of the busiest one.
        first, last: Time range, ISO 8601 in UTC.
        warnings: What to know before quoting a rate from it.
    """

    files: tuple[str, ...]
    lines: int
    rejected: int
    rejects_path: str | None
    first_reject: str | None
    queries: int
    unique_queries: int
    folded: int
    actions: dict[str, int]
    unknown_actions: dict[str, int]
    lost: int
    orphans: int
    clients: int
    largest_client_share: float
    first: str
    last: str
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The fields as a plain dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class Reject:
    """A line that could not be used.

    Attributes:
        file: Name of its file.
        line: Its number there, from 1.
        reason: Why it could not be used.
        text: Its beginning.
    """

    file: str
    line: int
    reason: str
    text: str


def build_report(
    *,
    files: Sequence[str],
    lines: int,
    rejects: Sequence[Reject],
    rejects_path: str | None,
    folded: int,
    lost: int,
    searches: Mapping[str, Sequence[Any]],
    events: Mapping[str, Sequence[Any]],
    actions: Counter[str],
) -> IngestReport:
    """The report of a log that holds at least one search.

    Args:
        files: Names of the files read.
        lines: Lines that hold a query or an event, good or bad.
        rejects: Those that could not be used.
        rejects_path: Where those went; None: nowhere.
        folded: Searches dropped since their query id stood before.
        lost: Searches that `corewrite serve` could not log.
        searches: Columns of `SEARCH_SCHEMA`, by name.
        events: Columns of `EVENT_SCHEMA`, by name.
        actions: Events by action, as logged.
    """
    owner = dict(zip(searches["query_id"], searches["user_id"], strict=True))
    named = list(zip(events["query_id"], events["user_id"], strict=True))
    clients = Counter(owner.values())
    clients.update(owner[query] for query, _ in named if query in owner)
    largest_share = clients.most_common(1)[0][1] / clients.total()
    unknown = {name: n for name, n in actions.items() if parse_action(name) not in KNOWN_ACTIONS}
    orphans = sum(query not in owner for query, _ in named)
    times = [*searches["timestamp"], *events["timestamp"]]
    warnings = [
        *_content_warnings(searches, events, actions, largest_share),
        *_action_warnings(actions, unknown),
        *_text_warnings(searches["texts"]),
        *_loss_warnings(lost, sum(bool(user) and owner.get(query, user) != user for query, user in named), orphans),
    ]
    first = rejects[0] if rejects else None
    return IngestReport(
        files=tuple(files),
        lines=lines,
        rejected=len(rejects),
        rejects_path=rejects_path,
        first_reject=None if first is None else f"{first.file}, line {first.line}: {first.reason}",
        queries=len(owner),
        unique_queries=len(set(searches["query"])),
        folded=folded,
        actions=dict(sorted(actions.items())),
        unknown_actions=dict(sorted(unknown.items())),
        lost=lost,
        orphans=orphans,
        clients=len(clients),
        largest_client_share=largest_share,
        first=iso(min(times)),
        last=iso(max(times)),
        warnings=tuple(warnings),
    )


def _content_warnings(
    searches: Mapping[str, Sequence[Any]], events: Mapping[str, Sequence[Any]], actions: Counter[str], largest_share: float
) -> Iterator[str]:
    """What the log says too much or nothing of."""
    if largest_share > 0.2:
        yield f"one client holds {largest_share:.0%} of the log's lines: rates of this log say little about people"
    if not any(events["watch_seconds"]):
        yield "no watch times: conversions, else clicks, count as satisfaction"
    if not any(searches["hit_ids"]) and not any(actions[name] for name in SHOWN):
        yield "nothing says what was displayed: D- and examination cannot be found"


def _action_warnings(actions: Counter[str], unknown: Mapping[str, int]) -> Iterator[str]:
    """Actions under older names, and those that nothing reads."""
    renamed = Counter({name: n for name, n in actions.items() if parse_action(name) != name})
    if renamed:
        listed = ", ".join(f"{n} {name!r} as {parse_action(name)!r}" for name, n in renamed.most_common())
        yield f"actions of older logs are read under their present names: {listed}"
    if unknown:
        listed = ", ".join(f"{n} {name!r}" for name, n in Counter(unknown).most_common())
        yield f"nothing is read of actions other than {', '.join(KNOWN_ACTIONS)}; there are {listed}"


def _text_warnings(kinds: Sequence[str | None]) -> Iterator[str]:
    """Searches whose texts cannot be read."""
    unreadable = sum(kind in ("hashed", "sealed") for kind in kinds)
    if unreadable:
        yield (
            f"{unreadable} of {len(kinds)} searches hold no text that can be read (log.query_text of `corewrite serve`): "
            "training, rollouts and experiments leave them out"
        )


def _loss_warnings(lost: int, of_other_clients: int, orphans: int) -> Iterator[str]:
    """Searches that were not logged, and events whose client or search does not fit."""
    if lost:
        yield f"{lost} searches were not logged, by the gaps in the servers' numbering: see corewrite_log_lines_dropped"
    if of_other_clients:
        yield (
            f"{of_other_clients} events name another client than their search does, as where one of the two is hashed: that of "
            "the search counts"
        )
    if orphans:
        yield f"{orphans} events belong to no search of the log: whose they are is not known, no client counts them"
