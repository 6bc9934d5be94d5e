"""The kill switch where its file cannot be written or removed: rewrites are off all the same, and it is said."""

import asyncio
import errno
import logging
from pathlib import Path

import pytest

from corewrite.serving.kill_switch import KillSwitch


@pytest.fixture
def read_only(monkeypatch):
    """Changes of files fail as on a disk that may only be read; root may do anything to a folder without write rights."""

    def refuse(self, *arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)


def test_a_kill_that_cannot_be_written_is_off_here_and_says_so(tmp_path, read_only, caplog):
    switch = KillSwitch(tmp_path / "serving.killed")
    assert not switch.on and switch.kill() is False and switch.on
    (record,) = caplog.records
    said = record.getMessage()
    assert record.levelno == logging.ERROR and "Read-only file system" in said and str(switch.path) in said
    assert "this worker alone" in said
    switch.look()
    assert switch.on, "what was done here holds though the file is not there"


def test_a_folder_that_is_none(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    switch = KillSwitch(tmp_path / "file" / "serving.killed")
    assert not switch.on and switch.kill() is False and switch.on and "Not a directory" in caplog.text


def test_a_file_on_a_disk_that_may_only_be_read_is_obeyed_and_cannot_be_resumed(tmp_path, read_only, caplog):
    path = tmp_path / "serving.killed"
    path.write_text("")
    switch = KillSwitch(path)
    assert switch.on and switch.resume() is False and switch.on
    assert "cannot be removed" in caplog.text and "stay off" in caplog.text
    assert switch.kill() is True  # it is there: nothing has to be written


def test_a_resume_of_what_was_killed_here_alone(tmp_path, caplog, monkeypatch):
    switch = KillSwitch(tmp_path / "file" / "serving.killed")  # no such folder
    assert switch.kill() is False and switch.on
    assert switch.resume() is True and not switch.on


def test_over_http(made, kit, read_only, monkeypatch):
    monkeypatch.setenv("SERVE_KEY", "s3cret")
    config = made.config(kill_file=made.folder / "killed", api_key_env="SERVE_KEY")

    async def check():
        async with kit.running(config, kit.as_title(made.catalogue), **{"X-API-Key": "s3cret"}) as client:
            assert (await client.search("music"))["rewrites"]
            assert (await client.http.post("/v1/admin/kill")).json() == {"killed": True, "persisted": False}
            assert (await client.search("music"))["rewrites"] == []

    asyncio.run(check())
