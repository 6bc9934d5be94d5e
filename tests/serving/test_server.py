"""The command itself, as a process with sockets: two workers, a promotion, a rollback, and the end by SIGTERM."""

import concurrent.futures
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.serving.app import from_environment
from corewrite.serving.settings import CONFIG_VARIABLE, MULTIPROCESS_VARIABLE, ServeConfig

START = "import sys; from corewrite.cli.main import app; app()"


@pytest.fixture
def server(platform, tmp_path, monkeypatch):
    """Starts `corewrite serve` over a platform; killed at the end whatever happens."""
    started = []

    def start(**settings):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config = platform.file(tmp_path / "corewrite.yaml", port=port, **settings)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        out = (tmp_path / "server.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-c", START, "serve", "--config", str(config)], env=environment, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
        started.append(process)
        http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)
        wait(lambda: answers(http, "/readyz") == 200, 180)  # five processes import torch: long on a busy machine
        return process, http, config

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(http, path):
    try:
        return http.get(path).status_code
    except httpx.TransportError:
        return 0


def wait(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_two_workers_serve_follow_a_promotion_and_drain_on_sigterm(server, platform, tmp_path):
    log = tmp_path / "log"
    process, http, config = server(workers=2, log={"folder": str(log), "query_text": True}, shadow=False)

    def ask(i):
        with httpx.Client(base_url=http.base_url, timeout=10) as own:
            return own.post("/v1/search", json={"query": f"{platform.queries(9)[i % 9]} {i}", "client_id": f"c{i}"})

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        first = list(pool.map(ask, range(40)))
        assert {r.status_code for r in first} == {200}
        assert {r.json()["policy"] for r in first} == {platform.first.policy}
        platform.promote(platform.second)
        began = time.monotonic()
        # Both workers: connections fall on either, so that many in a row say it of both.
        wait(lambda: {r.json()["version"] for r in pool.map(ask, range(12))} == {2}, 20)
        print(f"promotion seen by both workers after {time.monotonic() - began:.2f} s")

        platform.rollback()
        began = time.monotonic()
        wait(lambda: {r.json()["version"] for r in pool.map(ask, range(12))} == {3}, 20)
        print(f"rollback seen by both workers after {time.monotonic() - began:.2f} s")

        text = http.get("/metrics").text
        counted = [line for line in text.splitlines() if line.startswith('corewrite_searches_total{arm="launch_2"}')]
        assert float(counted[0].split()[-1]) >= 64  # of both workers together
        assert "corewrite_champion_version 3.0" in text and "corewrite_ready 1.0" in text

    body = json.dumps({"query": "lion"}).encode()
    head = f"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((http.base_url.host, http.base_url.port), timeout=20) as in_flight:
        in_flight.sendall(head.encode() + body[:5])
        time.sleep(1)  # it is a worker's by now, and not only the kernel's
        os.kill(process.pid, signal.SIGTERM)
        time.sleep(1)
        in_flight.sendall(body[5:])
        assert in_flight.recv(2**16).startswith(b"HTTP/1.1 200 OK")
    assert process.wait(40) == 0
    wait(lambda: not alive(process.pid), 60)  # nothing of the group is left, the rewriters' processes among it

    result = CliRunner().invoke(app, ["replay", str(log), "--config", str(config), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told["factors"]["share_agreeing"] == 1.0 and told["searches"] >= 64 and told["same_lists"] == told["searches"]


def alive(number, signalled=os.killpg):
    try:
        signalled(number, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_program_that_ends_without_closing_is_not_held_up_by_its_rewriter(platform):
    folder = platform.registry.path(platform.registry.artifact("policy", platform.first.policy))
    code = (
        "import asyncio, sys; from pathlib import Path; from corewrite.serving.process import PolicyProcess; "
        "from corewrite.serving.settings import RewriterSettings; "
        "kept = asyncio.run(PolicyProcess.start(Path(sys.argv[1]), RewriterSettings())); print(kept.pid)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], env=environment, capture_output=True, timeout=60, check=True
    )
    pid = int(done.stdout)
    wait(lambda: not alive(pid, os.kill), 5)


def test_warm_writes_what_a_server_reads(platform, tmp_path):
    log = tmp_path / "log.ndjson"
    texts = platform.queries(3) * 3
    lines = [{"query_id": f"q{i}", "client_id": f"c{i}", "user_query": text, "timestamp": i} for i, text in enumerate(texts)]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = platform.file(tmp_path / "corewrite.yaml", cache={"warm_folder": str(tmp_path / "warm")})
    asked = [
        "warm",
        "--from-log",
        str(log),
        "--top",
        "2",
        "--policy",
        platform.second.policy[:12],
        "--config",
        str(config),
        "--json",
    ]
    result = CliRunner().invoke(app, asked, catch_exceptions=False)
    told = json.loads(result.stdout)
    assert told["policy"] == platform.second.policy and told["queries"] == told["rewrites"] == 2
    assert len((tmp_path / "warm" / f"{platform.second.policy}.ndjson").read_text().splitlines()) == 2
    refused = CliRunner().invoke(app, ["warm", "--from-log", str(log), "--run", str(platform.folder)])
    assert refused.exit_code == 1 and "warm_folder" in refused.stderr


def test_wrong_usage_is_said_in_words(tmp_path):
    config = tmp_path / "corewrite.yaml"
    config.write_text("run: r\nserve:\n  deadlines: {recall: 50, finerank: 10}\n  port: 99999\n  shadwo: true\ndocumets: d\n")
    result = CliRunner().invoke(app, ["serve", "--config", str(config)])
    assert result.exit_code == 1
    for text in (
        "yaml:3: serve.deadlines: deadlines must not fall", "yaml:4: serve.port: Input should be less", "(got 99999)",
        "yaml:5: serve.shadwo: unknown name; did you mean 'shadow'?",
        "yaml:6: documets: unknown name; did you mean 'documents'?",
    ):  # fmt: skip
        assert text in result.stderr
    assert "--run" in CliRunner().invoke(app, ["serve"]).stderr


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no folder in memory")
def test_several_workers_count_in_memory_which_a_full_disk_does_not_reach(platform, kit, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if k != MULTIPROCESS_VARIABLE})
    monkeypatch.setattr("uvicorn.run", lambda *_, **__: seen.append(os.environ[MULTIPROCESS_VARIABLE]))
    handler = signal.getsignal(signal.SIGTERM)
    config = platform.file(tmp_path / "corewrite.yaml", workers=2, port=kit.free_port())
    try:
        served = CliRunner().invoke(app, ["serve", "--config", str(config)], catch_exceptions=False)
        assert served.exit_code == 0, served.output
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert seen[0].startswith("/dev/shm/") and not Path(seen[0]).exists()


def test_a_taken_port_fails_before_anything_is_opened_and_leaves_no_environment(platform, tmp_path, monkeypatch):
    monkeypatch.setattr("uvicorn.run", lambda *_, **__: pytest.fail("nothing may be opened"))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        config = platform.file(tmp_path / "corewrite.yaml", port=port)
        found = CliRunner().invoke(app, ["serve", "--config", str(config)])
    assert found.exit_code == 1, "3 would mean that a gate holds"
    assert f"port {port} of 127.0.0.1: Address already in use" in found.stderr and "--port" in found.stderr
    assert CONFIG_VARIABLE not in os.environ


def test_a_server_that_does_not_start_fails_with_1(platform, tmp_path, monkeypatch):
    monkeypatch.setattr("uvicorn.run", lambda *_, **__: sys.exit(3))  # uvicorn's own code for it
    handler, before = signal.getsignal(signal.SIGTERM), dict(os.environ)
    config = platform.file(tmp_path / "corewrite.yaml", workers=2, port=0)
    try:
        assert CliRunner().invoke(app, ["serve", "--config", str(config)]).exit_code == 1
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert dict(os.environ) == before, "servers that start later would count in a folder that is gone"


def test_full_collections_pass_over_what_a_worker_starts_with(platform, monkeypatch):
    monkeypatch.setenv(CONFIG_VARIABLE, platform.config().model_dump_json(exclude_defaults=True))
    kept = from_environment()
    try:
        assert gc.is_tracked(kept) and gc.get_freeze_count() > 100_000
        assert not any(o is kept for o in gc.get_objects()), "not among what a collection walks through"
    finally:
        gc.unfreeze()


def test_settings_reach_the_workers_whole(platform, kit, tmp_path, monkeypatch):
    inputs = {"x": "document.visual", "y": "text"}
    scorer = {"kind": "python", "factory": "a.module:scorer", "version": "1", "inputs": inputs}
    ranker = {"signals": {"relevance": scorer}}
    changed = {"workers": 2, "ranker": ranker, "port": kit.free_port()}
    settings, config = platform.config(**changed), tmp_path / "corewrite.yaml"
    platform.file(config, **changed)
    handler, seen = signal.getsignal(signal.SIGTERM), []
    monkeypatch.setattr("uvicorn.run", lambda *_, **__: seen.append(os.environ[CONFIG_VARIABLE]))
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    try:
        assert CliRunner().invoke(app, ["serve", "--config", str(config)], catch_exceptions=False).exit_code == 0
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert ServeConfig.model_validate_json(seen[0]) == settings
