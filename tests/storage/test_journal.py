"""The journal of a cycle and its lock."""

import copy
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from corewrite.storage.journal import CycleRunningError, Journal, JournalError, cycle_lock, running

FORK = multiprocessing.get_context("fork")
HOLD = """
import sys, time
from pathlib import Path
from corewrite.storage.journal import cycle_lock
with cycle_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def look(run: Path) -> None:
    while True:
        running(run)
        time.sleep(0.0005)


def test_a_step_is_computed_once(tmp_path: Path) -> None:
    calls = []
    journal = Journal(tmp_path / "cycles" / "w1")
    for _ in range(2):
        assert journal.once("train", lambda: calls.append(1) or {"policy": "abc", "n": 3}) == {"policy": "abc", "n": 3}
    assert calls == [1]
    assert Journal(tmp_path / "cycles" / "w1").read("train") == {"policy": "abc", "n": 3}
    assert journal.read("gate") is None
    assert journal.done() == ["train"]


def test_a_step_that_fails_is_not_done(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(ZeroDivisionError):
        journal.once("gate", lambda: {"x": 1 / 0})
    with pytest.raises(ValueError, match="JSON"):
        journal.once("gate", lambda: {"x": float("nan")})
    assert journal.read("gate") is None
    assert journal.once("gate", lambda: {"x": 1}) == {"x": 1}


def test_a_damaged_step_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "gate.json").write_text('{"verdict": ')
    with pytest.raises(JournalError, match=r"gate\.json is damaged .* remove it"):
        Journal(tmp_path).read("gate")


def test_two_cycles_are_kept_apart_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(CycleRunningError, match=f"process {other.pid}"), cycle_lock(tmp_path):
            pass
        assert running(tmp_path) == str(other.pid)
    finally:
        other.kill()
        other.wait()
    assert (tmp_path / "cycle.pid").is_file() and running(tmp_path) is None, "told by the lock, not by what it left"
    with cycle_lock(tmp_path):
        assert (tmp_path / "cycle.pid").read_text() == f"{os.getpid()}\n"
    assert not (tmp_path / "cycle.pid").exists()


def test_a_cycle_begins_though_somebody_looks(tmp_path: Path) -> None:
    with cycle_lock(tmp_path):
        pass
    looker = FORK.Process(target=look, args=(tmp_path,))
    looker.start()
    try:
        for _ in range(200):
            with cycle_lock(tmp_path):
                pass
            time.sleep(0.001)
    finally:
        looker.kill()
        looker.join()


ODD = [
    b"", b"{", b"5", b"null", b"[]", b'[["verdict", "promote"]]', b'"a"', b"[" * 100_000, b'{"a":' * 100_000, b'{"a": "\xff"}',
    b"NaN", b"9" * 10_000, b"\xff\xfe", b'{"a": 1}{}',
]  # fmt: skip


@pytest.mark.parametrize("content", ODD)
def test_odd_json_is_a_damaged_step(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "gate.json").write_bytes(content)
    for use in (Journal(tmp_path).read, Journal(tmp_path).result, lambda step: Journal(tmp_path).once(step, dict)):
        with pytest.raises(JournalError, match=r"gate\.json is damaged .* remove it"):
            use("gate")


def test_a_key_that_is_missing_is_a_damaged_step(tmp_path: Path) -> None:
    (tmp_path / "gate.json").write_text('{"verdict": "promote", "about": {"a": [{"b": 1}]}}')
    found = Journal(tmp_path).result("gate")
    for look in (lambda: found["reason"], lambda: found["about"]["b"], lambda: found["about"]["a"][0]["c"]):
        with pytest.raises(JournalError, match=r"gate\.json is damaged \('.' is missing|'reason' is missing"):
            look()
    assert found.get("reason") is None and "reason" not in found
    for copied in (copy.deepcopy(found), pickle.loads(pickle.dumps(found)), {**found}, json.loads(json.dumps(found))):
        assert copied == found and "refuse" not in repr(copied)
