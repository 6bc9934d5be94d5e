"""The server without HTTP: what it holds, from start to drain, and what it does with a request."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from corewrite.deployment.documents import open_documents
from corewrite.deployment.open import RankerOpener
from corewrite.deployment.settings import load_secret
from corewrite.domain import Query, SignalStatus
from corewrite.domain.filters import load_filters
from corewrite.domain.traffic_split import STAGES_OF, Arm, arm_in_v1, assign_arm
from corewrite.logs.sealing import Sealer
from corewrite.serving.admission import Admission
from corewrite.serving.cache import MemoryCache, open_redis
from corewrite.serving.events import Event, event_line
from corewrite.serving.explaining import explain_search
from corewrite.serving.kill_switch import KillSwitch
from corewrite.serving.log_line import Hasher
from corewrite.serving.metrics import Metrics
from corewrite.serving.process import PolicyProcess
from corewrite.serving.ranking_thread import HANG_SECONDS, RankingThread
from corewrite.serving.recording import LoggedRequest, SearchRecorder
from corewrite.serving.responses import build_names
from corewrite.serving.rewriting import PolicyRewriter, RewriterAnswer
from corewrite.serving.search_result import SearchResult, failed_search
from corewrite.serving.searching import Searcher
from corewrite.serving.settings import SECRET_CHARACTERS, ServeConfig
from corewrite.serving.ubi_log import UbiLog
from corewrite.serving.versions import Open, RoutingDecision, Version, Versions
from corewrite.serving.warm import read_warm

_log = logging.getLogger(__name__)


class NoLogError(RuntimeError):
    """There is no log to write to."""


class NotReadyError(RuntimeError):
    """There is no champion to answer with."""


class Service:
    """One worker's state. `open`, then requests, then `close`, in one event loop.

    Attributes:
        config: The settings.
        documents: What is searched.
        versions: The champions loaded.
        kill: The kill switch.
        metrics: The counters.
        memory: The rewrites kept here.
        admission: Decides how many searches are let in, by how long those before waited.
    """

    def __init__(self, config: ServeConfig, make_rewriter: Open | None = None, clock: Callable[[], float] = time.time) -> None:
        """Read the documents.

        Args:
            config: The settings.
            make_rewriter: Makes the rewriter of a policy; default: one with a process of its own.
            clock: Seconds since the epoch, for the log; a simulation has a time of its own.

        Raises:
            DocumentsError: the documents cannot be read.
            ImportError, ScorerMismatchError, ScoreError: see `RankerOpener`.
            SealError: `log.seal_to` is no public key.
            FilterError: a filter cannot be used.
            ValueError: an environment variable that the settings name is not set.
        """
        self.config, self._clock = config, clock
        self._filters = load_filters(config.filters)
        self.documents = open_documents(config.documents, config.what_ranks)
        self.metrics = Metrics()
        self.kill = KillSwitch(config.kill_path, config.enabled)
        cache = config.cache
        self.memory = MemoryCache(cache.size, cache.seconds)
        self._redis = open_redis(cache, cache.redis_timeout_ms)
        opener = RankerOpener(config.what_ranks, self.documents, live=True, settings_rank=config.relevance is not None)
        opener.try_models()
        self.versions = Versions(config, opener, make_rewriter or self._rewriter)
        self.admission = Admission(config.queue_seconds, config.limits.in_flight)
        self._thread = RankingThread()
        self._searcher = Searcher(config, self.admission, self._thread)
        salt = load_secret(config.log.salt_env)
        if salt is not None and len(salt) < SECRET_CHARACTERS:
            _log.warning(
                "the secret in %s is shorter than %d characters: who has the log may find it by trying, and then who searched "
                "for what; with another one no client is known again from the log before",
                config.log.salt_env,
                SECRET_CHARACTERS,
            )
        self._hasher = Hasher(salt)
        sealer = None if config.log.seal_to is None else Sealer(config.log.seal_to)
        self._ubi: UbiLog | None = None
        self._recorder: SearchRecorder | None = None
        if config.log.folder is not None:
            self._ubi = UbiLog(config.log)
            self._recorder = SearchRecorder(
                config, self.documents, self._searcher, self._thread, self.metrics, self._ubi, self._hasher, sealer
            )
        self._following: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Load the champion, where there is one, and follow the registry from then on."""
        await self.versions.refresh()
        if self.versions.present is None:
            _log.error("not ready: %s", self.versions.problem)
        self._following = [asyncio.create_task(self.versions.follow()), asyncio.create_task(self._watch())]

    async def close(self) -> None:
        """Finish what was promised: the entries of the log first, then the processes."""
        for task in self._following:
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)
        if self._recorder is not None:
            await self._recorder.drain()
        await self.versions.close()
        self._thread.close()
        if self._ubi is not None:
            await asyncio.to_thread(self._ubi.close)
        if self._redis is not None:
            await self._redis.close()
        self.metrics.end()

    @property
    def ready(self) -> bool:
        """Whether a real rewrite of every version that clients get succeeded lately, and the ranking does not hang."""
        answering = self.versions.answering
        return bool(answering) and all(version.rewriter.healthy for version in answering) and not self.hangs

    @property
    def hangs(self) -> bool:
        """Whether the ranking, or a backend of it, has been working on one search for too long: only a restart helps."""
        return self._thread.hangs or self.versions.stuck_seconds > HANG_SECONDS

    def choose(self, client_id: str) -> RoutingDecision:
        """What to answer a request with, all of it.

        Args:
            client_id: Decides while a rollout is under way; empty: the version before.

        Raises:
            NotReadyError: there is no champion yet.
        """
        chosen = self.versions.choose(client_id)
        if chosen is None:
            raise NotReadyError(self.versions.problem or "the champion is being loaded")
        return chosen

    async def rewrite(
        self, queries: Sequence[Query], n: int, deadline_ms: float, *, client_id: str = ""
    ) -> tuple[Version, Arm | None, list[RewriterAnswer]]:
        """At most `n` rewrites of each query, those that come in time; none where the client's arm or the shadow mode has none.

        Args:
            queries: What is asked.
            n: Rewrites of each.
            deadline_ms: How long they are waited for.
            client_id: Chooses the arm, and the version in a rollout; without one there is no arm.

        Raises:
            NotReadyError: there is no champion.
        """
        version = self.choose(client_id).version
        arm = assign_arm(client_id, self.config.arms) if client_id else None
        if arm is not None and not STAGES_OF[arm] and not self.kill.on:
            return version, arm, [RewriterAnswer((), SignalStatus.OFF, "arm")] * len(queries)
        found = await self._rewritten(version, queries, n, deadline_ms)
        if self.config.shadow and not self.kill.on:  # computed like any other, and not shown
            found = [RewriterAnswer((), SignalStatus.OFF, "shadow")] * len(queries)
        return version, arm, found

    async def _rewritten(self, version: Version, queries: Sequence[Query], n: int, deadline_ms: float) -> list[RewriterAnswer]:
        if self.kill.on:
            return [RewriterAnswer((), SignalStatus.OFF, "off")] * len(queries)
        asked = [version.rewriter.ask(query, n, deadline_ms) for query in queries]
        await asyncio.wait(set(asked), timeout=deadline_ms / 1000)
        late = RewriterAnswer((), SignalStatus.TIMEOUT, "late")
        return [future.result() if future.done() else late for future in asked]

    async def search(
        self,
        query: Query,
        *,
        client_id: str = "",
        session_id: str = "",
        depth: int = 10,
        rewrites: int = 1,
        arrived: float | None = None,
    ) -> tuple[str, SearchResult]:
        """Answer a search, and see to its log entry and what is compared afterwards.

        Args:
            query: What is asked.
            client_id: Chooses the arm, and the version in a rollout; without one the search is a client of its own.
            session_id: For the log.
            depth: Results.
            rewrites: How many rewrites are asked for.
            arrived: When it came, by `time.monotonic`; default: now.

        Returns:
            The search's id and what was found.

        Raises:
            NotReadyError: there is no champion.
        """
        # Taken before anything is awaited: the times of users' events are compared with it.
        timestamp = self._clock()
        chosen, query_id = self.choose(client_id), uuid.uuid4().hex
        client = client_id or f"nobody-{query_id}"
        arm = assign_arm(client, self.config.arms)
        request = LoggedRequest(query_id, client, session_id, timestamp, depth)
        recorder = self._recorder
        comparison = None if recorder is None else recorder.plan_comparison(chosen, client, arm)
        try:
            found = await self._searcher.search(
                chosen,
                query,
                arm,
                depth,
                switched_on=not self.kill.on,
                rewrites=rewrites,
                arrived=arrived,
                comparison=comparison,
            )
        except Exception:
            # Logged too: a rollout that saw only the searches that were answered would find no fault.
            if recorder is not None:
                recorder.record(failed_search(chosen, query, arm, rewrites), request, None, shadowed=False)
            raise
        self._count(found)
        if recorder is not None:
            recorder.record(found, request, comparison, shadowed=not self.kill.on and recorder.samples_shadow(query_id))
        return query_id, found

    def take_events(self, events: Sequence[Event]) -> int:
        """Write what users did into the log; how many of them, the first ones, found room there.

        Raises:
            NoLogError: the settings name no log.
        """
        if self._ubi is None:
            raise NoLogError("events go into the log of what was served, and there is none: set log.folder")
        taken = 0
        for event in events:
            if not self._ubi.put(event_line(event, self._hasher)):
                break
            taken += 1
        self.metrics.events.inc(taken)
        return taken

    async def explain(
        self, query: Query, texts: tuple[str, ...] | None, depth: int, deadline_ms: float, *, client_id: str = ""
    ) -> dict[str, Any]:
        """Search once with and once without the rewrite, and say what it did.

        Args:
            query: What is asked.
            texts: Used in the place of the policy's rewrite; None: the policy's.
            depth: Results.
            deadline_ms: How long the policy's rewrite is waited for.
            client_id: Chooses the version in a rollout.

        Raises:
            NotReadyError: there is no champion.
            ValueError: the ranker itself failed.
        """
        version, reason = self.choose(client_id).version, "given"
        if texts is None:
            rewritten = await self._rewritten(version, [query], 1, deadline_ms)
            texts, reason = rewritten[0].texts, rewritten[0].reason
        return await explain_search(self._searcher, self.documents, version, query, texts, reason=reason, depth=depth)

    def state(self) -> dict[str, Any]:
        """What is served: the version that most clients get, the rollout where one is under way, the backends."""
        rollout, version = self.versions.rollout, self.choose("").version
        shown = None if rollout is None else {"champion": rollout.champion, "share": rollout.share}
        return {**build_names(version), "ramp": shown, "backends": version.ranker.state()}

    def gauges(self) -> None:
        """Bring the gauges up to date; counters are counted where things happen."""
        m, present = self.metrics, self.versions.present
        m.ready.set(self.ready)
        m.killed.set(self.kill.on)
        m.search_limit.set(int(self.admission.limit))
        m.cached.set(len(self.memory))
        m.cache_hits.set(self.memory.hits)
        m.cache_misses.set(self.memory.misses)
        if present is not None:
            m.version.set(present.champion.version)
            rollout = self.versions.rollout
            m.rollout_share.set(1.0 if rollout is None else rollout.share)
            m.waiting.set(present.rewriter.waiting)
            m.restarts.set(present.rewriter.restarts)
            m.shed.set(present.rewriter.shed)
        breakers = self.versions.breakers
        if breakers:
            m.relevance_open.set(any(b.is_open for b in breakers))
            m.relevance_opened.set(sum(b.opened for b in breakers))
            m.relevance_refused.set(sum(b.refused for b in breakers))
        if self._redis is not None:
            m.redis_failures.set(self._redis.failures)
        if self._ubi is not None:
            m.log_written.set(self._ubi.written)
            m.log_dropped.set(self._ubi.dropped)

    def _rewriter(self, policy: str, folder: Path) -> PolicyRewriter:
        settings, warm_folder = self.config.rewriter, self.config.cache.warm_folder

        async def start() -> PolicyProcess:
            if warm_folder is not None:
                # Read beside the event loop, which has searches to answer while a policy is loaded.
                for key, texts in await asyncio.to_thread(lambda: list(read_warm(warm_folder, policy))):
                    self.memory.keep(key, texts)
            return await PolicyProcess.start(folder, settings)

        return PolicyRewriter(policy, start, settings, self.memory, self._redis, self._filters)

    async def _watch(self) -> None:
        while True:
            self.kill.look()
            self.gauges()
            await asyncio.sleep(self.config.poll_seconds)

    def _count(self, found: SearchResult) -> None:
        m = self.metrics
        m.searches.labels(arm_in_v1(found.arm)).inc()
        if found.rollout is not None and found.rollout.arm is not None:
            m.rollout_searches.labels(found.rollout.arm).inc()
        m.rewrites.labels(found.reason).inc()
        for name, state in found.ranked.status.items():
            m.signals.labels(name, str(state)).inc()
        for stage, seconds in found.stage_seconds.items():
            m.stages.labels(stage).observe(seconds)
