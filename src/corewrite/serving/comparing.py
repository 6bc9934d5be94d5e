"""Comparing what two sides, arms or versions, answer to the same search."""

import asyncio
import time
from dataclasses import dataclass

from corewrite.domain import SignalStatus
from corewrite.domain.traffic_split import STAGES_OF, Arm
from corewrite.fusion.spec import STAGES
from corewrite.logs.served import Pair
from corewrite.serving.cascade_run import CascadeRun
from corewrite.serving.ranking_thread import RankingThread
from corewrite.serving.search_result import RecallError, SearchResult
from corewrite.serving.versions import Version

_ATTEMPTS = 2


@dataclass(frozen=True, eq=False)
class ComparedSide:
    """One side of a comparison: what a version answers in an arm."""

    version: Version
    arm: Arm

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that use the rewrite."""
        return tuple(s for s in STAGES_OF[self.arm] if s in self.version.stages)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two sides whose lists are compared, control first, with their names."""

    pair: Pair
    sides: tuple[ComparedSide, ComparedSide]


async def compare_sides(
    thread: RankingThread, found: SearchResult, comparison: Comparison, depth: int
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The lists of both sides, catalogue rows, best first; None where one cannot be known.

    A function of the query, the rewrites and the sides, and of nothing that happened to the search: each side has the
    rewrite as it came in the end, whether it was in time for the answer or not, at all of its stages. Where it never came,
    or the kill switch is on, the sides have none, as they would have had. So it gives the same whichever side was
    served, and searches may be compared by it.

    Args:
        thread: Ranks.
        found: The search, that was begun with this comparison.
        comparison: What is compared.
        depth: Documents of each list.
    """
    control, treatment = [await _displayed_list(thread, found, side, depth) for side in comparison.sides]
    return None if control is None or treatment is None else (control, treatment)


async def _displayed_list(thread: RankingThread, found: SearchResult, side: ComparedSide, depth: int) -> tuple[int, ...] | None:
    """What a side displays; None where a scoring failed twice."""
    asked = found.asked.get(side.version) if side.stages else None
    texts = () if asked is None else (await asyncio.shield(asked)).texts
    attempts = _ATTEMPTS
    if side.version is found.version and (side.arm == found.arm or not (texts or found.used_at)):
        if not found.unscored and found.used_at == (side.stages if texts else ()):
            return found.ranked.rows
        # The answer was an attempt already: no list is to be known more often for being the one that was served.
        attempts -= found.unscored
    for _ in range(attempts):
        run = CascadeRun(side.version.cascades[side.arm if texts else "none"], found.query, depth)
        run.texts = texts
        try:
            await thread.run(lambda run=run: run.do(STAGES, time.monotonic()))  # type: ignore[misc]
        except RecallError:
            continue
        ranked = run.ranked()
        # What a failed scoring left of it is nothing that the client would have seen.
        if SignalStatus.ERROR not in ranked.status.values():
            return ranked.rows
    return None
