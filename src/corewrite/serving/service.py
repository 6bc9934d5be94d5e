"""The server without HTTP: what it holds, from start to drain, and what it does with a request."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from corewrite.deployment.documents import open_documents
from corewrite.deployment.open import RankerOpener
from corewrite.deployment.settings import load_secret
from corewrite.domain import Query, SignalStatus, hash_share
from corewrite.domain.documents import text_column
from corewrite.domain.traffic_split import STAGES_OF, Arm, assign_arm, assign_bucket, is_compared
from corewrite.fusion import explain_stage
from corewrite.logs.sealing import Sealer
from corewrite.logs.served import LogPlace
from corewrite.serving.admission import Admission
from corewrite.serving.cache import MemoryCache, open_redis
from corewrite.serving.events import Event, event_line
from corewrite.serving.kill_switch import KillSwitch
from corewrite.serving.metrics import Metrics
from corewrite.serving.process import PolicyProcess
from corewrite.serving.rewriting import PolicyRewriter, RewriterAnswer
from corewrite.serving.searching import HANG_SECONDS, ComparedSide, Comparison, Searcher, SearchResult, failed
from corewrite.serving.settings import SECRET_CHARACTERS, ServeConfig
from corewrite.serving.ubi_log import Compared, Hasher, UbiLog, build_line
from corewrite.serving.versions import Open, RoutingDecision, Version, Versions
from corewrite.serving.warm import read_warm

_log = logging.getLogger(__name__)
_AFTERWARDS = 1_000


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
        admission: The searches in flight, which `search` and `explain` tell how long they waited, and who lets them in asks.
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
            ValueError: an environment variable that the settings name is not set.
        """
        self.config, self._clock = config, clock
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
        self._searcher = Searcher(config, self.admission)
        salt = load_secret(config.log.salt_env)
        if salt is not None and len(salt) < SECRET_CHARACTERS:
            _log.warning(
                "the secret in %s is shorter than %d characters: who has the log may find it by trying, and then who searched "
                "for what; with another one no client is known again from the log before",
                config.log.salt_env,
                SECRET_CHARACTERS,
            )
        self._hasher = Hasher(salt)
        self._sealer = None if config.log.seal_to is None else Sealer(config.log.seal_to)
        self._ubi = UbiLog(config.log) if config.log.folder is not None else None
        self._afterwards: set[asyncio.Task[None]] = set()
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
        await asyncio.gather(*self._following, *self._afterwards, return_exceptions=True)
        await self.versions.close()
        self._searcher.close()
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
        """Whether the ranking, or a backend of it, has been at one search for too long: only a new start helps."""
        return self._searcher.hangs or self.versions.stuck_seconds > HANG_SECONDS

    def choose(self, client_id: str) -> RoutingDecision:
        """What to answer a request with, all of it.

        Args:
            client_id: Decides while a ramp is under way; empty: the version before.

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
            client_id: Chooses the arm, and the version in a ramp; without one there is no arm.

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
            client_id: Chooses the arm, and the version in a ramp; without one the search is a client of its own.
            session_id: For the log.
            depth: Results.
            rewrites: How many rewrites are asked for.
            arrived: When it came, by `time.monotonic`; default: now.

        Returns:
            The search's id and what was found.

        Raises:
            NotReadyError: there is no champion.
        """
        # Before anything is waited for: users' events are compared with it.
        timestamp = self._clock()
        chosen, query_id = self.choose(client_id), uuid.uuid4().hex
        client = client_id or f"nobody-{query_id}"
        arm = assign_arm(client, self.config.arms)
        comparison = self._comparison(chosen, client, arm)
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
            # Written down too: a ramp that saw only the searches that were answered would find no fault.
            self._note(failed(chosen, query, arm, rewrites), query_id, client, session_id, timestamp, depth, None, False)
            raise
        self._count(found)
        shadowed = not self.kill.on and hash_share(query_id, "counterfactual") < self.config.log.counterfactual_share
        self._note(found, query_id, client, session_id, timestamp, depth, comparison, shadowed)
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

    def _comparison(self, chosen: RoutingDecision, client: str, arm: Arm) -> Comparison | None:
        """What is compared for a client; None where nothing is logged, or the client is on neither side or not drawn."""
        settings = self.config.log
        if self._ubi is None or not is_compared(client, settings.counterfactual_share):
            return None
        if chosen.ramp is not None and settings.pair is None:
            if chosen.ramped is None:
                return None
            before, champion = chosen.ramped
            versions = before.champion.version, champion.champion.version
            return Comparison(versions, (ComparedSide(before, arm), ComparedSide(champion, arm)))
        pair = self.config.pair
        if arm not in pair:
            return None
        return Comparison(pair, (ComparedSide(chosen.version, pair[0]), ComparedSide(chosen.version, pair[1])))

    async def explain(
        self, query: Query, texts: tuple[str, ...] | None, depth: int, deadline_ms: float, *, client_id: str = ""
    ) -> dict[str, Any]:
        """Search once with and once without the rewrite, and say what it did.

        Args:
            query: What is asked.
            texts: Used in the place of the policy's rewrite; None: the policy's.
            depth: Results.
            deadline_ms: How long the policy's rewrite is waited for.
            client_id: Chooses the version in a ramp.

        Raises:
            NotReadyError: there is no champion.
            ValueError: the ranker itself failed.
        """
        version, reason = self.choose(client_id).version, "given"
        if texts is None:
            rewritten = await self._rewritten(version, [query], 1, deadline_ms)
            texts, reason = rewritten[0].texts, rewritten[0].reason
        trace, after = await self._searcher.ranked_with(version, query, texts, depth)
        bare, before = await self._searcher.ranked_with(version, query, (), len(self.documents))
        place = {row: k + 1 for k, row in enumerate(before.rows)}
        columns = {int(row): j for j, row in enumerate(trace.rawrank.rows[0]) if row >= 0}
        gone = [row for row in before.rows[:depth] if row not in after.rows]
        return {
            "query": query.text,
            "rewrites": list(texts),
            "rewrite_status": shown_reason(reason),
            **build_names(version),
            "signal_status": {name: str(state) for name, state in after.status.items()},
            "candidates": {
                "original": int((bare.rawrank.rows >= 0).sum()),
                "rewrite_only": int(trace.from_rewrite.sum()),
                "finerank": int((trace.finerank.rows >= 0).sum()),
            },
            "results": [
                {
                    "rank": k + 1,
                    "rank_without": place.get(row),
                    **shown,
                    "score": score,
                    "factors": factors,
                    "rawrank_factors": explain_stage(trace.rawrank.fusion, (0, columns[row])),
                }
                for k, (row, shown, score, factors) in enumerate(
                    zip(after.rows, self.shown(after.rows), after.scores, after.factors, strict=True)
                )
            ],
            "dropped": [{**shown, "rank_without": place[row]} for row, shown in zip(gone, self.shown(gone), strict=True)],
        }

    def shown(self, rows: Sequence[int]) -> list[dict[str, str]]:
        """Id and title of the documents at `rows`."""
        at = np.array(rows, np.int64)
        titles = text_column(self.documents, "title", at)
        return [{"id": doc_id, "title": title} for doc_id, title in zip(self.documents.load_ids(at), titles, strict=True)]

    def state(self) -> dict[str, Any]:
        """What is served: the version that most clients get, the ramp where one is under way, the backends."""
        ramp, version = self.versions.ramp, self.choose("").version
        told = None if ramp is None else {"champion": ramp.champion, "share": ramp.share}
        return {**build_names(version), "ramp": told, "backends": version.ranker.state()}

    def gauges(self) -> None:
        """Bring the metrics that are looked at, not counted, up to date."""
        m, present = self.metrics, self.versions.present
        m.ready.set(self.ready)
        m.killed.set(self.kill.on)
        m.search_limit.set(int(self.admission.limit))
        m.cached.set(len(self.memory))
        m.cache_hits.set(self.memory.hits)
        m.cache_misses.set(self.memory.misses)
        if present is not None:
            m.version.set(present.champion.version)
            ramp = self.versions.ramp
            m.ramp_share.set(1.0 if ramp is None else ramp.share)
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

        return PolicyRewriter(policy, start, settings, self.memory, self._redis)

    async def _watch(self) -> None:
        while True:
            self.kill.look()
            self.gauges()
            await asyncio.sleep(self.config.poll_seconds)

    def _count(self, found: SearchResult) -> None:
        m = self.metrics
        m.searches.labels(found.arm).inc()
        if found.ramp is not None and found.ramp.arm is not None:
            m.ramp_searches.labels(found.ramp.arm).inc()
        m.rewrites.labels(found.reason).inc()
        for name, state in found.ranked.status.items():
            m.signals.labels(name, str(state)).inc()
        for stage, seconds in found.stage_seconds.items():
            m.stages.labels(stage).observe(seconds)

    def _note(
        self,
        found: SearchResult,
        query_id: str,
        client: str,
        session_id: str,
        timestamp: float,
        depth: int,
        comparison: Comparison | None,
        shadowed: bool,
    ) -> None:
        if self._ubi is None:
            return
        place = self._ubi.next_place()
        if len(self._afterwards) >= _AFTERWARDS:
            self._ubi.dropped += 1
            return
        task = asyncio.create_task(
            self._write_down(found, query_id, client, session_id, timestamp, depth, comparison, shadowed, place)
        )
        self._afterwards.add(task)
        task.add_done_callback(self._afterwards.discard)

    async def _write_down(
        self,
        found: SearchResult,
        query_id: str,
        client_id: str,
        session_id: str,
        timestamp: float,
        depth: int,
        comparison: Comparison | None,
        shadowed: bool,
        place: LogPlace,
    ) -> None:
        compared: Compared | None = None
        shadow: SearchResult | None = None
        try:
            if comparison is not None:
                lists = await self._searcher.compare(found, comparison, depth)
                compared = Compared(comparison.pair, lists)
                if lists is not None:
                    self.metrics.counterfactuals.labels(str(lists[0] != lists[1]).lower()).inc()
            if shadowed:
                shadow = await self._searcher.shadow_answer(found, depth)
            if shadow is not None:
                self.metrics.ramp_searches.labels("shadow").inc()
            line = build_line(
                found,
                query_id=query_id,
                client_id=client_id,
                bucket=assign_bucket(client_id),
                session_id=session_id,
                timestamp=timestamp,
                ids=self.documents.id_at,
                compared=compared,
                shadow=shadow,
                backends=found.version.ranker.facts,
                texts=self.config.log.texts,
                sealer=self._sealer,
                hasher=self._hasher,
                place=place,
            )
        except Exception:
            # The search was answered; its entry must not be what brings a worker down.
            _log.exception("an entry of the log could not be made")
            if self._ubi is not None:
                self._ubi.dropped += 1
            return
        if self._ubi is not None:
            self._ubi.put(line)


def shown_reason(reason: str) -> str:
    """What became of a rewrite, as clients hear it: that it was there already would say that somebody asked the same before."""
    return "ok" if reason == "cached" else reason


def build_names(version: Version) -> dict[str, Any]:
    """What answered, for a response."""
    champion = version.champion
    return {
        "version": champion.version,
        "policy": champion.policy,
        "relevance": champion.relevance,
        "spec": champion.spec,
    }
