"""One search: the cascade stage by stage, with the rewrite as far as it is there."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from corewrite.domain import Query
from corewrite.domain.traffic_split import Arm
from corewrite.fusion.spec import STAGES
from corewrite.search import Trace
from corewrite.serving.admission import Admission
from corewrite.serving.cascade_run import CascadeRun
from corewrite.serving.comparing import ComparedSide, Comparison
from corewrite.serving.ranking_thread import LateError, RankingThread
from corewrite.serving.rewriting import RewriterAnswer
from corewrite.serving.search_result import Ranked, SearchResult, failed_search
from corewrite.serving.settings import Deadlines, ServeConfig
from corewrite.serving.signal_status import with_signal_status
from corewrite.serving.versions import RoutingDecision, Version

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Searcher:
    """Answers searches, each stage of the ranking with the rewrite where it came by the stage's deadline."""

    def __init__(self, config: ServeConfig, admission: Admission, thread: RankingThread) -> None:
        """Search under the deadlines of `config`.

        Args:
            config: The settings.
            admission: Gets the time that a search which arrived waited for its turn.
            thread: Ranks.
        """
        self._admission = admission
        self._deadlines, self._shadow = config.deadlines, config.shadow
        self._thread = thread

    async def search(
        self,
        chosen: RoutingDecision,
        query: Query,
        arm: Arm,
        depth: int,
        *,
        switched_on: bool,
        rewrites: int = 1,
        arrived: float | None = None,
        comparison: Comparison | None = None,
    ) -> SearchResult:
        """Answer one search.

        Args:
            chosen: Its version answers it, all of it.
            query: What is asked.
            arm: Which stages may use the rewrite.
            depth: Results.
            switched_on: False: no rewrite is asked for.
            rewrites: How many rewrites are asked for; their log factors are averaged.
            arrived: When the search came, by `time.monotonic`; the deadlines count from there. Default: now.
            comparison: What `compare_sides` is going to compare. Its rewrites are asked for at once, whichever side is served:
                so they fail and come late for both alike.

        Raises:
            RecallError: nothing could be recalled, or not within the time of the search.
        """
        began = time.monotonic() if arrived is None else arrived
        version = chosen.version
        stages = ComparedSide(version, arm).stages if switched_on and not self._shadow else ()
        sides = comparison.sides if comparison is not None else ()
        needed = [side.version for side in sides if side.stages]
        needed += [version] if stages or self._shadow else []
        patience = self._deadlines.finerank
        asked = {v: v.rewriter.ask(query, rewrites, patience) for v in dict.fromkeys(needed)} if switched_on else {}
        pending = asked[version] if stages or (switched_on and self._shadow) else None
        run = CascadeRun(version.cascades[arm if stages else "none"], query, depth)
        progress = _Progress(wait_reported=arrived is None)
        try:
            if pending is not None and stages:
                await self._staged(run, pending, stages, self._deadlines, began, progress)
            else:
                progress.seconds = await self._turn(lambda: run.do(STAGES, began), began, progress)
        except LateError:
            # The thread may still be running it: the answer is what there is now.
            run = run.cut()
        used_at, rewritten, seconds = tuple(progress.used_at), progress.rewritten, progress.seconds
        used_at = tuple(stage for stage in used_at if stage not in run.missing)
        ranked = with_signal_status(
            run.ranked(),
            version.spec,
            stages=stages,
            used_at=used_at,
            rewritten=rewritten,
            asked=pending is not None,
            missing=run.missing,
        )
        return SearchResult(
            query, version, arm, ranked, used_at, rewritten, pending, rewrites, chosen.rollout, chosen.shadow, seconds, asked
        )

    async def shadow_answer(self, found: SearchResult, depth: int) -> SearchResult | None:
        """The answer of the champion in a rollout's shadow stage, under the same deadlines; None outside of such a stage."""
        if found.shadow is None:
            return None
        chosen = RoutingDecision(found.shadow)
        try:
            return await self.search(chosen, found.query, found.arm, depth, switched_on=True, rewrites=found.rewrites)
        except Exception as error:
            version = found.shadow.champion.version
            _log.error("version %d failed in the shadow stage: %s: %s", version, type(error).__name__, error)
            return failed_search(chosen, found.query, found.arm, found.rewrites)

    async def ranked_with(self, version: Version, query: Query, texts: tuple[str, ...], depth: int) -> tuple[Trace, Ranked]:
        """The answer with given rewrites at all stages, with the trace of the last stage.

        Raises:
            ValueError: an original signal failed, or was late, so that there is nothing to explain.
        """
        run = CascadeRun(version.cascades["all_stages" if texts else "none"], query, depth)
        run.texts = texts
        try:
            await self._thread.run(lambda: run.do(STAGES, time.monotonic()), self._deadlines.search_seconds)
        except LateError:
            raise ValueError("the ranker was not ready within the time of a search (deadlines.search)") from None
        if run.trace is None:
            raise ValueError(f"the ranker failed: {run.failure}")
        return run.trace, run.ranked()

    async def _staged(
        self,
        run: CascadeRun,
        pending: "asyncio.Future[RewriterAnswer]",
        stages: tuple[str, ...],
        deadlines: Deadlines,
        began: float,
        progress: "_Progress",
    ) -> None:
        if not pending.done():
            # What needs no rewrite is done while it is waited for.
            await self._turn(run.prepare, began, progress)
        for stage in STAGES:
            if stage in stages and progress.rewritten is None:
                left = began + getattr(deadlines, stage) / 1000 - time.monotonic()
                if not pending.done() and left > 0:
                    await asyncio.wait({pending}, timeout=left)
                if pending.done():
                    progress.rewritten = pending.result()
                    run.texts = progress.rewritten.texts
            if stage in stages and run.texts:
                progress.used_at.append(stage)
            # Where nothing is waited for any more the rest is done in one go.
            rest = (stage,) if progress.rewritten is None else STAGES[STAGES.index(stage) :]
            progress.used_at += [s for s in rest[1:] if s in stages and run.texts]
            progress.seconds |= await self._turn(lambda rest=rest: run.do(rest, began), began, progress)  # type: ignore[misc]
            if progress.rewritten is not None:
                break

    async def _turn(self, call: Callable[[], T], began: float, progress: "_Progress") -> T:
        """What `call` returns, run by the thread in the time that the search has left.

        The first call of a search reports to admission how long the search has waited: for the thread, and for the event
        loop before and after.

        Raises:
            LateError: the search's time was over before.
        """
        worked = 0.0

        def timed() -> T:
            nonlocal worked
            at = time.monotonic()
            try:
                return call()
            finally:
                worked = time.monotonic() - at

        if progress.wait_reported:
            return await self._thread.run(call, self._left(began))
        try:
            return await self._thread.run(timed, self._left(began))
        finally:
            progress.wait_reported, now = True, time.monotonic()
            self._admission.began(now - began - worked, now)

    def _left(self, began: float) -> float:
        """Seconds of a search's time that are left."""
        return began + self._deadlines.search_seconds - time.monotonic()


@dataclass(eq=False)
class _Progress:
    """How far a search has come in the stages.

    Attributes:
        used_at: Stages that were given the rewrite.
        rewritten: The rewriter's answer, once it is there.
        seconds: Time from arrival to the end of each stage.
        wait_reported: Whether admission knows how long the search waited for its turn, or need not know.
    """

    used_at: list[str] = field(default_factory=list)
    rewritten: RewriterAnswer | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    wait_reported: bool = False
