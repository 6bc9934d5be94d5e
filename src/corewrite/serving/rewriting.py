"""Rewrites by one policy: cached, each asked for once, batched, bounded in number and time; no failure reaches a caller.

Whatever happens to the process behind it, `ask` returns a future that ends with a `RewriterAnswer` and never with an exception.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from corewrite.domain import Query, SignalStatus, words
from corewrite.domain.filters import NO_FILTERS, FilterError, RewriteFilters
from corewrite.rewriter import TemplateConfig
from corewrite.serving.cache import Cache, MemoryCache, Texts, cache_key, canonical, sound
from corewrite.serving.process import WorkerError
from corewrite.serving.settings import RewriterSettings

_log = logging.getLogger(__name__)
_PROBE = Query("music video")
_PAUSE, _LONGEST_PAUSE, _LIVED = 0.1, 10.0, 30.0
_STALE_SECONDS = 25.0


@dataclass(frozen=True)
class RewriterAnswer:
    """The rewriter's answer to a query.

    Attributes:
        texts: The rewrites, best first; empty where there is none to use.
        status: `ok`; `neutral`: the policy had nothing to say, or something stopped it; `error`.
        reason: In a word: ok, cached, nothing, blocked, filtered, overloaded, stale, starting, failed, garbage.
    """

    texts: Texts
    status: SignalStatus
    reason: str


class Process(Protocol):
    """What is asked of a policy's process; see `process.PolicyProcess`."""

    template: TemplateConfig

    async def ask(self, queries: Sequence[Query], n: int) -> list[Any]:
        """Rewrites of each query."""
        ...

    def kill(self) -> None:
        """End it."""
        ...


Start = Callable[[], Awaitable[Process]]


@dataclass(eq=False)
class _Job:
    key: str
    query: Query
    n: int
    future: "asyncio.Future[RewriterAnswer]"
    until: float


class PolicyRewriter:
    """One policy.

    `open`, then any number of `ask`, then `close`; all in one event loop.

    Attributes:
        restarts: How often its process had to be started again.
        shed: Queries answered without a rewrite because too many waited.
        batches: Batches decoded.
    """

    def __init__(
        self,
        policy: str,
        start: Start,
        settings: RewriterSettings,
        memory: MemoryCache,
        shared: Cache | None = None,
        filters: RewriteFilters = NO_FILTERS,
    ) -> None:
        """Rewrite with one policy.

        Args:
            policy: Its content hash.
            start: Starts a process with it.
            settings: Of queue and process.
            memory: This worker's cache.
            shared: One that several workers share, looked into on a miss.
            filters: What a rewrite must not bring in; also of what was remembered, under whatever filters.
        """
        self.policy = policy
        self._start, self._settings, self._memory, self._shared = start, settings, memory, shared
        self._filters = filters
        self._blocked = [w for entry in settings.blocklist for w in words(entry)]
        self._queue: deque[_Job] = deque()
        self._flying: dict[str, _Job] = {}
        self._wake = asyncio.Event()
        self._process: Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._look_ups: set[asyncio.Task[None]] = set()
        self._template = TemplateConfig()
        self._succeeded = float("-inf")
        self.restarts = self.shed = self.batches = 0

    async def open(self) -> None:
        """Start the process and let it rewrite a probe.

        Raises:
            WorkerError: the policy cannot be loaded, or does not answer.
        """
        process = await self._start()
        try:
            await self._decode(process, [_PROBE], 1)
        except BaseException:
            process.kill()
            raise
        self._template, self._process = process.template, process
        self._task = asyncio.create_task(self._keep_up(process))

    async def close(self) -> None:
        """End the process; what still waits gets no rewrite."""
        tasks = [*self._look_ups, *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._drop_all("failed")

    @property
    def waiting(self) -> int:
        """Queries in the queue."""
        return len(self._queue)

    @property
    def template(self) -> TemplateConfig:
        """The policy's prompt template."""
        return self._template

    @property
    def healthy(self) -> bool:
        """Whether a real rewrite, of a query or of a probe, succeeded lately."""
        return self._process is not None and time.monotonic() - self._succeeded < _STALE_SECONDS

    def ask(self, query: Query, n: int = 1, patience_ms: float = 0.0) -> "asyncio.Future[RewriterAnswer]":
        """At most `n` rewrites of a query; a future that may be waited for by several (so never to be cancelled).

        A caller who cannot wait any longer just leaves: the rewrite is remembered when it comes.

        Args:
            query: What to rewrite.
            n: Rewrites at most.
            patience_ms: How long the caller will wait; it stays in the queue for as long, and for `stale_ms` at least.
        """
        until = time.monotonic() + max(patience_ms, self._settings.stale_ms) / 1000
        asked = canonical(query, self._template)
        key = cache_key(asked, self.policy, self._template, n)
        known = self._memory.peek(key)
        if known is not None:
            done: asyncio.Future[RewriterAnswer] = asyncio.get_running_loop().create_future()
            done.set_result(self._judged(asked, known, "cached"))
            return done
        flying = self._flying.get(key)
        if flying is not None:
            flying.until = max(flying.until, until)
            return flying.future
        job = _Job(key, asked, n, asyncio.get_running_loop().create_future(), until)
        self._flying[key] = job
        job.future.add_done_callback(lambda _: self._flying.pop(key, None))
        if self._shared is None:
            self._enqueue(job)
        else:
            task = asyncio.create_task(self._look_up(job, self._shared))
            self._look_ups.add(task)
            task.add_done_callback(self._look_ups.discard)
        return job.future

    async def _look_up(self, job: _Job, shared: Cache) -> None:
        known = await shared.get(job.key)
        if known is None:
            self._enqueue(job)
        else:
            self._memory.keep(job.key, known)
            _settle(job, self._judged(job.query, known, "cached"))

    def _enqueue(self, job: _Job) -> None:
        if self._process is None:
            _settle(job, RewriterAnswer((), SignalStatus.ERROR, "starting"))
            return
        self._queue.append(job)
        if len(self._queue) > self._settings.queue:
            # The oldest goes: whoever waits for it is the nearest to giving up anyway.
            self.shed += 1
            _settle(self._queue.popleft(), RewriterAnswer((), SignalStatus.ERROR, "overloaded"))
        self._wake.set()

    async def _keep_up(self, process: Process | None) -> None:
        """Serve with one process after the other, with longer and longer pauses between those that do not live."""
        pause = _PAUSE
        while True:
            began = time.monotonic()
            try:
                if process is None:
                    process = await self._start()
                    await self._decode(process, [_PROBE], 1)
                self._process = process
                await self._serve(process)
            except Exception as error:
                # Not only a `WorkerError`: with no file or thread left to start a process with, there may be one again later.
                _log.warning("rewriter of policy %s: %s; it is started again", self.policy[:12], error)
            finally:
                self._process = None
                if process is not None:
                    process.kill()
            process = None
            self.restarts += 1
            self._drop_all("failed")
            pause = _PAUSE if time.monotonic() - began > _LIVED else min(2 * pause, _LONGEST_PAUSE)
            await asyncio.sleep(pause)

    async def _serve(self, process: Process) -> None:
        while True:
            batch = await self._next_batch()
            try:
                if not batch:
                    await self._decode(process, [_PROBE], 1)
                    continue
                answers = await self._decode(process, [job.query for job in batch], batch[0].n)
            except BaseException:
                for job in batch:
                    _settle(job, RewriterAnswer((), SignalStatus.ERROR, "failed"))
                raise
            for job, answer in zip(batch, answers, strict=True):
                self._finish(job, answer)

    def _finish(self, job: _Job, answer: Any) -> None:
        texts = sound(answer)
        if texts is None:
            _settle(job, RewriterAnswer((), SignalStatus.ERROR, "garbage"))
            return
        self._memory.keep(job.key, texts)
        _settle(job, self._judged(job.query, texts, "ok"))
        if self._shared is not None:
            task = asyncio.create_task(self._shared.put(job.key, texts))
            self._look_ups.add(task)
            task.add_done_callback(self._look_ups.discard)

    async def _decode(self, process: Process, queries: Sequence[Query], n: int) -> list[Any]:
        try:
            # Not `wait_for`: until Python 3.12 that may swallow a cancellation.
            async with asyncio.timeout(self._settings.hang_seconds):
                answers = await process.ask(queries, n)
        except TimeoutError:
            raise WorkerError(f"no answer to a batch within {self._settings.hang_seconds:g} s: taken for hung") from None
        self.batches += 1
        if any(sound(answer) is not None for answer in answers):
            self._succeeded = time.monotonic()
        return answers

    async def _next_batch(self) -> list[_Job]:
        """Queries that are to be decoded together; none after a while without any."""
        settings = self._settings
        if not self._queue:
            self._wake.clear()
            try:
                async with asyncio.timeout(settings.probe_seconds):
                    await self._wake.wait()
            except TimeoutError:
                return []
            if settings.max_wait_ms and len(self._queue) < settings.max_batch:
                await asyncio.sleep(settings.max_wait_ms / 1000)
        now = time.monotonic()
        for job in [job for job in self._queue if job.until < now]:
            self._queue.remove(job)
            _settle(job, RewriterAnswer((), SignalStatus.ERROR, "stale"))
        batch: list[_Job] = []
        # The newest first: when there is more than can be done, it is better to be in time for some than late for all.
        while self._queue and len(batch) < settings.max_batch and (not batch or self._queue[-1].n == batch[0].n):
            batch.append(self._queue.pop())
        return batch

    def _judged(self, query: Query, texts: Texts, reason: str) -> RewriterAnswer:
        if not texts:
            return RewriterAnswer((), SignalStatus.NEUTRAL, "nothing")
        usable = texts
        if self._blocked:
            own = set(words(query.text))
            usable = tuple(t for t in texts if not any(w in self._blocked and w not in own for w in words(t)))
        if not usable:
            return RewriterAnswer((), SignalStatus.NEUTRAL, "blocked")
        try:
            hits = self._filters.hits(query, usable)
        except FilterError as error:
            # Whether it may be served is not known: it is not.
            # No text in the log: queries are hashed wherever the server writes them down.
            _log.error("policy %s: a filter failed (%s)", self.policy[:12], type(error.__cause__ or error).__name__)
            return RewriterAnswer((), SignalStatus.ERROR, "failed")
        usable = tuple(text for text, hit in zip(usable, hits, strict=True) if hit is None)
        if not usable:
            return RewriterAnswer((), SignalStatus.NEUTRAL, "filtered")
        return RewriterAnswer(usable, SignalStatus.OK, reason)

    def _drop_all(self, reason: str) -> None:
        while self._queue:
            _settle(self._queue.popleft(), RewriterAnswer((), SignalStatus.ERROR, reason))
        for job in list(self._flying.values()):
            _settle(job, RewriterAnswer((), SignalStatus.ERROR, reason))


def _settle(job: _Job, rewritten: RewriterAnswer) -> None:
    if not job.future.done():
        job.future.set_result(rewritten)
