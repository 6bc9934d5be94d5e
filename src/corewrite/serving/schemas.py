"""Requests and responses as they go over the wire."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from corewrite.domain import Query, query_from_json
from corewrite.serving.cache import MAX_REWRITES

Text = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]
"""A query or a title: something must stand in it."""
Whole = Annotated[int, BeforeValidator(lambda v: int(v) if isinstance(v, float) and v.is_integer() else v)]
"""To JSON Schema 3.0 is an integer."""
Locale = Annotated[
    str,
    StringConstraints(
        max_length=35,
        # Language, script, region, variants, extensions (RFC 5646, section 2.1); many systems write "_" for "-".
        pattern=r"^([A-Za-z]{2,3}([-_][A-Za-z]{3}){0,3}([-_][A-Za-z]{4})?([-_]([A-Za-z]{2}|[0-9]{3}))?"
        r"([-_]([A-Za-z0-9]{5,8}|[0-9][A-Za-z0-9]{3}))*([-_][0-9A-WY-Za-wy-z]([-_][A-Za-z0-9]{2,8})+)*)?$",
    ),
]
"""It is logged as it is, so nothing else may stand in it."""
Name = Annotated[str, StringConstraints(max_length=128)]
_ARM = "holdback, none, launch_1 (finerank_only in the settings) or launch_2 (all_stages)."
_CLIENT = "Who asks; chooses the arm, and the version while a rollout is under way."
_CONTEXT: dict[str, Any] = {"queries": ["blackpink"], "titles": ["BLACKPINK dance practice"], "locale": "en"}


class _Strict(BaseModel):
    # Strict: a number is no text, and a name that is not known is an error and not silence.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class WireContext(_Strict):
    """What the session held before the query, oldest first."""

    queries: list[Text] = Field(default=[], description="Earlier queries.")
    titles: list[Text] = Field(default=[], description="Titles watched or clicked.")
    locale: Locale = Field(default="", description="BCP 47 language tag, without private use (x-...).")


class WireQuery(_Strict):
    """A query with its context."""

    query: Text = Field(description="As typed.", examples=["bts"])
    context: WireContext = WireContext()

    def asked(self) -> Query:
        """As the rest of the system knows it."""
        return query_from_json(self.model_dump(include={"query", "context"}))


class RewriteRequest(WireQuery):
    """One query to rewrite."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"query": "bts", "context": _CONTEXT}]})

    client_id: Name = Field(default="", description=_CLIENT)
    rewrites: Whole = Field(default=1, ge=1, le=MAX_REWRITES, description="Rewrites wanted at most.")
    deadline_ms: float = Field(default=1_000, gt=0, le=30_000, description="How long to wait.")


class RewriteBatch(_Strict):
    """Several queries to rewrite."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"batch": [{"query": "bts"}, {"query": "rice"}]}]})

    batch: list[WireQuery] = Field(min_length=1, description="The queries.")
    client_id: Name = Field(default="", description=_CLIENT)
    rewrites: Whole = Field(default=1, ge=1, le=MAX_REWRITES, description="Rewrites wanted of each at most.")
    deadline_ms: float = Field(default=1_000, gt=0, le=30_000, description="How long to wait for all.")


class SearchRequest(WireQuery):
    """A search."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "bts", "context": _CONTEXT, "client_id": "c-17", "session_id": "s-4"}]}
    )

    client_id: Name = Field(
        default="", description="Who asks; chooses the arm, and the version in a rollout. Only its hash is logged."
    )
    session_id: Name = Field(default="", description="Only its hash is logged.")
    depth: Whole = Field(default=10, ge=1, description="Results wanted.")
    rewrites: Whole = Field(default=1, ge=1, le=MAX_REWRITES, description="Rewrites used; their log factors are averaged.")
    explain: bool = Field(default=False, description="Whether every factor of every result is given.")


class ExplainRequest(WireQuery):
    """A search to explain."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"query": "bts", "rewrite": "bts dance practice", "depth": 5}]})

    rewrite: Text | None = Field(default=None, description="Used in the place of the policy's.")
    client_id: Name = Field(default="", description="Who asks; chooses the version while a rollout is under way.")
    depth: Whole = Field(default=10, ge=1, description="Results wanted.")
    deadline_ms: float = Field(default=1_000, gt=0, le=30_000, description="How long to wait for the rewrite.")


class EventBatch(_Strict):
    """What users did, UBI 1.3.0 events."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "events": [
                        {
                            "action_name": "watch",
                            "query_id": "4f7a...",
                            "client_id": "c-17",
                            "timestamp": "2026-11-26T09:00:07Z",
                            "event_attributes": {
                                "object": {"object_id": "v42"},
                                "position": {"ordinal": 1},
                                "watch_seconds": 31.5,
                                "duration_seconds": 60.0,
                            },
                        }
                    ]
                }
            ]
        }
    )

    events: list[dict[str, Any]] = Field(min_length=1, description="Each as the UBI event schema says.")


class RejectedEvent(BaseModel):
    """An event that was not taken."""

    index: int = Field(description="Its place in the request, from 0.")
    problem: str


class EventsResponse(BaseModel):
    """Which events were taken, and which were rejected."""

    accepted: int = Field(description="Events in the log.")
    rejected: list[RejectedEvent] = Field(description="Events that cannot be used; the others are in the log.")


class _Answered(BaseModel):
    """What answered."""

    version: int = Field(description="Version of the champion in the registry.")
    policy: str = Field(description="Content hash of the rewriter.")
    relevance: str = Field(description="Content hash of the relevance model.")
    spec: str = Field(description="Content hash of the fusion spec.")


class WireRewritten(BaseModel):
    """The result of one query."""

    rewrites: list[str] = Field(description="Best first; empty where the query stands.")
    status: str = Field(description="ok, neutral, timeout, error or off.")
    reason: str = Field(description="In a word: ok, nothing, blocked, filtered, late, overloaded, failed, arm, shadow, ...")


class RewriteResponse(_Answered):
    """One entry per query, in order."""

    arm: str | None = Field(description=_ARM + " Null without a client_id.")
    bucket: int | None = Field(description="Group of the client, 0 to 9,999, for your log; null without a client_id.")
    results: list[WireRewritten]


class Result(BaseModel):
    """One document."""

    rank: int
    id: str
    title: str
    score: float
    factors: dict[str, float] | None = Field(default=None, description="Their product is the score; only with explain.")


class SearchResponse(_Answered):
    """An answer."""

    query_id: str = Field(description="For the events that are logged about it.")
    arm: str = Field(description=_ARM)
    ramp: str | None = Field(description="treatment or control while a rollout is under way.")
    rewrites: list[str] = Field(description="What was used.")
    rewrite_status: str = Field(description="Outcome of the rewrite, in a word.")
    signal_status: dict[str, str] = Field(description="ok, neutral, timeout, error or off, by stage and signal.")
    results: list[Result]


class ExplainedResult(Result):
    """One document with its place without the rewrite."""

    rank_without: int | None
    rawrank_factors: dict[str, float]


class ExplainResponse(_Answered):
    """What the rewrite did to a search."""

    query: str
    rewrites: list[str]
    rewrite_status: str
    signal_status: dict[str, str]
    candidates: dict[str, int]
    results: list[ExplainedResult]
    dropped: list[dict[str, Any]]


class Switch(BaseModel):
    """The kill switch."""

    killed: bool = Field(description="Whether rewrites are off.")
    persisted: bool = Field(description="Whether the file, which the other workers read, could be changed.")


class Problem(BaseModel):
    """An error, RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    errors: list[dict[str, Any]] | None = None
