"""What a server refuses, hides and forgets: the log's secret, locales, keys, hosts, paths, names, old files."""

import asyncio
import json

import pytest
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.domain import ConfigError
from corewrite.serving.settings import LogSettings, load_serve_config

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
    monkeypatch.setattr("corewrite.cli.serve._is_free", lambda host, port: (_ for _ in ()).throw(OSError("went on")))
    config = made.file(tmp_path / "corewrite.yaml", host=host)
    assert "`serve.api_key_env`" in refused(config) and "--insecure" in refused(config)
    found = CliRunner().invoke(app, ["serve", "--config", str(config), "--insecure"])
    assert "went on" in found.output
    monkeypatch.setenv("KEY", "k" * 20)
    assert "went on" in refused(made.file(tmp_path / "corewrite.yaml", host=host, api_key_env="KEY"))


def test_a_host_of_this_machine_needs_none(made, tmp_path, monkeypatch):
    monkeypatch.setattr("corewrite.cli.serve._is_free", lambda host, port: (_ for _ in ()).throw(OSError("went on")))
    for host in ("127.0.0.1", "localhost", "::1"):
        assert "went on" in refused(made.file(tmp_path / "corewrite.yaml", host=host))


@pytest.mark.parametrize("value", ["", " ", "\t  \n"])
def test_a_key_of_blanks_is_none(made, kit, monkeypatch, value):
    monkeypatch.setenv("KEY", value)
    with pytest.raises(ValueError, match="KEY"):
        kit.running(made.config(api_key_env="KEY"), None).__aenter__().send(None)
