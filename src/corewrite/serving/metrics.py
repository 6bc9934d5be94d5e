"""Numbers for Prometheus, also where several worker processes count together."""

import os
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from corewrite.serving.settings import MULTIPROCESS_VARIABLE

_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.5, 1, 2, 5)


class Metrics:
    """All that the server counts. With the environment variable PROMETHEUS_MULTIPROC_DIR, `text` sums over the workers."""

    def __init__(self) -> None:
        own = CollectorRegistry()
        self._own = own

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"corewrite_{name}", what, labels, registry=own)

        def gauge(name: str, what: str, mode: Any) -> Gauge:
            return Gauge(f"corewrite_{name}", what, registry=own, multiprocess_mode=mode)

        self.requests = counter("requests", "Requests by route and HTTP status.", "route", "status")
        self.searches = counter("searches", "Searches answered, by arm.", "arm")
        self.rollout_searches = counter(
            "ramp_searches", "Searches in a rollout: treatment, control, or shadow (logged, not shown).", "arm"
        )
        self.rewrites = counter("rewrites", "Rewrites asked for by searches, by outcome.", "reason")
        self.signals = counter("signals", "Rewrite signals of searches, by status.", "signal", "status")
        self.counterfactuals = counter(
            "counterfactuals", "Counterfactual answers computed, by whether they differed.", "impacted"
        )
        self.events = counter("events", "Events of users taken into the log.")
        self.seconds = Histogram(
            "corewrite_request_seconds", "Time to answer, by route.", ("route",), registry=own, buckets=_BUCKETS
        )
        self.stages = Histogram(
            "corewrite_stage_seconds", "Time from arrival to the end of a stage.", ("stage",), registry=own, buckets=_BUCKETS
        )
        self.in_flight = gauge("in_flight_requests", "Requests worked on.", "livesum")
        self.search_limit = gauge("search_limit", "Searches worked on at a time, so that none waits for long.", "livesum")
        self.waiting = gauge("rewriter_waiting", "Queries waiting for the rewriter.", "livesum")
        self.ready = gauge("ready", "1 where a rewrite succeeded lately; of several workers the worst.", "livemin")
        self.killed = gauge("killed", "1 where the kill switch is on.", "livemax")
        self.version = gauge("champion_version", "Version of the champion served; of several workers the oldest.", "livemin")
        self.rollout_share = gauge(
            "ramp_share", "Share of clients who get the champion; of several workers the least.", "livemin"
        )
        self.restarts = gauge("rewriter_restarts", "Restarts of the present rewriter's process.", "livesum")
        self.shed = gauge("rewriter_shed", "Queries the present rewriter's queue refused.", "livesum")
        self.cached = gauge("cache_entries", "Rewrites in memory.", "livesum")
        self.cache_hits = gauge("cache_hits", "Rewrites found in memory.", "livesum")
        self.cache_misses = gauge("cache_misses", "Rewrites not found in memory.", "livesum")
        self.redis_failures = gauge("redis_failures", "Calls of the Redis that failed or came too late.", "livesum")
        self.relevance_open = gauge("relevance_open", "1 where the circuit breaker before the model server is open.", "livemax")
        self.relevance_opened = gauge("relevance_opened", "Times that the circuit breaker opened.", "livesum")
        self.relevance_refused = gauge("relevance_refused", "Scorings refused while the circuit breaker was open.", "livesum")
        self.log_written = gauge("log_lines_written", "Lines of the UBI log written.", "livesum")
        self.log_dropped = gauge("log_lines_dropped", "Lines of the UBI log lost to a full queue or disk.", "livesum")

    def text(self) -> bytes:
        """The exposition format."""
        if MULTIPROCESS_VARIABLE not in os.environ:
            return generate_latest(self._own)
        _forget_dead(Path(os.environ[MULTIPROCESS_VARIABLE]))
        every = CollectorRegistry()
        MultiProcessCollector(every)  # type: ignore[no-untyped-call]
        return generate_latest(every)

    def end(self) -> None:
        """This worker ends: its gauges count no more."""
        if MULTIPROCESS_VARIABLE in os.environ:
            mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]


def _forget_dead(folder: Path) -> None:
    """A worker that was killed could not say that its gauges count no more."""
    for path in folder.glob("gauge_live*_*.db"):
        pid = int(path.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid)  # type: ignore[no-untyped-call]
        except PermissionError:
            continue  # alive, and another user's
