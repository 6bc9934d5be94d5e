"""What a server with a rewriter can do on two cores, the load generator among it, beside one without, and what broke it.

    python benchmarks/serving.py                      # about 25 minutes; writes benchmarks/results/serving.json
    python benchmarks/serving.py --seconds 5 --repeats 1 --smoke    # whether it runs: nothing is written
    python benchmarks/serving.py --only soak --soak-minutes 30
    python benchmarks/serving.py --faults             # tests/faults, promotion every second for two minutes; faults.json

Traffic is week 1 of a demo run's log, in its order: queries with their contexts, heads and tails as they came, each
server starting with an empty cache. Servers are those of `corewrite serve --run`, one worker, default deadlines (25, 35,
50 ms), texts logged. `peer` is the same server with the rewriter switched off and no other answer computed, up at the same
time (idle while the other is measured) and given the same requests in turn; where there is no peer, `target` is what is
wanted.

Two kinds of load. Closed: a few connections, each asking again as soon as it is answered, for searches per second; the time
until the last other answer is computed and logged is a part of it. Paced: arrivals as of a Poisson process at a stated rate,
whoever waits; time counts from when a search was due, so that a server that falls behind cannot hide it. The generator is
one asyncio process with bare sockets; its own CPU time per request is a row.
"""

import argparse
import asyncio
import gc
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from setting import write_rows

from corewrite.domain import query_to_json
from corewrite.logs import build_query, find_outcomes, read_log
from corewrite.serving.settings import Deadlines
from corewrite.studies.summary import machine

RESULTS = Path(__file__).parent / "results"
FAILED = {"late", "failed", "overloaded", "stale", "starting", "garbage"}
"""`rewrite_status` of a search that went without for a reason of the rewriter's, not the policy's."""
MEASURES = ("search-all", "search-tenth", "rewrite", "soak")


@dataclass(frozen=True)
class Reply:
    """Seconds from when it was due to its end, HTTP status, body."""

    seconds: float
    status: int
    body: bytes


@dataclass(frozen=True)
class Phase:
    """What one stretch of load found.

    Attributes:
        replies: Of all requests, in the order of their ends.
        seconds: How long it took.
        cpu_ms: CPU time of the generator per request, milliseconds.
    """

    replies: list[Reply]
    seconds: float
    cpu_ms: float

    @property
    def rate(self) -> float:
        return len(self.replies) / self.seconds

    def quantile_ms(self, q: float) -> float:
        return 1e3 * float(np.quantile([r.seconds for r in self.replies], q))

    @property
    def refused(self) -> int:
        """Requests that were not answered 200: with 429, where more were in flight than the server takes."""
        return sum(r.status != 200 for r in self.replies)

    def told(self) -> list[dict[str, Any]]:
        return [json.loads(r.body) for r in self.replies if r.status == 200]


class Connection:
    """One connection, kept alive while it is used; the server closes one that idles for 5 s."""

    def __init__(self, port: int) -> None:
        self._port, self._used = port, 0.0
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes, due: float) -> Reply:
        if self._streams is None or time.perf_counter() - self._used > 3:
            self.close()
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        place = head.lower().index(b"content-length:") + 15
        body = await reader.readexactly(int(head[place : head.index(b"\r\n", place)]))
        self._used = time.perf_counter()
        return Reply(time.perf_counter() - due, int(head[9:12]), body)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


def closed(port: int, requests: Iterator[bytes], seconds: float, connections: int) -> Phase:
    """As many requests as `connections` clients that never pause get answered."""
    replies: list[Reply] = []

    async def client(end: float) -> None:
        connection = Connection(port)
        while time.perf_counter() < end:
            replies.append(await connection.ask(next(requests), time.perf_counter()))
        connection.close()

    async def run() -> None:
        end = time.perf_counter() + seconds
        await asyncio.gather(*(client(end) for _ in range(connections)))

    return _phase(run, replies)


def paced(port: int, requests: Iterator[bytes], seconds: float, rate: float, seed: int) -> Phase:
    """Requests at `rate` a second as they would come from many clients who know nothing of each other."""
    replies: list[Reply] = []
    free: list[Connection] = []

    async def one(request: bytes, due: float) -> None:
        connection = free.pop() if free else Connection(port)
        replies.append(await connection.ask(request, due))
        free.append(connection)

    async def run() -> None:
        draw, began, tasks = random.Random(seed), time.perf_counter(), []
        due = began
        while (due := due + draw.expovariate(rate)) < began + seconds:
            await asyncio.sleep(due - time.perf_counter())
            tasks.append(asyncio.create_task(one(next(requests), due)))
        await asyncio.gather(*tasks)
        for connection in free:
            connection.close()

    return _phase(run, replies)


def _phase(run: Callable[[], Any], replies: list[Reply]) -> Phase:
    # A full collection of the generator takes 0.4 s, which every search that is due meanwhile would be charged with.
    gc.collect()
    gc.disable()
    began, cpu = time.perf_counter(), time.process_time()
    try:
        asyncio.run(run())
    finally:
        gc.enable()
    return Phase(replies, time.perf_counter() - began, 1e3 * (time.process_time() - cpu) / max(1, len(replies)))


def traffic(run: Path, path: str) -> list[bytes]:
    """HTTP requests of the log of week 1, in its order."""
    outcomes = find_outcomes(read_log(run / "logs" / "week-1.ndjson.gz"))
    found = []
    for i in np.argsort(outcomes.timestamp, kind="stable"):
        query = build_query(outcomes, i)
        body: dict[str, Any] = query_to_json(query)
        if path == "/v1/search":
            body["client_id"] = str(outcomes.user_id[i])
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        found.append(head.encode() + data)
    return found


class Server:
    """`corewrite serve` over a run, with an empty cache; `with Server(...) as server`."""

    def __init__(self, run: Path, *, enabled: bool = True, counterfactuals: float = 0.0, **settings: Any) -> None:
        """Start one; `settings` are more of the section `serve`."""
        self._folder = tempfile.TemporaryDirectory(prefix="corewrite-bench-")
        folder = Path(self._folder.name)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        serve = {
            "enabled": enabled, "kill_file": str(folder / "killed"), "arms": {"holdback": 0},
            "log": {
                "folder": str(folder / "log"), "insecure": True, "query_text": True, "counterfactual_share": counterfactuals
            },
            **settings,
        }  # fmt: skip
        config = folder / "corewrite.yaml"
        config.write_text(json.dumps({"serve": serve}))
        self._output = folder / "output"
        command = [sys.executable, "-c", "from corewrite.cli.main import app; app()", "serve", "--port", str(self.port)]
        with self._output.open("wb") as out:
            self.process = subprocess.Popen(
                [*command, "--run", str(run), "--config", str(config)], stdout=out, stderr=out,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}, start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> "Server":
        end = time.monotonic() + 180
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > end:
                text = self._output.read_text()
                self.__exit__()
                raise RuntimeError(f"the server did not start: {text}")
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
        self._folder.cleanup()

    def _ready(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def metrics(self) -> Counter[str]:
        """Every number of /metrics, summed over its labels."""
        found: Counter[str] = Counter()
        for line in httpx.get(f"http://127.0.0.1:{self.port}/metrics", timeout=30).text.splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found[name.partition("{")[0]] += float(value)
        return found

    def drained(self) -> Counter[str]:
        """The metrics, when every search has its line in the log; the other answers are a part of those."""
        end = time.monotonic() + 60
        while True:
            m = self.metrics()
            if m["corewrite_log_lines_written"] + m["corewrite_log_lines_dropped"] >= m["corewrite_searches_total"]:
                return m
            if time.monotonic() > end:
                raise RuntimeError("the log does not catch up with the searches")
            time.sleep(0.1)

    def memory_mb(self) -> float:
        """Proportional set size of the server and all its processes, MB: what two of them share counts once."""
        return sum(_pss(pid) for pid in _family(self.process.pid)) / 1e6


def _family(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += _family(int(child))
    return found


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def row(measure: str, ours: Sequence[float], unit: str, peer: Sequence[float] | None = None, **more: Any) -> dict[str, Any]:
    """Medians over repeats."""
    own, other = statistics.median(ours), None if peer is None else statistics.median(peer)
    made = {
        "measure": measure, "ours": own, "peer": other, "ratio": own / other if other else None, "unit": unit,
        "repeats": len(ours), "of_each": [list(ours), None if peer is None else list(peer)], **more, "machine": machine(),
        "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip
    versus = "" if other is None else f"   peer {other:9.4g}"
    print(f"{measure:<46} {own:9.4g}{versus} {unit}   {more}", flush=True)
    return made


def searches(run: Path, share: float, rate: float, name: str, a: argparse.Namespace) -> list[dict[str, Any]]:
    """Searches per second, then times at a stated rate, with and without the rewriter in turn."""
    requests = traffic(run, "/v1/search")
    ours, theirs = cycle(requests), cycle(requests)
    most: list[list[float]] = [[], []]
    p50: list[list[float]] = [[], []]
    p99: list[list[float]] = [[], []]
    added50, added99, neutral, late_recall, silent, cpu = [], [], [], [], [], []
    refused = 0
    with Server(run, counterfactuals=share) as with_it, Server(run, enabled=False) as without:
        sides = ((with_it, ours), (without, theirs))
        for server, source in sides:  # word tables and code paths fill; the caches have the rest of the week to do so
            paced(server.port, source, a.warm_seconds, rate / 2, seed=99)
        before = with_it.drained()
        for repeat in range(a.repeats):
            for k, (server, source) in enumerate(sides):
                # Not measured: a server that idled while the other was asked was seen to begin with a stall.
                paced(server.port, source, a.lead_seconds, rate, seed=1_000 + repeat)
                phase = paced(server.port, source, a.seconds, rate, seed=repeat)
                p50[k].append(phase.quantile_ms(0.5))
                p99[k].append(phase.quantile_ms(0.99))
                told = phase.told()
                refused += phase.refused
                if k == 0:
                    neutral.append(float(np.mean([t["rewrite_status"] in FAILED for t in told])))
                    silent.append(float(np.mean([set(t["signal_status"].values()) == {"neutral"} for t in told])))
                    used = [t["signal_status"] for t in told if t["rewrites"]]
                    late_recall.append(float(np.mean([s["recall.candidates"] == "timeout" for s in used])))
                    cpu.append(phase.cpu_ms)
                server.drained()
            added50.append(p50[0][-1] - p50[1][-1])
            added99.append(p99[0][-1] - p99[1][-1])
        for _ in range(a.repeats):
            for k, (server, source) in enumerate(sides):
                phase = closed(server.port, source, a.seconds, a.connections)
                began = time.perf_counter()
                refused += phase.refused
                # Until the last other answer is computed and written: they count too.
                server.drained()
                most[k].append(len(phase.replies) / (phase.seconds + time.perf_counter() - began))
        after = with_it.drained()
    gone = {key: after[key] - before[key] for key in after}
    made, found = gone["corewrite_counterfactuals_total"], gone["corewrite_searches_total"]
    hits = gone["corewrite_cache_hits"] / max(1.0, gone["corewrite_cache_hits"] + gone["corewrite_cache_misses"])
    facts = {
        "counterfactuals_per_search": made / found, "log_lines_dropped": gone["corewrite_log_lines_dropped"],
        "cache_hit_share": hits, "refused": refused, "deadlines_ms": Deadlines().model_dump(),
    }  # fmt: skip
    paced_facts = {"offered_per_second": rate, **facts}
    return [
        row(f"{name}_searches_per_second", most[0], "searches/s", most[1], target=rate, connections=a.connections, **facts),
        row(f"{name}_p50_at_{rate:.0f}", p50[0], "ms", p50[1], **paced_facts),
        row(f"{name}_p99_at_{rate:.0f}", p99[0], "ms", p99[1], target=80, **paced_facts),
        row(f"{name}_added_p50_at_{rate:.0f}", added50, "ms"),
        row(f"{name}_added_p99_at_{rate:.0f}", added99, "ms"),
        row(f"{name}_neutral_share_at_{rate:.0f}", neutral, "share", target=0.01, **paced_facts),
        row(f"{name}_late_for_recall_only_share", late_recall, "share of searches with a rewrite"),
        row(f"{name}_left_alone_by_policy_share", silent, "share"),
        row(f"{name}_load_generator_cpu", cpu, "ms a request"),
    ]


def rewrites(run: Path, a: argparse.Namespace) -> list[dict[str, Any]]:
    """Rewrites alone, of requests that were seen before."""
    requests = list(islice(traffic(run, "/v1/rewrite"), 2_000))
    with Server(run) as server:
        for _ in range(2):  # the first pass fills, the second shows that it did
            begun = _cached(server, lambda: _all(server.port, requests))[1]
        assert begun > 0.99, begun
        rates, p99, cached, cpu = [], [], [], []
        for _ in range(a.repeats):
            phase, share = _cached(server, lambda: closed(server.port, cycle(requests), a.seconds, a.connections))
            rates.append(phase.rate)
            p99.append(phase.quantile_ms(0.99))
            cached.append(share)
            cpu.append(phase.cpu_ms)
    return [
        row("cached_rewrites_per_second", rates, "rewrites/s", target=1_000, cached_share=min(cached)),
        row("cached_rewrites_p99", p99, "ms", connections=a.connections),
        row("cached_rewrites_load_generator_cpu", cpu, "ms a request"),
    ]


def _all(port: int, requests: Sequence[bytes]) -> Phase:
    replies: list[Reply] = []
    left = iter(requests)

    async def client() -> None:
        connection = Connection(port)
        for request in left:
            replies.append(await connection.ask(request, time.perf_counter()))
        connection.close()

    async def run() -> None:
        await asyncio.gather(*(client() for _ in range(16)))

    return _phase(run, replies)


def _cached(server: Server, load: Callable[[], Phase]) -> tuple[Phase, float]:
    """A load, and the share of its rewrites that were in the cache: the answers do not say."""
    before = server.metrics()["corewrite_cache_hits"]
    phase = load()
    return phase, (server.metrics()["corewrite_cache_hits"] - before) / len(phase.replies)


def soak(run: Path, a: argparse.Namespace) -> list[dict[str, Any]]:
    """Memory under steady traffic, the week over and over; flat once the week has been seen."""
    requests = traffic(run, "/v1/search")
    source, samples, slowest, failed = cycle(requests), [], [], 0
    with Server(run, counterfactuals=1.0) as server:
        began = time.perf_counter()
        while (at := time.perf_counter() - began) < 60 * a.soak_minutes:
            stretch = min(20.0, 60 * a.soak_minutes - at)
            phase = paced(server.port, source, max(1.0, stretch), a.soak_rate, seed=int(at))
            failed += phase.refused
            slowest.append(phase.quantile_ms(0.99))
            samples.append((round(time.perf_counter() - began), round(server.memory_mb(), 1)))
        m = server.drained()
    half = samples[len(samples) // 2 :]
    growth = 0.0 if len(half) < 2 else float(np.polyfit(*zip(*half, strict=True), 1)[0] * 60)
    facts = {
        "minutes": a.soak_minutes, "offered_per_second": a.soak_rate, "searches": m["corewrite_searches_total"],
        "failed": failed, "distinct_requests": len(set(requests)), "mb_by_second": samples,
        "log_lines_dropped": m["corewrite_log_lines_dropped"],
        "rewriter_restarts": m["corewrite_rewriter_restarts"],
    }  # fmt: skip
    return [
        row("soak_memory", [samples[-1][1]], "MB", [half[0][1]], peer_is="the same server half way", **facts),
        row("soak_memory_growth_second_half", [growth], "MB a minute"),
        row("soak_p99_worst_20_seconds", [max(slowest)], "ms"),
    ]


def faults(seconds: float, *, write: bool) -> int:
    """Run tests/faults and keep the table that they make."""
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table.ndjson"
        table.touch()
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "tests/faults"], cwd=root, check=False,
            env={**os.environ, "COREWRITE_FAULTS_TABLE": str(table), "COREWRITE_FAULTS_SECONDS": str(seconds)},
        )  # fmt: skip
        rows = [json.loads(line) for line in table.read_text("utf-8").splitlines()]
    for found in rows:
        print(
            f"{found['fault']:<58} {found['searches']:5d} searches, {found['failed']} failed, {found['neutral']} neutral, "
            f"recovered in {found['recovery_s']:.2f} s"
        )
    if write:
        about = {"machine": machine(), "date": datetime.now(UTC).date().isoformat(), "exit_code": done.returncode}
        (RESULTS / "faults.json").write_text(json.dumps({**about, "rows": rows}, indent=1, allow_nan=False) + "\n", "utf-8")
    return done.returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/launches/seed-0"), help="run folder of a demo")
    parser.add_argument("--only", choices=MEASURES, action="append", help="repeatable; default: all")
    parser.add_argument("--seconds", type=float, default=60, help="of each stretch of load")
    parser.add_argument("--warm-seconds", type=float, default=30, help="of load before anything is measured")
    parser.add_argument("--lead-seconds", type=float, default=5, help="of load before each paced stretch, not measured")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--connections", type=int, default=8, help="of the closed load")
    parser.add_argument("--soak-minutes", type=float, default=10)
    parser.add_argument("--soak-rate", type=float, default=100, help="searches a second of the soak")
    parser.add_argument("--faults", action="store_true", help="run tests/faults instead")
    parser.add_argument("--fault-seconds", type=float, default=120, help="of promotion and rollback every second")
    parser.add_argument("--smoke", action="store_true", help="nothing is written")
    a = parser.parse_args()
    if a.faults:
        sys.exit(faults(a.fault_seconds, write=not a.smoke))
    measures: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "search-all": lambda: searches(a.run, 1.0, 100, "all_counterfactuals", a),
        "search-tenth": lambda: searches(a.run, 0.1, 150, "tenth_counterfactuals", a),
        "rewrite": lambda: rewrites(a.run, a),
        "soak": lambda: soak(a.run, a),
    }
    for name in a.only or MEASURES:
        rows = measures[name]()
        if not a.smoke:
            write_rows(rows, RESULTS / "serving.json")


if __name__ == "__main__":
    main()
