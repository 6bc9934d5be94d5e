"""Ten million documents on disk under a ranker and an engine that are not ours: what opening, training and serving take.

    python benchmarks/documents.py [--documents 10000000] [--out runs/documents]    # 10 M: 4 GB of disk, about 15 minutes

The documents (id, title, text, prior, popularity, a picture of 16 floats) are made up. A made-up engine finds them by
arithmetic on the words of a text and answers with ids, as a team's own engine would; a made-up model scores text against
title, text and picture. Then `corewrite cycle run` mines, trains and gates a week of a made-up log, `corewrite serve`
answers searches over HTTP, and log R of 20,000 instances is computed, each in processes of their own whose memory is read
from /proc: VmHWM, the largest size ever with every page of a mapped file that was touched (the index of the ids), and the
largest RssAnon, without those, which the kernel takes back when somebody else needs memory. Writes
benchmarks/results/documents.json.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corewrite.domain import Documents, TrainingInstance, words

IntArray = npt.NDArray[np.int64]
RESULTS = Path(__file__).parent / "results" / "documents.json"
MODULUS = 2_147_483_647
"""A prime: multiplying by a number modulo it never gives two documents one id."""
FIRST, ASPECTS, PER_TOPIC, SHOWN = 3_000, 100, 100, 10
"""Words that topics begin with, aspects there are, documents of a topic, results displayed."""
SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
ROW_GROUP = 100_000


# The documents: number i is of topic i % topics and of aspect i // topics. A topic is called by two words.


def word(kind: str, number: int) -> str:
    """Word `number` of a kind: what begins with its letter is of no other kind."""
    n = len(SYLLABLES)
    return kind + SYLLABLES[number % n] + SYLLABLES[number // n % n] + SYLLABLES[number // n // n % n]


def id_of(numbers: IntArray) -> list[str]:
    return [f"doc-{x:010d}" for x in ((numbers + 1) * 48_271 % MODULUS).tolist()]


def write_documents(path: Path, documents: int, seed: int) -> None:
    """Write them in row groups; no more than one is in memory."""
    rng = np.random.default_rng(seed)
    kinds = {"x": FIRST, "y": documents // PER_TOPIC // FIRST + 1, "z": ASPECTS, "n": 20_000}
    known = {kind: pa.array([word(kind, i) for i in range(n)]) for kind, n in kinds.items()}
    topics = documents // PER_TOPIC
    writer: pq.ParquetWriter | None = None
    for start in range(0, documents, ROW_GROUP):
        number = np.arange(start, min(start + ROW_GROUP, documents))
        n, topic = len(number), number % topics

        def noise(count: int, n: int = n) -> list[pa.Array]:
            return [known["n"].take(pa.array((20_000 * rng.random(n) ** 4).astype(np.int64))) for _ in range(count)]

        named = [
            known["x"].take(pa.array(topic % FIRST)), known["y"].take(pa.array(topic // FIRST)),
            known["z"].take(pa.array(number // topics)),
        ]  # fmt: skip
        picture = rng.normal(size=(n, 16)).astype(np.float32)
        table = pa.table(
            {
                "id": id_of(number),
                "title": pc.binary_join_element_wise(*named, *noise(3), " "),
                "text": pc.binary_join_element_wise(*noise(10), " "),
                "prior": 1.0 - rng.random(n),
                "popularity": rng.exponential(1_000.0, n),
                "visual": pa.FixedSizeListArray.from_arrays(pa.array(picture.ravel()), 16),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    assert writer is not None
    writer.close()


# The engine and the model, by `kind: python`.


class ArithmeticEngine:
    """Plays a team's index: from the words of a text to ids, by how the documents were made, with no table of them."""

    def __init__(self, documents: Documents, size: int) -> None:
        self.documents, self.topics = documents, size // PER_TOPIC
        self.number = {
            kind: {word(kind, i): i for i in range(n)}
            for kind, n in {"x": FIRST, "y": self.topics // FIRST + 1, "z": ASPECTS}.items()
        }

    def search_text(self, texts: Sequence[str], k: int) -> IntArray:
        out = np.full((len(texts), k), -1, np.int64)
        for i, text in enumerate(texts):
            rows = self.documents.rows(self.ids(text, k))
            out[i, : len(rows)] = rows
        return out

    def ids(self, text: str, k: int) -> list[str]:
        said = {kind: [known[w] for w in words(text) if w in known] for kind, known in self.number.items()}
        first, second, aspect = (numbers[0] if numbers else None for numbers in said.values())
        if first is None:
            return []
        seconds = range(self.topics // FIRST + 1) if second is None else [second]
        topics = [t for s in seconds if (t := first + FIRST * s) < self.topics]
        aspects = [a for a in range(PER_TOPIC) if a != aspect]
        if aspect is not None:
            aspects.insert(0, aspect)
        numbers = [t + self.topics * a for a in aspects for t in topics][:k]
        return id_of(np.array(numbers, np.int64))


def engine(documents: Documents, size: int) -> ArithmeticEngine:
    return ArithmeticEngine(documents, size)


def scorer() -> Any:
    """Words in common, and a little of the picture."""

    def score(inputs: Mapping[str, Any]) -> npt.NDArray[np.float64]:
        out = np.empty(len(inputs["text"]))
        for i, (text, document) in enumerate(zip(inputs["text"], inputs["document"], strict=True)):
            asked = set(words(text))
            met = len(asked & set(words(document)))
            out[i] = 2.0 * met - 1.2 * len(asked) - 0.5
        return np.asarray(1 / (1 + np.exp(-out - 0.1 * inputs["picture"][:, 0])))

    return score


# Users: they ask for a topic and an aspect, first too shortly, then in full.


def write_week(path: Path, week: int, searches: ArithmeticEngine, users: int) -> None:
    """A log of repaired searches."""
    from corewrite.logs.writer import UbiWriter

    rng = np.random.default_rng([7, week])
    with UbiWriter(path) as out:
        for user in range(users):
            at = 1_700_000_000.0 + 604_800 * week + 30.0 * user
            topic, aspect = int(rng.integers(searches.topics)), int(rng.integers(ASPECTS))
            full = [word("x", topic % FIRST), word("y", topic // FIRST), word("z", aspect)]
            (wanted,) = id_of(np.array([topic + searches.topics * aspect]))
            for attempt, text in enumerate((f"{full[0]} {full[2]}", " ".join(full))):
                query_id, hits = f"w{week}-{user}-{attempt}", searches.ids(text, SHOWN)
                about = {"query_id": query_id, "client_id": f"user-{user}"}
                session = f"s-{week}-{user}"
                out.query(
                    **about, user_query=text, timestamp=at + 20 * attempt, hit_ids=hits,
                    attributes={"session_id": session, "locale": "", "arm": "none"},
                )  # fmt: skip
                clicked = wanted if wanted in hits else hits[int(rng.integers(3))] if rng.random() < 0.6 else None
                if clicked is None:
                    continue
                watched = float(rng.uniform(20, 60) if clicked == wanted else rng.uniform(1, 4))
                more = {**about, "session_id": session, "object_id": clicked, "ordinal": hits.index(clicked) + 1}
                out.event("click", timestamp=at + 20 * attempt + 2, **more)
                out.event(
                    "watch", timestamp=at + 20 * attempt + 2 + watched, watch_seconds=watched, duration_seconds=60.0, **more
                )


def write_labels(path: Path, searches: ArithmeticEngine, count: int) -> None:
    rng = np.random.default_rng(8)
    rows = []
    for _ in range(count):
        topic, aspect = int(rng.integers(searches.topics)), int(rng.integers(ASPECTS))
        text = f"{word('x', topic % FIRST)} {word('y', topic // FIRST)} {word('z', aspect)}"
        for other, grade in ((aspect, 3.0), ((aspect + 1) % ASPECTS, 1.0)):
            rows.append((text, id_of(np.array([topic + searches.topics * other]))[0], grade))
        rows.append((text, id_of(rng.integers(0, searches.topics * PER_TOPIC, 1))[0], 0.0))
    query, document, grade = zip(*rows, strict=True)
    pq.write_table(pa.table({"query": query, "document_id": document, "grade": grade}), path)


def settings(out: Path, documents: int) -> dict[str, Any]:
    inputs = {"text": "text", "document": "document", "picture": "document.visual"}
    model = {"kind": "python", "factory": "documents:scorer", "version": "1", "inputs": inputs}
    recall = {"kind": "python", "factory": "documents:engine", "options": {"size": documents}}
    return {
        "run": str(out / "run"), "documents": str(out / "documents.parquet"), "logs": str(out / "logs"),
        "labels": str(out / "labels.parquet"), "frozen": str(out / "frozen.parquet"),
        "ranker": {"signals": {"relevance": model, "dense": model}, "recall": recall}, "refresh": {"relevance_every": 0},
        "warm_start": {"examples": 3_000, "epochs": 1.0}, "evaluation": {"gate_queries": 300, "watched_queries": 100},
        "training": {"phases": 2, "instances_per_phase": 400, "num_generations": 4, "minimum_gap": 0.001},
    }  # fmt: skip


# What a process takes.


class Memory(threading.Thread):
    """Reads the memory of a process and of those it starts, until told to stop."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._over = pid, threading.Event()
        self.peak: dict[str, dict[str, float]] = {}
        self.anonymous = 0.0

    def run(self) -> None:
        while not self._over.wait(0.1):
            together = 0.0
            for pid in [self._pid, *_children(self._pid)]:
                found = _status(pid)
                if not found:
                    continue
                together += found["RssAnon"]
                mine = self.peak.setdefault(str(pid), dict.fromkeys(found, 0.0))
                for name, value in found.items():
                    mine[name] = max(mine[name], value)
            self.anonymous = max(self.anonymous, together)

    def stop(self) -> dict[str, Any]:
        """MiB: the largest process, and what all of them together have that is not a file."""
        self._over.set()
        self.join()
        largest = max(self.peak.values(), key=lambda p: p["VmHWM"])
        return {
            "processes": len(self.peak), "largest_vm_hwm_mib": round(largest["VmHWM"]),
            "largest_rss_anon_mib": round(max(p["RssAnon"] for p in self.peak.values())),
            "rss_anon_of_all_mib": round(self.anonymous),
        }  # fmt: skip


def _status(pid: int) -> dict[str, float]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    except OSError:
        return {}
    found = dict(line.split(":", 1) for line in lines)
    return {name: int(found[name].split()[0]) / 1024 for name in ("VmHWM", "RssAnon", "RssFile") if name in found}


def _children(pid: int) -> list[int]:
    found, todo = [], [pid]
    while todo:
        for tasks in Path(f"/proc/{todo.pop()}/task").glob("*/children"):
            try:
                new = list(map(int, tasks.read_text("utf-8").split()))
            except OSError:
                continue
            found += new
            todo += new
    return found


@contextmanager
def measured(
    name: str, rows: list[dict[str, Any]], command: Sequence[str], exits: Sequence[int] = (0,)
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command; a row says what it took."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}
    print(f"{name} ...", flush=True)
    began, worked = time.monotonic(), _cpu_of_children()
    process = subprocess.Popen(command, env=environment)
    memory = Memory(process.pid)
    memory.start()
    try:
        yield process
        process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode not in exits:
        raise AssertionError(f"{name} ended with {process.returncode}")
    # Beside others the seconds say little: those of the processors are what the work takes.
    seconds = {"seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(_cpu_of_children() - worked, 1)}
    row = {"part": name, **seconds, **memory.stop()}
    rows.append(row)
    print(f"  {json.dumps(row)}", flush=True)


def _cpu_of_children() -> float:
    """Seconds of the processors that ended children took, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def part(name: str, *arguments: object) -> list[str]:
    return [sys.executable, __file__, "--part", name, *map(str, arguments)]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from corewrite.cli.main import app; app()", *map(str, arguments)]


# Parts that run in a process of their own.


def open_store(out: Path) -> None:
    from corewrite.search.document_store import DocumentStore

    began = time.monotonic()
    store = DocumentStore.open(out / "documents.parquet")
    print(f"  {len(store):,} documents in {time.monotonic() - began:.2f} s", flush=True)


def score(out: Path, documents: int, instances: int) -> None:
    """log R of instances found by id, 2 rewrites each."""
    from corewrite.deployment.deployment import Deployment
    from corewrite.deployment.documents import open_documents
    from corewrite.deployment.open import RankerOpener
    from corewrite.deployment.settings import RankerSettings
    from corewrite.domain import Query
    from corewrite.fusion import default_spec

    ranker = RankerSettings.model_validate(settings(out, documents)["ranker"])
    opened = open_documents(out / "documents.parquet", ranker)
    deployment = Deployment(RankerOpener(ranker, opened).build(None), default_spec())
    rng, topics = np.random.default_rng(9), documents // PER_TOPIC
    made, rewrites = [], []
    for i in range(instances):
        topic, aspect = int(rng.integers(topics)), int(rng.integers(ASPECTS))
        full = [word("x", topic % FIRST), word("y", topic // FIRST), word("z", aspect)]
        good, *bad = id_of(np.array([topic + topics * aspect, *rng.integers(0, documents, 8)]))
        made.append(TrainingInstance(f"q{i}", f"u{i}", Query(full[0]), (good,), (1.0,), tuple(bad), (1.0,) * 8))
        rewrites.append([" ".join(full), f"{full[0]} {full[2]}"])
    began = time.monotonic()
    earned = np.array(deployment.reward(made, rewrites))
    rate = instances / (time.monotonic() - began)
    print(f"  log R {earned.mean(0).round(3).tolist()}, {rate:.0f} instances a second", flush=True)
    if not (np.isfinite(earned).all() and (earned.mean(0) > 0).all()):
        raise AssertionError("rewrites that say more of what is wanted must earn something")


def promote_start(out: Path) -> None:
    """Where the gate held the week's candidate, what training began from is promoted by hand: something must serve."""
    from dataclasses import replace

    from corewrite.registry import Registry
    from corewrite.rewriter import load_rewriter

    registry = Registry(out / "run" / "registry")
    if registry.champion() is None:
        candidate = next(d.candidate for d in registry.decisions() if d.candidate is not None)
        start = registry.save("policy", load_rewriter(out / "run" / "cycles" / "week-1" / "start").save, {})
        made_up = {"override": True}
        registry.promote(replace(candidate, policy=start.hash), expected=None, reason="benchmark", evidence=made_up)


def search_over_http(port: int, searches: ArithmeticEngine, count: int) -> dict[str, Any]:
    """Closed loop, one connection's worth: what came back, and how long each took."""
    rng, seconds, right = np.random.default_rng(10), [], 0
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
    for i in range(count):
        topic, aspect = int(rng.integers(searches.topics)), int(rng.integers(ASPECTS))
        text = f"{word('x', topic % FIRST)} {word('y', topic // FIRST)} {word('z', aspect)}"
        began = time.monotonic()
        body = {"query": text, "client_id": f"c{i}", "session_id": f"s{i}", "depth": SHOWN}
        found = client.post("/v1/search", json=body).raise_for_status().json()
        seconds.append(time.monotonic() - began)
        right += id_of(np.array([topic + searches.topics * aspect]))[0] == found["results"][0]["id"]
    return {
        "searches": count, "first_result_is_the_one_wanted": round(right / count, 3),
        "ms_p50": round(1e3 * float(np.median(seconds)), 1), "ms_p99": round(1e3 * float(np.quantile(seconds, 0.99)), 1),
    }  # fmt: skip


def wait_until_ready(port: int, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(1_200):
        if process.poll() is not None:
            raise AssertionError("the server ended")
        with suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200:
                return
        time.sleep(0.5)
    raise AssertionError("the server was not ready in ten minutes")


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def measure(out: Path, documents: int, searches: int, instances: int) -> None:
    from corewrite.studies.summary import machine

    rows: list[dict[str, Any]] = []
    out.mkdir(parents=True, exist_ok=True)
    path = out / "documents.parquet"
    if not path.is_file():
        with measured("write the documents (ours to make up)", rows, part("write", "--out", out, "--documents", documents)):
            pass
        rows.clear()
    engine_of_log = ArithmeticEngine(None, documents)  # type: ignore[arg-type]
    for week in range(2):
        write_week(out / "logs" / f"week-{week}.ndjson", week, engine_of_log, 3_000)
    write_labels(out / "labels.parquet", engine_of_log, 400)
    config = out / "corewrite.yaml"
    config.write_text(json.dumps(settings(out, documents), indent=1), "utf-8")
    for left in (out / ".documents.parquet.store", out / "run", out / "frozen.parquet"):
        remove(left)
    with measured("convert", rows, part("open", "--out", out)):
        pass
    with measured("open", rows, part("open", "--out", out)):
        pass
    scored = part("score", "--out", out, "--documents", documents, "--instances", instances)
    with measured(f"score {instances} instances", rows, scored):
        pass
    with measured("cycle run", rows, command("cycle", "run", "--config", config, "--week", "week-1"), (0, 3, 4)):
        pass
    promote_start(out)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with measured(f"serve {searches} searches", rows, command("serve", "--config", config, "--port", port)) as process:
        wait_until_ready(port, process)
        found = search_over_http(port, engine_of_log, searches)
        process.send_signal(signal.SIGTERM)
    rows[-1] |= found
    store = next((out / ".documents.parquet.store").glob("*/documents.arrow"))
    about = {
        "documents": documents, "parquet_mib": round(path.stat().st_size / 2**20),
        "converted_mib": round(sum(f.stat().st_size for f in store.parent.iterdir()) / 2**20),
        "machine": machine(), "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip
    (out / "documents.json").write_text(json.dumps({**about, "parts": rows}, indent=1) + "\n", "utf-8")
    if documents >= 10_000_000:
        RESULTS.write_text((out / "documents.json").read_text("utf-8"), "utf-8")
    over = [row["part"] for row in rows if row["largest_vm_hwm_mib"] >= 4 * 1024]
    print(f"over 4 GiB: {', '.join(over)}" if over else "every process stayed under 4 GiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=10_000_000)
    parser.add_argument("--searches", type=int, default=2_000)
    parser.add_argument("--instances", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=Path("runs/documents"))
    parser.add_argument("--part", choices=("write", "open", "score"), help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.part == "write":
        write_documents(a.out / "documents.parquet", a.documents, seed=0)
    elif a.part == "open":
        open_store(a.out)
    elif a.part == "score":
        score(a.out, a.documents, a.instances)
    else:
        measure(a.out, a.documents, a.searches, a.instances)


if __name__ == "__main__":
    main()
