"""A tiny platform with two promoted policies; a rewriter that is made up, for faults, and a real one."""

import asyncio
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvicorn

from corewrite.domain import Catalogue, Query
from corewrite.domain.filters import NO_FILTERS, RewriteFilters, load_filters
from corewrite.fusion import default_spec
from corewrite.registry import Candidate, Registry
from corewrite.relevance import cold_start
from corewrite.rewriter import TemplateConfig, new_small_decoder
from corewrite.search.documents import write_catalogue
from corewrite.serving.app import build_app
from corewrite.serving.cache import MemoryCache
from corewrite.serving.protocol import uvicorn_options
from corewrite.serving.rewriting import PolicyRewriter
from corewrite.serving.service import Service
from corewrite.serving.settings import RewriterSettings, ServeConfig, ServeSettings
from corewrite.simulation.config import WorldConfig
from corewrite.simulation.world import make_world


def keyed(log: dict[str, Any]) -> dict[str, Any]:
    """Settings of a log that need no secret; tests of secrets say so."""
    return log if "folder" not in log or "salt_env" in log else {"insecure": True, **log}


@dataclass(frozen=True)
class Platform:
    """Documents and a registry whose champion is `first`; `second` is saved, not promoted."""

    folder: Path
    catalogue: Catalogue
    first: Candidate
    second: Candidate

    @property
    def registry(self) -> Registry:
        return Registry(self.folder / "registry")

    def promote(self, candidate: Candidate) -> None:
        champion = self.registry.champion()
        expected = None if champion is None else champion.version
        self.registry.promote(candidate, expected=expected, reason="test", evidence=None)

    def rollback(self) -> None:
        champion = self.registry.champion()
        assert champion is not None
        self.registry.rollback(expected=champion.version, reason="test")

    def config(self, **changes: Any) -> ServeConfig:
        settings = {
            "registry": self.folder / "registry",
            "documents": self.folder / "documents.parquet",
            "poll_seconds": 0.1,
            # Generous: the machine of a test is busy, and a test of lateness sets its own.
            "deadlines": {"recall": 5_000, "rawrank": 5_000, "finerank": 5_000},
            **changes,
            "log": keyed(changes.get("log", {})),
            # So that every client of a test has a rewriter; tests of the holdback say so.
            "arms": {"holdback": 0, **changes.get("arms", {})},
        }
        return ServeConfig.model_validate(settings)

    def file(self, path: Path, **changes: Any) -> Path:
        """The settings as a `corewrite.yaml`."""
        config = self.config(**changes)
        serve = config.model_dump(mode="json", include=set(ServeSettings.model_fields), exclude_defaults=True)
        sections = {"run": str(self.folder), "ranker": config.ranker.model_dump(mode="json", by_alias=True), "serve": serve}
        path.write_text(json.dumps(sections))
        return path

    def queries(self, n: int) -> list[str]:
        """Words of titles, two at a time."""
        return [" ".join(title.split()[:2]) for title in self.catalogue.titles[: 7 * n : 7]]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    folder = tmp_path_factory.mktemp("platform")
    catalogue = make_world(WorldConfig(seed=2, videos=800, entities=25)).catalogue
    write_catalogue(catalogue, folder / "documents.parquet")
    registry = Registry(folder / "registry")
    spec_text = default_spec().model_dump_json()
    spec = registry.save("spec", lambda f: (f / "fusion.yaml").write_text(spec_text) and None, {})
    relevance = registry.save("relevance", cold_start(catalogue).save, {})
    texts = [*catalogue.titles, *catalogue.texts]
    policies = []
    for seed in (1, 2):
        rewriter = new_small_decoder(texts, seed=seed, vocabulary=400, width=16, layers=1, heads=2)
        policies.append(registry.save("policy", rewriter.save, {}))
    first, second = (Candidate(p.hash, relevance.hash, spec.hash) for p in policies)
    registry.promote(first, expected=None, reason="test", evidence=None)
    return Platform(folder, catalogue, first, second)


@pytest.fixture
def platform(made: Platform, tmp_path: Path) -> Platform:
    """A copy that a test may promote in."""
    folder = tmp_path / "platform"
    shutil.copytree(made.folder, folder)
    return Platform(folder, made.catalogue, made.first, made.second)


Behaviour = Callable[[list[Query], int], Awaitable[list[Any]]]


def as_title(catalogue: Catalogue) -> Behaviour:
    """Rewrites a query to the first title of two words' length that is not the query."""

    async def behave(queries: list[Query], n: int) -> list[Any]:
        return [
            [" ".join(catalogue.titles[(len(q.text) * 31 + k) % len(catalogue)].split()[:3]) for k in range(n)] for q in queries
        ]

    return behave


@dataclass(eq=False)
class FakeProcess:
    behave: Behaviour
    template: TemplateConfig = field(default_factory=TemplateConfig)
    batches: list[list[Query]] = field(default_factory=list)
    killed: bool = False

    async def ask(self, queries: Any, n: int) -> list[Any]:
        probe = len(queries) == 1 and queries[0].text == "music video"
        if not probe:
            self.batches.append(list(queries))
        return [["music"]] if probe else await self.behave(list(queries), n)

    def kill(self) -> None:
        self.killed = True


@dataclass(eq=False)
class Fakes:
    """Makes rewriters over made-up processes; by policy hash, or one behaviour for all."""

    behave: Behaviour
    by_policy: dict[str, Behaviour] = field(default_factory=dict)
    started: list[FakeProcess] = field(default_factory=list)
    refuse: bool = False

    def maker(
        self, service_memory: Callable[[], MemoryCache], settings: RewriterSettings, filters: RewriteFilters = NO_FILTERS
    ) -> Callable[[str, Path], PolicyRewriter]:
        def make(policy: str, folder: Path) -> PolicyRewriter:
            async def start() -> FakeProcess:
                from corewrite.serving.process import WorkerError

                if self.refuse:
                    raise WorkerError("will not start")
                process = FakeProcess(self.by_policy.get(policy, self.behave))
                self.started.append(process)
                return process

            return PolicyRewriter(policy, start, settings, service_memory(), None, filters)

        return make


@dataclass(frozen=True)
class Client:
    """A running application without sockets."""

    http: httpx.AsyncClient
    service: Service
    fakes: Fakes

    async def search(self, query: str, **fields: Any) -> dict[str, Any]:
        response = await self.http.post("/v1/search", json={"query": query, **fields})
        assert response.status_code == 200, response.text
        return response.json()


@asynccontextmanager
async def running(config: ServeConfig, behave: Behaviour, fakes: Fakes | None = None, **headers: str) -> AsyncIterator[Client]:
    fakes = fakes or Fakes(behave)
    memory = MemoryCache(config.cache.size, config.cache.seconds)
    app = build_app(config, fakes.maker(lambda: memory, config.rewriter, load_filters(config.filters)))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server", headers=headers) as http:
            yield Client(http, app.state.service, fakes)


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The helpers of this file."""
    return SimpleNamespace(
        running=running, until=until, Fakes=Fakes, as_title=as_title, FakeProcess=FakeProcess, free_port=free_port
    )


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """A redis-server of its own, in memory only."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while not self._up():
            assert time.monotonic() < end, "redis-server did not start"
            time.sleep(0.05)

    def _up(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed (Debian: apt install redis-server)")
    started = RedisServer()
    yield started
    started.kill()


@pytest.fixture
def listening(made: Platform, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`with listening(**settings) as port:` the application behind its real listener, with a made-up rewriter."""
    monkeypatch.setenv("SERVE_KEY", "k" * 20)

    @contextmanager
    def start(behave: Behaviour | None = None, **changes: Any) -> Iterator[int]:
        config = made.config(**changes)
        memory = MemoryCache(1000, 60)
        app = build_app(config, Fakes(behave or as_title(made.catalogue)).maker(lambda: memory, config.rewriter))
        port = free_port()
        options = {"host": "127.0.0.1", "port": port, "log_level": "warning", **uvicorn_options()}
        server = uvicorn.Server(uvicorn.Config(app, **options))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            end = time.monotonic() + 30
            while not server.started:
                assert time.monotonic() < end and thread.is_alive()
                time.sleep(0.02)
            yield port
        finally:
            server.should_exit = True
            thread.join(30)

    return start
