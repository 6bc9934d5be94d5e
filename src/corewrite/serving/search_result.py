"""What a search was answered with."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from corewrite.domain import Query, SignalStatus
from corewrite.domain.traffic_split import Arm
from corewrite.logs.served import RolloutPlace
from corewrite.serving.rewriting import RewriterAnswer
from corewrite.serving.versions import RoutingDecision, Version


class RecallError(RuntimeError):
    """No candidates: the search engine failed, or was late, so that there is nothing to answer with."""


@dataclass(frozen=True)
class Ranked:
    """A ranked list.

    Attributes:
        rows: Catalogue rows, best first.
        scores: Their scores under the last stage that worked.
        factors: Of each row by `original.NAME` and `rewrite.NAME`; the product is the score.
        status: By `stage.signal` of the rewrite; `stage.original` stands there only where the stage itself failed.
    """

    rows: tuple[int, ...]
    scores: tuple[float, ...]
    factors: tuple[dict[str, float], ...]
    status: dict[str, SignalStatus]


@dataclass(frozen=True, eq=False)
class SearchResult:
    """A search that was answered.

    Attributes:
        query: What was asked.
        version: The version that answered.
        arm: Of the client.
        ranked: The ranked list.
        used_at: The stages that had the rewrite.
        rewritten: The rewriter's answer, where it came in time for some stage; None where it was not asked or was late.
        pending: The rewriter's answer, also when it came too late for this search; None where it was not to be used.
        rewrites: How many rewrites were asked for.
        rollout: The client's place in the rollout; None where none is under way.
        shadow: The version whose answer is computed and logged, not shown; None where there is none.
        stage_seconds: Time from arrival to the end of each stage, seconds.
        asked: The rewriters' answers by version, also of those that only `compare_sides` will use.
    """

    query: Query
    version: Version
    arm: Arm
    ranked: Ranked
    used_at: tuple[str, ...]
    rewritten: RewriterAnswer | None
    pending: "asyncio.Future[RewriterAnswer] | None"
    rewrites: int
    rollout: RolloutPlace | None = None
    shadow: Version | None = None
    stage_seconds: dict[str, float] = field(default_factory=dict)
    asked: "Mapping[Version, asyncio.Future[RewriterAnswer]]" = field(default_factory=dict)

    @property
    def unscored(self) -> bool:
        """Whether a stage was answered by the one before, or without a rewrite that could not be scored."""
        return any(
            state == SignalStatus.ERROR and (name.endswith(".original") or name.partition(".")[0] in self.used_at)
            for name, state in self.ranked.status.items()
        )

    @property
    def reason(self) -> str:
        """Outcome of the rewrite: `off`, `late`, or the rewriter's reason."""
        if self.pending is None:
            return "off"
        return "late" if self.rewritten is None else self.rewritten.reason

    @property
    def texts(self) -> tuple[str, ...]:
        """The rewrites that were used, at whatever stage."""
        return self.rewritten.texts if self.rewritten is not None and self.used_at else ()


def failed_search(chosen: RoutingDecision, query: Query, arm: Arm, rewrites: int) -> SearchResult:
    """A search without an answer: recall itself failed."""
    nothing = Ranked((), (), (), {"recall.original": SignalStatus.ERROR})
    return SearchResult(query, chosen.version, arm, nothing, (), None, None, rewrites, chosen.rollout, chosen.shadow)
