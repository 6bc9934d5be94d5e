"""One search: the arm of its client, the cascade stage by stage with the rewrite as far as it is there, the other answer."""

import asyncio
import copy
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from corewrite.domain import Query, SignalStatus
from corewrite.domain.traffic_split import STAGES_OF, Arm
from corewrite.fusion import FusionSpec, StageFusion
from corewrite.fusion.spec import STAGES
from corewrite.logs.served import Pair, RampPlace
from corewrite.search import Candidates, Cascade, Rawranked, Trace
from corewrite.serving.admission import Admission
from corewrite.serving.rewriting import RewriterAnswer
from corewrite.serving.settings import Deadlines, ServeConfig
from corewrite.serving.versions import RoutingDecision, Version

_log = logging.getLogger(__name__)
_COMPLAIN_SECONDS = 60.0
HANG_SECONDS = 25.0
_complained: dict[str, float] = {}
T = TypeVar("T")


class RecallError(RuntimeError):
    """No candidates: the search engine failed, or was late, so that there is nothing to answer with."""


class _LateError(Exception):
    """The time of a search is over."""


@dataclass(frozen=True)
class Ranked:
    """An answer.

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
        version: What answered.
        arm: Of the client.
        ranked: The answer.
        used_at: The stages that had the rewrite.
        rewritten: What the rewriter said while the answer was made; None where it was not asked or had not answered yet.
        pending: The rewriter's answer, also when it came too late for this search; None where it was not to be used.
        rewrites: How many rewrites were asked for.
        ramp: The client's place in the ramp; None where none is under way.
        shadow: The version that is to answer unseen too; else None.
        stage_seconds: Time from arrival to the end of each stage, seconds.
        asked: The rewriters' answers by version, also of those that only `Searcher.compare` will use.
    """

    query: Query
    version: Version
    arm: Arm
    ranked: Ranked
    used_at: tuple[str, ...]
    rewritten: RewriterAnswer | None
    pending: "asyncio.Future[RewriterAnswer] | None"
    rewrites: int
    ramp: RampPlace | None = None
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
        """What became of the rewrite, in a word."""
        if self.pending is None:
            return "off"
        return "late" if self.rewritten is None else self.rewritten.reason

    @property
    def texts(self) -> tuple[str, ...]:
        """The rewrites that were used, at whatever stage."""
        return self.rewritten.texts if self.rewritten is not None and self.used_at else ()


def _nothing_recalled(error: Exception) -> RecallError:
    return RecallError(f"nothing could be recalled: {type(error).__name__}")


def _complain(text: str, about: str) -> None:
    """One line a minute about the same: what is down fails every search."""
    if time.monotonic() - _complained.get(about, float("-inf")) > _COMPLAIN_SECONDS:
        _complained[about] = time.monotonic()
        _log.error("%s", text)


def failed(chosen: RoutingDecision, query: Query, arm: Arm, rewrites: int) -> SearchResult:
    """A search that recall itself had no answer to."""
    nothing = Ranked((), (), (), {"recall.original": SignalStatus.ERROR})
    return SearchResult(query, chosen.version, arm, nothing, (), None, None, rewrites, chosen.ramp, chosen.shadow)


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


class Searcher:
    """Answers searches; the ranking runs in one thread, beside the event loop."""

    def __init__(self, config: ServeConfig, admission: Admission) -> None:
        """Search under the deadlines of `config`; `admission` hears how long a search that arrived waited for its turn."""
        self._admission = admission
        self._deadlines, self._shadow = config.deadlines, config.shadow
        # One thread: the cascade's tables are filled as it goes and are not made for two at a time.
        self._ranking = ThreadPoolExecutor(1, "ranking")
        self._began: float | None = None  # what the thread is at

    def close(self) -> None:
        """End the thread."""
        self._ranking.shutdown(wait=True, cancel_futures=True)

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
            comparison: What `compare` is going to be asked. Its rewrites are asked for at once, whichever side is served: so
                they fail and come late for both alike.

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
        run = _Run(version.cascades[arm if stages else "none"], query, depth)
        so_far = _SoFar(told=arrived is None)
        try:
            if pending is not None and stages:
                await self._staged(run, pending, stages, self._deadlines, began, so_far)
            else:
                so_far.seconds = await self._turn(lambda: run.do(STAGES, began), began, so_far)
        except _LateError:
            # The thread may still be at it: what is answered is what there is now.
            run = run.cut()
        used_at, rewritten, seconds = tuple(so_far.used_at), so_far.rewritten, so_far.seconds
        used_at = tuple(stage for stage in used_at if stage not in run.missing)
        ranked = _with_status(run.ranked(), version.spec, stages, used_at, rewritten, pending, run.missing)
        return SearchResult(
            query, version, arm, ranked, used_at, rewritten, pending, rewrites, chosen.ramp, chosen.shadow, seconds, asked
        )

    async def shadow_answer(self, found: SearchResult, depth: int) -> SearchResult | None:
        """What the champion of a ramp's shadow stage would have answered, under the same deadlines; None in no such stage."""
        if found.shadow is None:
            return None
        chosen = RoutingDecision(found.shadow)
        try:
            return await self.search(chosen, found.query, found.arm, depth, switched_on=True, rewrites=found.rewrites)
        except Exception as error:
            _log.error("version %d failed unseen: %s: %s", found.shadow.champion.version, type(error).__name__, error)
            return failed(chosen, found.query, found.arm, found.rewrites)

    async def compare(
        self, found: SearchResult, comparison: Comparison, depth: int
    ) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """The lists of both sides, catalogue rows, best first; None where one cannot be known.

        A function of the query, the rewrites and the sides, and of nothing that happened to the search: each side has the
        rewrite as it came in the end, whether it was in time for the answer or not, at all of its stages. Where it never came,
        or the kill switch is on, the sides have none, as they would have had. So it says the same whichever side was
        served, and searches may be compared by it.

        Args:
            found: The search, that was begun with this comparison.
            comparison: What is compared.
            depth: Documents of each list.
        """
        lists = [await self._list_of(found, side, depth) for side in comparison.sides]
        control, treatment = lists
        return None if control is None or treatment is None else (control, treatment)

    async def _list_of(self, found: SearchResult, side: ComparedSide, depth: int) -> tuple[int, ...] | None:
        """What a side displays; None where a scoring failed twice."""
        asked = found.asked.get(side.version) if side.stages else None
        texts = () if asked is None else (await asyncio.shield(asked)).texts
        attempts = 2
        if side.version is found.version and (side.arm == found.arm or not (texts or found.used_at)):
            if not found.unscored and found.used_at == (side.stages if texts else ()):
                return found.ranked.rows
            # The answer was an attempt already: no list is to be known more often for being the one that was served.
            attempts -= found.unscored
        for _ in range(attempts):
            run = _Run(side.version.cascades[side.arm if texts else "none"], found.query, depth)
            run.texts = texts
            try:
                await self._in_thread(lambda run=run: run.do(STAGES, time.monotonic()))  # type: ignore[misc]
            except RecallError:
                continue
            ranked = run.ranked()
            # What a failed scoring left of it is nothing that the client would have seen.
            if SignalStatus.ERROR not in ranked.status.values():
                return ranked.rows
        return None

    async def ranked_with(self, version: Version, query: Query, texts: tuple[str, ...], depth: int) -> tuple[Trace, Ranked]:
        """The answer with given rewrites at all stages, with all that happened.

        Raises:
            ValueError: an original signal failed, or was late, so that there is nothing to explain.
        """
        run = _Run(version.cascades["launch_2" if texts else "none"], query, depth)
        run.texts = texts
        try:
            await self._in_thread(lambda: run.do(STAGES, time.monotonic()), self._deadlines.search_seconds)
        except _LateError:
            raise ValueError("the ranker was not ready within the time of a search (deadlines.search)") from None
        if run.trace is None:
            raise ValueError(f"the ranker failed: {run.failure}")
        return run.trace, run.ranked()

    async def _staged(
        self,
        run: "_Run",
        pending: "asyncio.Future[RewriterAnswer]",
        stages: tuple[str, ...],
        deadlines: Deadlines,
        began: float,
        so_far: "_SoFar",
    ) -> None:
        if not pending.done():
            # What needs no rewrite is done while it is waited for.
            await self._turn(run.prepare, began, so_far)
        for stage in STAGES:
            if stage in stages and so_far.rewritten is None:
                left = began + getattr(deadlines, stage) / 1000 - time.monotonic()
                if not pending.done() and left > 0:
                    await asyncio.wait({pending}, timeout=left)
                if pending.done():
                    so_far.rewritten = pending.result()
                    run.texts = so_far.rewritten.texts
            if stage in stages and run.texts:
                so_far.used_at.append(stage)
            # Where nothing is waited for any more the rest is done in one go.
            rest = (stage,) if so_far.rewritten is None else STAGES[STAGES.index(stage) :]
            so_far.used_at += [s for s in rest[1:] if s in stages and run.texts]
            so_far.seconds |= await self._turn(lambda rest=rest: run.do(rest, began), began, so_far)  # type: ignore[misc]
            if so_far.rewritten is not None:
                break

    async def _turn(self, call: Callable[[], T], began: float, so_far: "_SoFar") -> T:
        """What `call` returns, of the thread's turn for a search.

        By the first is told how long the search has waited: for the thread, and for the event loop before and after.

        Raises:
            _LateError: the search's time was over before.
        """
        worked = 0.0

        def timed() -> T:
            nonlocal worked
            at = time.monotonic()
            try:
                return call()
            finally:
                worked = time.monotonic() - at

        if so_far.told:
            return await self._in_thread(call, self._left(began))
        try:
            return await self._in_thread(timed, self._left(began))
        finally:
            so_far.told, now = True, time.monotonic()
            self._admission.began(now - began - worked, now)

    def _left(self, began: float) -> float:
        """Seconds of a search's time that are left."""
        return began + self._deadlines.search_seconds - time.monotonic()

    @property
    def hangs(self) -> bool:
        """Whether the ranking has been at one thing for longer than a search can take; idle is no hang."""
        began = self._began  # the thread may end it between two looks
        return began is not None and time.monotonic() - began > HANG_SECONDS

    async def _in_thread(self, call: Callable[[], T], seconds: float | None = None) -> T:
        """What `call` returns, of the ranking's thread.

        Raises:
            _LateError: it is not there within `seconds`; a call that waits for its turn is taken back.
        """

        def timed() -> T:
            self._began = time.monotonic()
            try:
                return call()
            finally:
                self._began = None

        future = asyncio.get_running_loop().run_in_executor(self._ranking, timed)
        if seconds is None:
            return await future
        done, _ = await asyncio.wait({future}, timeout=max(0.0, seconds))
        if done:
            return future.result()
        future.cancel()
        # Nobody hears of it any more, so nobody is told that nobody did.
        future.add_done_callback(lambda f: f.cancelled() or f.exception())
        raise _LateError


@dataclass(eq=False)
class _SoFar:
    """What a search has come to while it goes through the stages.

    Attributes:
        used_at: Stages that were given the rewrite.
        rewritten: The rewriter's answer, once it is there.
        seconds: Time from arrival to the end of each stage.
        told: Whether the wait for its turn is known to whom it matters, or matters to nobody.
    """

    used_at: list[str] = field(default_factory=list)
    rewritten: RewriterAnswer | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    told: bool = False


class _Run:
    """One pass through the cascade, a stage at a time. A stage whose original signals fail leaves the order before it."""

    def __init__(self, cascade: Cascade, query: Query, depth: int) -> None:
        self._cascade, self._query, self._depth = cascade, [query.text], depth
        self.texts: tuple[str, ...] = ()
        self.trace: Trace | None = None
        self.failure = ""
        self._failed_at = ""
        self._cut = False
        self._refused: set[str] = set()
        self._candidates: Candidates | None = None
        self._rawranked: Rawranked | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """The stage whose original signals failed, and those after it."""
        return STAGES[STAGES.index(self._failed_at) :] if self._failed_at else ()

    def cut(self) -> "_Run":
        """The pass as far as it got, for an answer now; the pass itself goes no further than the stage it is at.

        Raises:
            RecallError: it has no candidates yet.
        """
        so_far = copy.copy(self)
        self._cut = True
        if so_far._candidates is None:
            raise RecallError("nothing could be recalled within the time of a search (deadlines.search)")
        if not so_far._failed_at and so_far.trace is None:
            so_far._failed_at = "rawrank" if so_far._rawranked is None else "finerank"
            so_far.failure = "not within the time of a search"
            _complain(f"{so_far._failed_at} was not over within deadlines.search, answered by the stage before", "late")
        return so_far

    def prepare(self) -> None:
        """Recall by the query alone, which the cascade remembers."""
        try:
            self._cascade.recall(self._query, self._cascade.spec.recall.original_candidates)
        except Exception as error:
            raise _nothing_recalled(error) from error

    def do(self, stages: tuple[str, ...], began: float) -> dict[str, float]:
        """Run stages; when each ended, seconds after `began`."""
        ends = {}
        for stage in stages:
            if self._cut:
                break
            if not self._failed_at:
                try:
                    self._with_or_without(stage)
                except Exception as error:
                    # A relevance model that is down must not take the search with it: the stage before has an order too.
                    if stage == "recall":
                        raise _nothing_recalled(error) from error
                    self._failed_at, self.failure = stage, f"{type(error).__name__}: {error}"
                    # A model server's own words may repeat the query: they are for the debug log.
                    _complain(f"{stage} failed ({type(error).__name__}), answered by the stage before", stage)
                    _log.debug("%s failed: %s", stage, self.failure)
            ends[stage] = time.monotonic() - began
        return ends

    def ranked(self) -> Ranked:
        """The answer of the last stage that worked."""
        status: dict[str, SignalStatus] = {}
        stages = {
            "rawrank": None if self._rawranked is None else self._rawranked.stage,
            "finerank": None if self.trace is None else self.trace.finerank,
        }
        for name, stage in stages.items():
            if stage is not None:
                refused = name in self._refused
                states = stage.fusion.status.items()
                status |= {f"{name}.{signal}": SignalStatus.ERROR if refused else state[0] for signal, state in states}
        if "recall" in self._refused:
            status["recall.candidates"] = SignalStatus.ERROR
        if self._failed_at:
            status[f"{self._failed_at}.original"] = SignalStatus.ERROR
        if self.trace is not None:
            columns, last = self.trace.order[0], self.trace.finerank
        elif self._rawranked is not None:
            last = self._rawranked.stage
            columns = np.lexsort((last.rows[0], -last.fusion.log_score[0]))
        else:
            assert self._candidates is not None
            rows = tuple(int(r) for r in self._candidates.rows[0] if r >= 0)[: self._depth]
            return Ranked(rows, (0.0,) * len(rows), ({},) * len(rows), status)
        head = [int(c) for c in columns if last.rows[0, c] >= 0][: self._depth]
        rows = tuple(int(last.rows[0, c]) for c in head)
        scores = tuple(float(last.fusion.score[0, c]) for c in head)
        return Ranked(rows, scores, _factors(last.fusion, head), status)

    def _with_or_without(self, stage: str) -> None:
        try:
            self._stage(stage, self.texts)
        except Exception:
            if not self.texts:
                raise
            self._stage(stage, ())
            self._refused.add(stage)

    def _stage(self, stage: str, texts: tuple[str, ...]) -> None:
        rewrites = [texts or None]
        if stage == "recall":
            self._candidates = self._cascade.candidates(self._query, rewrites)
        elif stage == "rawrank":
            assert self._candidates is not None
            self._rawranked = self._cascade.rawrank(self._query, rewrites, self._candidates)
        else:
            assert self._rawranked is not None
            self.trace = self._cascade.finerank(self._query, rewrites, self._rawranked)


def _factors(fusion: StageFusion, columns: Sequence[int]) -> tuple[dict[str, float], ...]:
    """`explain_stage` of several documents of one search at once: every search and every other answer needs it."""
    named = {f"original.{name}": v for name, v in fusion.original_factors.items()}
    named |= {f"rewrite.{name}": v for name, v in fusion.rewrite_factors.items()}
    values = {name: np.broadcast_to(v, fusion.log_score.shape)[0, columns].tolist() for name, v in named.items()}
    return tuple({name: v[i] for name, v in values.items()} for i in range(len(columns)))


def _with_status(
    ranked: Ranked,
    spec: FusionSpec,
    stages: tuple[str, ...],
    used_at: tuple[str, ...],
    rewritten: RewriterAnswer | None,
    pending: "asyncio.Future[RewriterAnswer] | None",
    missing: tuple[str, ...],
) -> Ranked:
    """The status of every rewrite signal of the spec, also where the rewrite never reached the stage."""
    if rewritten is not None:
        absent = rewritten.status if not rewritten.texts else SignalStatus.TIMEOUT
    else:
        absent = SignalStatus.TIMEOUT if pending is not None else SignalStatus.OFF
    status: dict[str, SignalStatus] = {}
    names = {stage: [j.signal for j in spec.stages[stage].rewrite] for stage in spec.stages}
    if spec.recall.use_rewrite:
        names = {"recall": ["candidates"], **names}
    for stage, signals in names.items():
        for signal in signals:
            name = f"{stage}.{signal}"
            if stage not in stages:
                status[name] = SignalStatus.OFF
            elif stage in missing:
                status[name] = SignalStatus.ERROR
            elif stage in used_at:
                state = ranked.status.get(name, SignalStatus.OK)
                # The rewrite is the query itself: it was there, and has nothing to say.
                status[name] = SignalStatus.NEUTRAL if state == SignalStatus.OFF else state
            else:
                status[name] = absent
    status |= {name: state for name, state in ranked.status.items() if name.endswith(".original")}
    return Ranked(ranked.rows, ranked.scores, ranked.factors, status)
