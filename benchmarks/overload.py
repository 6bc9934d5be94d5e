"""What a server does with more searches than it can answer: who is answered, how fast, and how soon it is itself again.

    python benchmarks/overload.py --run runs/demo                # about 15 minutes; writes benchmarks/results/overload.json
    python benchmarks/overload.py --run runs/demo --seconds 10 --smoke    # whether it runs: nothing is written

Open loop: searches are due as of a Poisson process at 1, 2, 5 and 20 times the capacity, whatever became of those before;
time counts from when a search was due. The capacity is what 8 connections get answered that each ask again at once. The server
is that of benchmarks/serving.py, one worker with default settings, a tenth of the clients with the other answer computed;
traffic is week 1 of a demo run, over and over, but no rewrite is kept: each is made anew. Server and load generator have a core
each, so that what 20 times the load costs the generator takes nothing from the server; the capacity is that of one core.

A level is over when the load falls to half the capacity. Recovery is the time from then to the first tenth of a second from
which on, for a second, nobody is refused and the median search takes no longer than 95 of 100 do at half the capacity without
an overload before.
"""

import argparse
import asyncio
import gc
import json
import os
import random
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from corewrite.serving.settings import Deadlines, Limits
from corewrite.studies.summary import machine
from serving import RESULTS, Server, closed, paced, traffic

LEVELS = (1.0, 2.0, 5.0, 20.0)
CONNECTIONS = 512
"""Of the load at most, as of a proxy that pools them; a search that finds none free waits for one, and its time counts."""
LOST_SECONDS = 10.0
"""A search that is not answered within is given up."""


@dataclass(frozen=True)
class Searched:
    """One search.

    Attributes:
        due: When it was to be sent, seconds since the load began.
        seconds: From then until its answer; until it was given up.
        status: HTTP status; 0 where the connection was closed or no answer came.
        rewritten: Whether a rewrite was used.
        lag: How much later than due it was sent.
    """

    due: float
    seconds: float
    status: int
    rewritten: bool
    lag: float


class Client(asyncio.Protocol):
    """One connection of the load: one search at a time."""

    def __init__(self, load: "OpenLoad") -> None:
        self._load, self._transport, self._data = load, None, bytearray()
        self.due, self.sent, self.busy = 0.0, 0.0, False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def ask(self, request: bytes, due: float, now: float) -> None:
        self.due, self.sent, self.busy = due, now, True
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._data += data
        head = self._data.find(b"\r\n\r\n")
        if head < 0:
            return
        place = self._data.index(b"ontent-length:", 0, head + 2) + 14
        size = head + 4 + int(self._data[place : self._data.index(b"\r\n", place)])
        if len(self._data) >= size:
            status, rewritten = int(self._data[9:12]), b'"rewrites":[]' not in self._data
            self._data.clear()
            self._load.answered(self, status, status == 200 and rewritten)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost(self)

    def close(self) -> None:
        self._transport.abort()


class OpenLoad:
    """Searches at stated rates, one stretch after the other; `run` gives all of them."""

    def __init__(self, port: int, requests: Iterator[bytes], stretches: Sequence[tuple[float, float]], seed: int) -> None:
        """Load on `port` of `stretches`: rate a second, seconds."""
        self._port, self._requests, self._stretches, self._draw = port, requests, stretches, random.Random(seed)
        self._free: list[Client] = []
        self._busy: set[Client] = set()
        self._waiting: deque[tuple[bytes, float]] = deque()
        self._open = 0
        self._began, self.found, self.cpu_share = 0.0, [], 0.0

    def run(self) -> list[Searched]:
        gc.collect()
        gc.disable()  # a full collection would be charged to every search that is due meanwhile
        began, cpu = time.perf_counter(), time.process_time()
        try:
            asyncio.run(self._run())
        finally:
            gc.enable()
        self.cpu_share = (time.process_time() - cpu) / (time.perf_counter() - began)
        return self.found

    def answered(self, client: Client, status: int, rewritten: bool) -> None:
        now = time.perf_counter() - self._began
        self.found.append(Searched(client.due, now - client.due, status, rewritten, client.sent - client.due))
        client.busy = False
        self._busy.discard(client)
        self._free.append(client)
        if self._waiting and status:
            self._send(self._free.pop(), *self._waiting.popleft())

    def lost(self, client: Client) -> None:
        if client.busy:
            self.answered(client, 0, False)
        self._open -= 1
        if client in self._free:
            self._free.remove(client)

    async def _run(self) -> None:
        self._began = time.perf_counter()
        opening: set[asyncio.Task[None]] = set()
        for due in self._dues():
            while (now := time.perf_counter() - self._began) < due:
                await asyncio.sleep(min(due - now, 0.05))
            request = next(self._requests)
            if self._free:
                self._send(self._free.pop(), request, due)
            elif self._open >= CONNECTIONS:
                self._waiting.append((request, due))
            else:
                self._open += 1
                task = asyncio.create_task(self._connect(request, due))
                opening.add(task)
                task.add_done_callback(opening.discard)
            if len(self.found) % 64 == 0:
                await asyncio.sleep(0)  # behind or not, what was answered is read
        end = time.perf_counter() + LOST_SECONDS
        while (self._busy or opening or self._waiting) and time.perf_counter() < end:
            await asyncio.sleep(0.05)
        for _, due in self._waiting:
            self.found.append(Searched(due, time.perf_counter() - self._began - due, 0, False, 0.0))
        self._waiting.clear()
        for client in [*self._busy, *self._free]:
            client.close()
        for task in list(opening):
            task.cancel()
        await asyncio.sleep(0.1)

    def _dues(self) -> Iterator[float]:
        begins = 0.0
        for rate, seconds in self._stretches:
            due = begins
            while (due := due + self._draw.expovariate(rate)) < begins + seconds:
                yield due
            begins += seconds

    async def _connect(self, request: bytes, due: float) -> None:
        try:
            loop = asyncio.get_running_loop()
            _, client = await asyncio.wait_for(
                loop.create_connection(lambda: Client(self), "127.0.0.1", self._port), LOST_SECONDS
            )
        except (OSError, TimeoutError):
            self._open -= 1
            now = time.perf_counter() - self._began
            self.found.append(Searched(due, now - due, 0, False, 0.0))
            return
        self._send(client, request, due)

    def _send(self, client: Client, request: bytes, due: float) -> None:
        self._busy.add(client)
        client.ask(request, due, time.perf_counter() - self._began)


def quantile_ms(found: Sequence[Searched], q: float) -> float | None:
    """Of the answered; None where there are none."""
    times = [s.seconds for s in found if s.status == 200]
    return 1e3 * float(np.quantile(times, q)) if times else None


def recovery_seconds(after: Sequence[Searched], fell: float, normal: float, end: float) -> float | None:
    """Time from `fell` until searches were normal again, None where they never were, to a tenth of a second.

    Args:
        after: Searches that were due after the load fell.
        fell: When it did, as their `due`.
        normal: Time of a normal search, seconds.
        end: When the last was due.
    """
    for tenth in range(int(10 * (end - fell)) - 10):
        since = fell + tenth / 10
        second = [s for s in after if since <= s.due < since + 1]
        tenths = [[s for s in second if since + k / 10 <= s.due < since + (k + 1) / 10] for k in range(10)]
        if all(s.status == 200 for s in second) and all(not t or np.median([s.seconds for s in t]) <= normal for t in tenths):
            return tenth / 10
    return None


def level(
    times: float, capacity: float, server: Server, requests: Iterator[bytes], normal: float, a: argparse.Namespace
) -> Any:
    """One row: a stretch of overload, then of half the capacity."""
    before = server.memory_mb()
    load = OpenLoad(server.port, requests, [(times * capacity, a.seconds), (0.5 * capacity, a.after_seconds)], seed=int(times))
    found = load.run()
    memory = server.memory_mb()
    server.drained()
    time.sleep(a.rest_seconds)
    during, after = [s for s in found if s.due < a.seconds], [s for s in found if s.due >= a.seconds]
    accepted = [s for s in during if s.status == 200]
    made = {
        "times_capacity": times, "offered_per_second": times * capacity, "sent_per_second": len(during) / a.seconds,
        "accepted_per_second": len(accepted) / a.seconds,
        "refused_per_second": sum(s.status == 429 for s in during) / a.seconds,
        "other_statuses": sorted({s.status for s in during} - {200, 429}),
        "failed_per_second": sum(s.status not in (200, 429) for s in during) / a.seconds,
        "p50_ms": quantile_ms(during, 0.5), "p99_ms": quantile_ms(during, 0.99),
        "refused_p99_ms": 1e3 * float(np.quantile([s.seconds for s in during if s.status == 429] or [0.0], 0.99)),
        "rewritten_share": sum(s.rewritten for s in accepted) / max(1, len(accepted)),
        "memory_mb": {"before": before, "at_the_end": memory, "afterwards": server.memory_mb()},
        "recovery_s": recovery_seconds(after, a.seconds, normal, a.seconds + a.after_seconds),
        "generator": {"cpu_share": load.cpu_share, "lag_p99_ms": 1e3 * float(np.quantile([s.lag for s in during], 0.99))},
    }  # fmt: skip
    print(json.dumps(made), flush=True)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/launches/seed-0"), help="run folder of a demo")
    parser.add_argument("--seconds", type=float, default=180, help="of each level")
    parser.add_argument("--after-seconds", type=float, default=10, help="of half the capacity after each level")
    parser.add_argument("--rest-seconds", type=float, default=5, help="without load before memory is looked at again")
    parser.add_argument("--warm-seconds", type=float, default=30, help="of load before anything is measured")
    parser.add_argument("--times", type=float, action="append", help="level, times the capacity; repeatable; default: 1 2 5 20")
    parser.add_argument("--connections", type=int, default=8, help="of the closed load that measures the capacity")
    parser.add_argument("--smoke", action="store_true", help="nothing is written")
    a = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    pinned = {"generator": cores[0], "server": cores[1]} if len(cores) > 1 else None
    requests, measured_on = cycle(traffic(a.run, "/v1/search")), machine()  # before it is confined to a core
    if pinned:
        os.sched_setaffinity(0, {pinned["server"]})  # what starts from here inherits it
    server = Server(a.run, counterfactuals=0.1, cache={"size": 0})
    if pinned:
        os.sched_setaffinity(0, {pinned["generator"]})
    with server:
        closed(server.port, requests, a.warm_seconds, a.connections)
        server.drained()
        phase = closed(server.port, requests, min(a.seconds, 60), a.connections)
        capacity = (len(phase.replies) - phase.refused) / phase.seconds
        server.drained()
        calm = paced(server.port, requests, min(a.seconds, 60), capacity / 2, seed=0)
        server.drained()
        normal = {"p50_ms": calm.quantile_ms(0.5), "p95_ms": calm.quantile_ms(0.95), "p99_ms": calm.quantile_ms(0.99)}
        print(f"capacity {capacity:.1f} searches/s, at half of it {json.dumps(normal)}", flush=True)
        rows = [level(t, capacity, server, requests, normal["p95_ms"] / 1e3, a) for t in a.times or LEVELS]
    one = next((r["accepted_per_second"] for r in rows if r["times_capacity"] == 1), None)
    made = {
        "capacity_per_second": capacity, "half_the_capacity": normal, "levels": rows,
        "accepted_at_most_over_at_one": None if one is None else rows[-1]["accepted_per_second"] / one,
        "seconds": a.seconds, "cores": pinned, "deadlines_ms": Deadlines().model_dump(),
        "limits": Limits().model_dump(), "machine": measured_on, "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip
    if not a.smoke:
        (RESULTS / "overload.json").write_text(json.dumps(made, indent=1, allow_nan=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
