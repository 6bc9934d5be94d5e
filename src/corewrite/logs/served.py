"""The line that `corewrite serve` writes of a search, and reading it back: the one codec of it, both ways.

A line is a UBI 1.3.0 query. What UBI has no field for lies under `query_attributes`: for every reader `arm`, `bucket` and
`impacted`, and under `served` what `corewrite` itself needs to replay the search and to read experiments from it.
`served.format` numbers its form; lines of earlier forms are read as well, as if written today:

- 1, which stands in no line: it knew neither `bucket` nor `pair`, and `impacted` compared other lists than today.
- 2: the arms "finerank_only" and "all_stages" were called "launch_1" and "launch_2".
- 3: today's.

Null is "not known", in every field, and never "no".
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from corewrite.domain.traffic_split import NUM_BUCKETS, current_arm

FORMAT: Final = 3
_ARMS_RENAMED: Final = 3
"""The first format with today's names of arms."""
Texts = Literal["plain", "hashed", "sealed"]
"""How the users' texts stand in a line: as typed, as keyed hashes, or sealed for the cycle alone."""
Pair = tuple[str, str] | tuple[int, int]
"""What is compared, control first: two arms, or two versions of a rollout."""
_KINDS: Final[tuple[Texts, ...]] = get_args(Texts)


class _Record(BaseModel):
    # Strict: a number in quotes is another server's mistake. Fields of a later version are passed over.
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class RolloutPlace(_Record):
    """Where a request stands in the rollout under way.

    Attributes:
        arm: "treatment" (the champion being rolled out) or "control" (the version before); None: in no arm, and answered with
            the version before, as the holdback and requests without a client id are.
        champion: Version being rolled out.
        share: Share of clients who get it.
    """

    arm: Literal["control", "treatment"] | None
    champion: int
    share: float


class LogPlace(_Record):
    """Where a line belongs, so that lines that were lost can be counted.

    Attributes:
        writer: Names the process that wrote it, anew with every start.
        sequence: Number of the search among those that the process was to log, from 0, also of those whose line was dropped.
    """

    writer: str
    sequence: int = Field(ge=0)


class Answer(_Record):
    """The version that answered, and the outcome of the rewrite.

    Attributes:
        version: Of the champion in the registry.
        policy, relevance, spec: Hashes of its artifacts.
        spec_hash: Hash of the fusion spec itself.
        signal_status: `SignalStatus` by `stage.signal`; `stage.original` only where a stage itself failed.
        rewrite: Outcome of the rewrite, in a word.
        rewrites: The rewrites that were used, at whatever stage.
        used_at: The stages that used them.
    """

    version: int
    policy: str
    relevance: str
    spec: str
    spec_hash: str
    signal_status: dict[str, str]
    rewrite: str
    rewrites: tuple[str, ...]
    used_at: tuple[str, ...]


class ShadowAnswer(Answer):
    """An answer of the champion in the shadow stage of a rollout, computed and not shown.

    Attributes:
        hit_ids: Documents, best first.
    """

    hit_ids: tuple[str, ...]


class ServedSearch(Answer):
    """`query_attributes.served`: what was displayed, by what, and what would have been.

    Attributes:
        format: Of this record.
        texts: How `user_query`, contexts and rewrites of the line stand there.
        context_queries: Earlier queries of the session, oldest first.
        ramp: Place in the rollout; None where none was under way.
        backends: What scored and recalled; None in lines of servers that knew the embedded ones only.
        factors: Of each displayed document by `original.NAME` and `rewrite.NAME`; the product is the score.
        scores: Of each displayed document.
        pair: What was compared for this client; None where nothing was.
        lists: Documents of both sides of `pair`, as many as the search asked for, with the rewrite as it came in the end, in
            time or not; None where a side could not be computed.
        shadow: In the shadow stage of a rollout, the champion's answer where it was computed.
        log: The line's place in the log; None in format 1.
    """

    format: Literal[1, 2, 3] = FORMAT
    texts: Texts
    context_queries: tuple[str, ...]
    ramp: RolloutPlace | None
    backends: dict[str, JsonValue] | None
    factors: dict[str, tuple[float, ...]]
    scores: tuple[float, ...]
    pair: Pair | None
    lists: tuple[tuple[str, ...], tuple[str, ...]] | None
    shadow: ShadowAnswer | None
    log: LogPlace | None


class Attributes(_Record):
    """`query_attributes`.

    Attributes:
        session_id: A hash of it; empty where there is none.
        context_titles: Titles watched or clicked before, oldest first.
        locale: BCP-47 language tag, empty where unknown.
        arm: Arm of the client, as served.
        bucket: Of the client, see `corewrite.domain.traffic_split`; None in format 1.
        impacted: Whether the lists of `served.pair` differ; None where that is not known.
        served: The rest.
    """

    session_id: str
    context_titles: tuple[str, ...]
    locale: str
    arm: str
    bucket: int | None = Field(default=None, ge=0, lt=NUM_BUCKETS)
    impacted: bool | None = None
    served: ServedSearch


class ServedLine(_Record):
    """A search as it was served: the whole line.

    Attributes:
        application: Always "corewrite".
        query_id: Of the search.
        client_id: A keyed hash of the client's id.
        user_query: What was typed, as `served.texts` says.
        timestamp: ISO 8601, UTC.
        query_response_id: The search's id again.
        query_response_hit_ids: Displayed documents, best first.
        query_attributes: All else.
    """

    application: str
    query_id: str
    client_id: str
    user_query: str
    timestamp: str
    query_response_id: str
    query_response_hit_ids: tuple[str, ...]
    query_attributes: Attributes

    @model_validator(mode="after")
    def _aligned(self) -> "ServedLine":
        columns = {**self.served.factors, "scores": self.served.scores}
        if odd := [name for name, values in columns.items() if len(values) != len(self.query_response_hit_ids)]:
            raise ValueError(f"{odd[0]} has another length than query_response_hit_ids")
        return self

    @property
    def seconds(self) -> float:
        """When it was typed, seconds since the epoch."""
        return datetime.fromisoformat(self.timestamp).timestamp()

    @property
    def served(self) -> ServedSearch:
        """What UBI has no field for."""
        return self.query_attributes.served

    def encoded(self) -> bytes:
        """The line, with its end."""
        # Texts with half characters cannot come in, but a log must not depend on that.
        text = json.dumps(self.model_dump(), separators=(",", ":"), ensure_ascii=False)
        return text.encode("utf-8", "replace") + b"\n"


def read_served(line: bytes) -> ServedLine:
    """A line of any format as a record.

    Raises:
        ValueError: it is no search that `corewrite serve` wrote, or a later format's; the message says why.
    """
    try:
        value = json.loads(line)
        served = value["query_attributes"]["served"]
        found = served.get("format", 1)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError("no search of `corewrite serve`: it has no query_attributes.served") from None
    if found not in range(1, FORMAT + 1) or isinstance(found, bool):
        raise ValueError(f"served.format is {found!r:.20}, known up to {FORMAT}: read it with the version that wrote it")
    if found == 1:
        missing = dict.fromkeys(("ramp", "backends", "pair", "lists", "shadow", "log"))
        served = {**missing, **served, "format": 1, "texts": parse_texts(served)}
        # It compared what was displayed with what had no rewriter, which is no pair of arms.
        attributes = {**value["query_attributes"], "served": served, "impacted": None}
        line = json.dumps({**value, "query_attributes": attributes}).encode()
    try:
        record = ServedLine.model_validate_json(line)
    except ValidationError as error:
        raise ValueError(_first(error)) from error
    return record if found >= _ARMS_RENAMED else _with_current_arms(record)


def _with_current_arms(line: ServedLine) -> ServedLine:
    attributes = line.query_attributes
    served = attributes.served.model_copy(update={"pair": _current_pair(attributes.served.pair)})
    update = {"arm": current_arm(attributes.arm), "served": served}
    return line.model_copy(update={"query_attributes": attributes.model_copy(update=update)})


def _current_pair(pair: Pair | None) -> Pair | None:
    if pair is None or not isinstance(pair[0], str) or not isinstance(pair[1], str):
        return pair  # of versions
    return current_arm(pair[0]), current_arm(pair[1])


class Marks(_Record):
    """What a reader of searches wants of `served`, without the rest.

    Attributes:
        format, texts, pair, log, used_at: See `ServedSearch`; `used_at` is None where the line does not say it.
    """

    format: int
    texts: Texts
    used_at: tuple[str, ...] | None
    pair: Pair | None
    log: LogPlace | None

    def current_arm(self, name: str) -> str:
        """Name today of an arm that the line names."""
        return name if self.format >= _ARMS_RENAMED else current_arm(name)


def parse_marks(served: Mapping[str, Any]) -> Marks:
    """The marks of a line of any format.

    Args:
        served: The line's `query_attributes.served`.

    Raises:
        ValueError: one is not what it should be.
    """
    found = {"format": served.get("format", 1), "texts": parse_texts(served), "log": served.get("log")}
    lists = {name: served.get(name) for name in ("pair", "used_at")}
    try:
        marks = Marks.model_validate({**found, **{n: tuple(v) if isinstance(v, list) else v for n, v in lists.items()}})
    except ValidationError as error:
        raise ValueError(f"served.{_first(error)}") from error
    return marks if marks.format >= _ARMS_RENAMED else marks.model_copy(update={"pair": _current_pair(marks.pair)})


def _first(error: ValidationError) -> str:
    found = error.errors()[0]
    return f"{'.'.join(map(str, found['loc'])) or 'line'}: {found['msg']}"


def count_lost(places: Iterable[LogPlace]) -> int:
    """How many lines are missing: the gaps in each writer's numbers. What it lost before its first line and after its last
    leaves none."""
    numbers = defaultdict(set)
    for place in places:
        numbers[place.writer].add(place.sequence)
    return sum(max(found) - min(found) + 1 - len(found) for found in numbers.values())


def parse_texts(served: Mapping[str, Any]) -> Texts:
    """How the texts of a line stand there, in any format.

    Args:
        served: The line's `query_attributes.served`.

    Raises:
        ValueError: it does not say so.
    """
    found = served.get("texts")
    if isinstance(found, bool):  # format 1
        return "plain" if found else "hashed"
    kind = next((k for k in _KINDS if k == found), None)
    if kind is None:
        raise ValueError(f"served.texts {found!r:.50} is none of {', '.join(_KINDS)}")
    return kind
