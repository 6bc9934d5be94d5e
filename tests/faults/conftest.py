"""Real servers over a tiny platform, to be broken while they are searched."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from corewrite.domain import Context, Query
from corewrite.fusion import default_spec
from corewrite.registry import Candidate, Registry
from corewrite.relevance import DenseScorer, cold_start
from corewrite.rewriter import Example, fine_tune, new_small_decoder
from corewrite.search.documents import write_catalogue
from corewrite.search.embedded import embedded_cascade
from corewrite.simulation.config import WorldConfig
from corewrite.simulation.world import make_world

HERE = Path(__file__).parent


def module(name, file):
    """A file beside the tests; their import mode does not make them a package."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


serving = module("corewrite_serving_conftest", HERE.parent / "serving" / "conftest.py")
load = module("corewrite_faults_load", HERE / "load.py")
model_server = module("corewrite_faults_model_server", HERE / "model_server.py")


def taught(catalogue, seed):
    """A tiny policy that has something to say: for each of a few queries the start of some title."""
    policy = new_small_decoder([*catalogue.titles, *catalogue.texts], seed=seed, vocabulary=1500, width=32, layers=1, heads=2)
    targets = [" ".join(catalogue.titles[(37 * seed + k) % len(catalogue)].split()[:3]) for k in range(20)]
    asked = [Query(" ".join(t.split()[:2]), Context(("before 123 4",))) for t in catalogue.titles[:140:7]]
    examples = [Example(q, target) for q, target in zip(asked, targets, strict=True)] * 8
    fine_tune(policy, examples, epochs=25, seed=seed, learning_rate=3e-2, batch=32)
    return policy


@pytest.fixture(scope="session")
def platform(tmp_path_factory):
    """A platform with a first policy, promoted, and a second."""
    folder = tmp_path_factory.mktemp("platform")
    catalogue = make_world(WorldConfig(seed=2, videos=800, entities=25)).catalogue
    write_catalogue(catalogue, folder / "documents.parquet")
    registry, text = Registry(folder / "registry"), default_spec().model_dump_json()
    spec = registry.save("spec", lambda f: (f / "fusion.yaml").write_text(text) and None, {})
    relevance = registry.save("relevance", cold_start(catalogue).save, {})
    policies = [registry.save("policy", taught(catalogue, seed).save, {}) for seed in (1, 2)]
    first, second = (Candidate(p.hash, relevance.hash, spec.hash) for p in policies)
    registry.promote(first, expected=None, reason="test", evidence=None)
    return serving.Platform(folder, catalogue, first, second)


@dataclass(eq=False)
class Server:
    """A server process, its platform, and what may be done to it."""

    process: subprocess.Popen
    port: int
    platform: object
    control: Path
    output: Path

    @property
    def http(self):
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10)

    def metric(self, name):
        with self.http as http:
            lines = http.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def break_rewriter(self, fault):
        part = self.control.with_suffix(".part")
        part.write_text(json.dumps({"rewriter": fault}))
        part.replace(self.control)

    def rewriters(self):
        """Process ids: children of the process that they are cloned from, which is a child of the server."""
        return [pid for child in children(self.process.pid) for pid in children(child)]

    def kill(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def children(pid):
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] + [
            int(p) for task in Path(f"/proc/{pid}/task").iterdir() if task.name != str(pid)
            for p in (task / "children").read_text().split()
        ]  # fmt: skip
    except OSError:
        return []


def wait(condition, seconds, what="the condition"):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)


def start(platform, folder, **settings):
    """A server that is ready."""
    port, control, output = serving.free_port(), folder / "faults.json", folder / "server.log"
    config = folder / "corewrite.yaml"
    # Deadlines that a busy machine of tests can meet, and that a rewriter ten times slower (150 ms) cannot.
    deadlines = {"recall": 80, "rawrank": 100, "finerank": 130}
    platform.file(config, port=port, deadlines=deadlines, **settings)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COREWRITE_FAULTS": str(control)}
    with output.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "faulty_server.py"), str(config)], env=environment, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
    server = Server(process, port, platform, control, output)

    def ready():
        assert process.poll() is None, output.read_text()
        try:
            with server.http as http:
                return http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait(ready, 120, f"a server; {output}")
    except BaseException:
        server.kill()
        raise
    return server


@pytest.fixture(scope="session")
def kit():
    """The helpers of this folder."""
    return SimpleNamespace(
        load=load, wait=wait, start=start, taught=taught, ranked=ranked, ModelServer=model_server.ModelServer
    )


@pytest.fixture(scope="session")
def cascade(platform):
    """The ranker itself, beside the servers."""
    return embedded_cascade(
        platform.catalogue, DenseScorer(cold_start(platform.catalogue).bind(platform.catalogue)), default_spec()
    )


def ranked(cascade, query, rewrite=None, depth=10, stage="finerank"):
    """Ids and scores of the ranker."""
    trace = cascade.trace([query], [rewrite])
    found = getattr(trace, stage)
    rows, score = found.rows[0], found.fusion.score[0]
    order = sorted((i for i in range(len(rows)) if rows[i] >= 0), key=lambda i: (-found.fusion.log_score[0, i], rows[i]))
    return [(cascade.catalogue.ids[rows[i]], float(score[i])) for i in order[:depth]]


@pytest.fixture(scope="session")
def queries(platform):
    return platform.queries(20)


@pytest.fixture(scope="session")
def plain(cascade, queries):
    """The answer without a rewriter, by query."""
    return {q: ranked(cascade, q) for q in queries}


@pytest.fixture
def note():
    """Writes a row of the table of faults where COREWRITE_FAULTS_TABLE names a file; prints it in any case."""

    def write(fault, answers, **more):
        row = {"fault": fault, **load.summary(answers), **more}
        print(json.dumps(row))
        if "COREWRITE_FAULTS_TABLE" in os.environ:
            with Path(os.environ["COREWRITE_FAULTS_TABLE"]).open("a") as file:
                file.write(json.dumps(row) + "\n")

    return write


@pytest.fixture(scope="session")
def redis():
    if shutil.which("redis-server") is None:
        yield None
        return
    started = serving.RedisServer()
    yield started
    started.kill()


@pytest.fixture(scope="session")
def log_folder(tmp_path_factory):
    """A folder on a small disk of its own, where this user may mount one; else on the disk of the tests."""
    folder = tmp_path_factory.mktemp("log")
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    mounted = shutil.which("mount") is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0
    yield SimpleNamespace(path=folder, mounted=mounted)
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.fixture(scope="session")
def server(platform, redis, log_folder, tmp_path_factory):
    """One server for most faults: that it is whole again after each is a part of what is tested."""
    log = {"folder": str(log_folder.path), "query_text": True, "rotate_bytes": 2**20, "counterfactual_share": 0.5}
    cache = {"redis_url": None if redis is None else redis.url, "redis_timeout_ms": 50, "insecure": redis is not None}
    rewriter = {"probe_seconds": 0.5}
    started = start(platform, tmp_path_factory.mktemp("server"), cache=cache, log=log, rewriter=rewriter)
    yield started
    started.kill()
