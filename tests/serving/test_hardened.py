"""What a server refuses, hides and forgets: the log's secret, locales, keys, hosts, paths, names, old files."""

import asyncio
import json
import logging
import os
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.domain import ConfigError
from corewrite.serving.log_limit import RateLimit
from corewrite.serving.problems import without_places
from corewrite.serving.settings import LogSettings, load_serve_config
from corewrite.serving.ubi_log import UbiLog

SECRET = "0123456789abcdef0123456789abcdef"


def refused(config):
    found = CliRunner().invoke(app, ["serve", "--config", str(config)])
    assert found.exit_code == 1, found.output
    return " ".join(found.output.split())


def test_a_log_without_a_secret_is_refused_with_both_ways_out(made, tmp_path):
    """Its hashes were keyed by a constant of the source: a user's id was found in 0.01 s."""
    config = tmp_path / "corewrite.yaml"
    config.write_text(f"run: {made.folder}\nserve:\n  log: {{folder: {tmp_path}/log}}\n")
    with pytest.raises(ConfigError, match=r"serve\.log: .*`salt_env`.*`insecure: true`"):
        load_serve_config(config)
    for more in ("salt_env: SALT", "insecure: true"):
        config.write_text(f"run: {made.folder}\nserve:\n  log: {{folder: {tmp_path}/log, {more}}}\n")
        load_serve_config(config)
    with pytest.raises(ValueError, match="exclude"):
        LogSettings(folder=tmp_path, salt_env="SALT", insecure=True)
    LogSettings()  # no log, no secret


def test_the_secret_keys_the_hashes_and_a_short_one_is_warned_of(made, kit, tmp_path, monkeypatch, caplog):
    async def served(salt):
        monkeypatch.setenv("SALT", salt)
        folder = tmp_path / salt
        config = made.config(log={"folder": folder, "salt_env": "SALT"})
        async with kit.running(config, kit.as_title(made.catalogue)) as client:
            await client.search("lion", client_id="alice")
        (file,) = folder.iterdir()
        line = json.loads(file.read_text())
        assert "alice" not in file.read_text() and "lion" not in line["user_query"]
        return line["client_id"], line["user_query"]

    first = asyncio.run(served(SECRET))
    assert "16 characters" not in caplog.text
    second = asyncio.run(served("short"))
    assert first[0] != second[0] and first[1] != second[1]
    assert "SALT" in caplog.text and "16 characters" in caplog.text and "short" not in caplog.text.replace("shorter", "")


@pytest.mark.parametrize(
    "locale", ["", "en", "en-US", "en_US", "zh-Hans-CN", "de-CH-1996", "sl-rozaj-biske", "en-u-ca-gregory", "es-419"]
)
def test_language_tags_are_taken(made, kit, locale):
    async def check():
        async with kit.running(made.config(), kit.as_title(made.catalogue)) as client:
            await client.search("lion", context={"locale": locale})

    asyncio.run(check())


def test_what_is_no_language_tag_is_refused_and_never_in_a_log(made, kit, tmp_path):
    bad = [
        "bob@example.org",
        "10115 Berlin",
        "en-",
        "-en",
        "en US",
        "x-alice-smith",
        "john",
        "en-x-alice",
        "e",
        "en--US",
        "en-US\n",
        "ｅｎ",
    ]

    async def check():
        config = made.config(log={"folder": tmp_path / "log", "query_text": True})
        async with kit.running(config, kit.as_title(made.catalogue)) as client:
            for locale in bad:
                response = await client.http.post("/v1/search", json={"query": "lion", "context": {"locale": locale}})
                assert response.status_code == 422, locale
                assert locale.strip() not in response.text or len(locale) < 3
            await client.search("lion", context={"locale": "en"})

    asyncio.run(check())
    (file,) = (tmp_path / "log").iterdir()
    assert len(file.read_text().splitlines()) == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_a_host_that_others_reach_needs_a_key(made, tmp_path, monkeypatch, host):
    monkeypatch.setattr("corewrite.cli.serve._is_free", lambda *_: (_ for _ in ()).throw(OSError("went on")))
    config = made.file(tmp_path / "corewrite.yaml", host=host)
    assert "`serve.api_key_env`" in refused(config) and "--insecure" in refused(config)
    found = CliRunner().invoke(app, ["serve", "--config", str(config), "--insecure"])
    assert "went on" in found.output
    monkeypatch.setenv("KEY", "k" * 20)
    assert "went on" in refused(made.file(tmp_path / "corewrite.yaml", host=host, api_key_env="KEY"))


def test_a_host_of_this_machine_needs_none(made, tmp_path, monkeypatch):
    monkeypatch.setattr("corewrite.cli.serve._is_free", lambda *_: (_ for _ in ()).throw(OSError("went on")))
    for host in ("127.0.0.1", "localhost", "::1"):
        assert "went on" in refused(made.file(tmp_path / "corewrite.yaml", host=host))


def test_a_host_that_is_no_address_is_said_to_be_none(made, tmp_path):
    said = refused(made.file(tmp_path / "corewrite.yaml", host="no host"))
    assert "host no host: " in said and "reached from other machines" not in said


@pytest.mark.parametrize("value", ["", " ", "\t  \n"])
def test_a_key_of_blanks_is_none(made, kit, monkeypatch, value):
    monkeypatch.setenv("KEY", value)
    with pytest.raises(ValueError, match="KEY"):
        kit.running(made.config(api_key_env="KEY"), None).__aenter__().send(None)


def test_nobody_learns_whether_another_asked_the_same(made, kit):
    async def check():
        async with kit.running(made.config(), kit.as_title(made.catalogue)) as client:
            one = await client.search("red lion", client_id="alice")
            two = await client.search("red lion", client_id="bob")
            assert one["rewrite_status"] == two["rewrite_status"] == "ok" and one["rewrites"] == two["rewrites"]
            found = [(await client.http.post("/v1/rewrite", json={"query": "red lion"})).json()["results"] for _ in range(2)]
            assert found[0] == found[1] and found[0][0]["reason"] == "ok"
            told = (await client.http.post("/v1/explain", json={"query": "red lion"})).json()
            assert told["rewrite_status"] == "ok"
            # The operator still sees what the cache is worth.
            metrics = (await client.http.get("/metrics")).text
            assert 'corewrite_rewrites_total{reason="cached"} 1.0' in metrics

    asyncio.run(check())


def test_a_slash_too_many_is_not_found_and_reflects_no_host(made, kit, monkeypatch):
    async def check():
        async with kit.running(made.config(), kit.as_title(made.catalogue), host="evil.example") as client:
            for path in ("/v1/admin/kill/", "/v1/search/", "/healthz/"):
                response = await client.http.post(path, json={"query": "a"})
                assert response.status_code == 404 and "location" not in response.headers
                assert "evil" not in response.text

    asyncio.run(check())


def test_only_named_hosts_are_served_and_probes_go_by_any(made, kit):
    async def status(host, path="/v1/search"):
        response = await client.http.request(
            "GET" if path != "/v1/search" else "POST", path, headers={"host": host}, json={"query": "a"}
        )
        return response.status_code

    async def check():
        nonlocal client
        config = made.config(hosts=["search.example", "127.0.0.1", "[::1]"])
        async with kit.running(config, kit.as_title(made.catalogue)) as client:
            for host in ("search.example", "Search.Example:8080", "127.0.0.1:9", "[::1]:80", "search.example."):
                assert await status(host) == 200, host
            for host in ("evil.example", "search.example.evil", "", "a@search.example", "search.example:80:90", "x" * 5000):
                assert await status(host) == 400, host
            for path in ("/healthz", "/readyz", "/metrics"):
                assert await status("10.0.0.7:8080", path) == 200
        async with kit.running(made.config(), kit.as_title(made.catalogue)) as client:
            assert await status("evil.example") == 200

    client = None
    asyncio.run(check())


def test_two_lengths_of_one_body_are_refused(made, kit):
    async def check():
        async with kit.running(made.config(), kit.as_title(made.catalogue)) as client:
            headers = {"content-length": "13", "transfer-encoding": "chunked"}
            response = await client.http.post("/v1/search", content=b'{"query":"a"}', headers=headers)
            assert response.status_code == 400

    asyncio.run(check())


def test_an_error_names_no_place_of_the_machine():
    said = "RegistryError: /srv/secret-folder/run/registry/policy/ab12/config.json: missing; see https://ranker.intern:8000/v2/x?k=1."
    assert without_places(said) == "RegistryError: config.json: missing; see (address)"
    assert without_places("OSError: [Errno 2] No such file: '/a/b c/d.json'").count("/") == 0
    assert without_places("no rewrite succeeded lately") == "no rewrite succeeded lately"


def test_503_hides_paths(platform, kit):
    fakes = kit.Fakes(kit.as_title(platform.catalogue))
    spec = platform.registry.path(platform.registry.artifact("spec", platform.first.spec))
    (spec / "fusion.yaml").write_text("nonsense")

    async def check():
        async with kit.running(platform.config(), kit.as_title(platform.catalogue), fakes) as client:
            for method, path in (("POST", "/v1/search"), ("GET", "/readyz")):
                response = await client.http.request(method, path, json={"query": "a"})
                assert response.status_code == 503 and len(response.json()["detail"]) > 10
                assert str(platform.folder) not in response.text and "/" not in response.json()["detail"]
            assert client.service.versions.problem

    asyncio.run(check())


def test_422_echoes_no_name_of_the_client_s(made, kit):
    async def check():
        async with kit.running(made.config(), kit.as_title(made.catalogue)) as client:
            for path, body in (
                ("/v1/search", {"query": "a", "alice@example.org": 1}),
                ("/v1/search", {"query": "a", "context": {"alice@example.org": 1}}),
                ("/v1/rewrite", {"query": "a", "alice@example.org": 1}),
                ("/v1/rewrite", {"batch": [{"query": "a", "alice@example.org": 1}]}),
            ):
                response = await client.http.post(path, json=body)
                assert response.status_code == 422 and "alice" not in response.text
                assert "(unknown name)" in response.text

    asyncio.run(check())


def test_the_same_line_of_a_log_comes_once_a_minute_and_then_says_how_often():
    seen, now = [], [0.0]
    logger = logging.getLogger("corewrite.test.limited")
    logger.setLevel(logging.INFO)
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())
    logger.addHandler(handler)
    logger.addFilter(RateLimit(60.0, clock=lambda: now[0]))
    for i in range(1000):
        logger.warning("Invalid HTTP request received.")
        logger.warning("%s failed", f"/path{i}")
    logger.info("other")
    assert seen == ["Invalid HTTP request received.", "/path0 failed", "other"]
    now[0] = 61.0
    logger.warning("Invalid HTTP request received.")
    assert seen[-1] == "Invalid HTTP request received. (999 more like it since the last)"
    for i in range(5_000):
        logger.warning(f"text of its own {i}")
    assert len(seen) < 1_500, "texts without end are no way around"


def test_old_files_of_the_log_are_removed_and_nothing_else(tmp_path, monkeypatch):
    old, other, young = tmp_path / "ubi-20200101T000000Z-1-0.ndjson", tmp_path / "notes.ndjson", tmp_path / "ubi-x-2.ndjson"
    for file in (old, other, young):
        file.write_text("{}\n")
    for file in (old, other):
        os.utime(file, (time.time() - 8 * 86_400,) * 2)
    log = UbiLog(LogSettings(folder=tmp_path, insecure=True, retention_days=7))
    end = time.monotonic() + 5
    while old.exists() and time.monotonic() < end:
        time.sleep(0.02)
    log.close()
    assert not old.exists() and other.exists() and young.exists()
    log = UbiLog(LogSettings(folder=tmp_path, insecure=True))
    log.close()
    os.utime(young, (0, 0))
    log = UbiLog(LogSettings(folder=tmp_path, insecure=True))
    log.close()
    assert young.exists(), "nothing is removed that nobody asked for"


CHILD = """
import os, sys
from corewrite.deployment.settings import keep_secrets, load_secret
from corewrite.serving.settings import ServeConfig, secret_names
config = ServeConfig.model_validate({
    "api_key_env": "KEY", "cache": {"redis_url": "redis://h", "redis_secret_env": "REDIS"},
    "log": {"folder": "l", "salt_env": "SALT"},
    "ranker": {"signals": {"r": {"kind": "kserve", "url": "http://h", "model": "m", "version": "1", "token_env": "TOKEN"}},
               "recall": {"kind": "opensearch", "url": "http://h", "index": "i", "login_env": "LOGIN"}},
})
names = secret_names(config)
assert names == {"KEY", "REDIS", "SALT", "TOKEN", "LOGIN"}, names
keep_secrets(names)
import multiprocessing
context = multiprocessing.get_context("forkserver")
out = context.Queue()
def work(out):
    from pathlib import Path
    pids = (os.getpid(), os.getppid())
    out.put((dict(os.environ), [Path(f"/proc/{p}/environ").read_bytes() for p in pids]))
if __name__ == "__main__":
    process = context.Process(target=work, args=(out,))
    process.start()
    environment, raw = out.get(timeout=60)
    process.join()
    assert b"PATH" in raw[0] + raw[1]
    assert not [n for n in names if n in environment or any(n.encode() + b"=" in r for r in raw)]
    assert all(load_secret(n) == f"secret of {n}" for n in names)
    print("fine")
"""


def test_the_rewriter_s_process_has_no_secret_in_its_environment(tmp_path):
    file = tmp_path / "child.py"
    file.write_text(CHILD)
    secrets = {n: f"secret of {n}" for n in ("KEY", "REDIS", "SALT", "TOKEN", "LOGIN")}
    done = subprocess.run([sys.executable, file], env={**os.environ, **secrets}, capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("fine"), done.stderr


def test_a_worker_that_was_started_by_the_command_keeps_its_secrets_to_itself(made, kit, tmp_path, monkeypatch):
    from corewrite.serving import app as app_module
    from corewrite.serving.settings import CONFIG_VARIABLE

    monkeypatch.setenv("KEY", "k" * 20)
    config = made.config(api_key_env="KEY")
    monkeypatch.setenv(CONFIG_VARIABLE, config.model_dump_json(by_alias=True))
    monkeypatch.setattr(app_module.gc, "freeze", lambda: None)
    monkeypatch.setattr("corewrite.deployment.settings.secrets._kept", {})
    application = app_module.from_environment()
    assert application.state.service.config.api_key() == "k" * 20
    assert "KEY" not in os.environ and CONFIG_VARIABLE not in os.environ
