"""Garbage collection: what goes, what stays, and coming back; the format before it; processes that race."""

import fcntl
import multiprocessing
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from corewrite.registry import Candidate, Kind, Registry, RegistryError, ledger
from corewrite.registry.content import content_hash, manifest
from corewrite.registry.staging import remove_abandoned

FORK = multiprocessing.get_context("fork")
NOW = timedelta(0)


def write(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "a.txt").write_text(text) and None


def save(registry: Registry, text: str, kind: Kind = "policy") -> str:
    return registry.save(kind, write(text), {"text": text}).hash


def triple(registry: Registry, text: str) -> Candidate:
    return Candidate(save(registry, text), save(registry, "r", "relevance"), save(registry, "s", "spec"))


def promote(registry: Registry, *texts: str) -> list[Candidate]:
    made = []
    for text in texts:
        now, new = registry.champion(), triple(registry, text)
        registry.promote(new, expected=now.version if now else None, reason="better", evidence=None)
        made.append(new)
    return made


def held(registry: Registry) -> str:
    """The texts of the policies that are there."""
    there = {a.metadata["text"] for a in registry.artifacts() if a.kind == "policy"}
    folders = {(p / "a.txt").read_text() for p in registry.root.glob("artifacts/policy/*/")}
    assert there == folders
    return "".join(sorted(map(str, there)))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


def test_the_last_champions_stay_and_decisions_are_kept(registry: Registry) -> None:
    a, *_ = promote(registry, *"abcde")
    log = registry.decisions()
    with pytest.raises(RegistryError, match="keep = 1: a rollback needs"):
        registry.gc(keep=1)
    assert registry.gc(keep=2) == []  # all are younger than a day
    told = registry.garbage(keep=3, grace=NOW)
    assert held(registry) == "abcde"
    assert registry.gc(keep=3, grace=NOW) == told
    assert [g.size for g in told] == [1, 1]
    assert held(registry) == "cde"
    assert registry.decisions() == log
    assert registry.verify_all() == []
    assert list(registry.root.glob("staging/*")) == []
    (gone,) = (x for x in registry.artifacts(collected=True) if x.hash == a.policy)
    assert gone.metadata == {"text": "a"}
    assert gone.collected is not None
    for use in (
        lambda: registry.promote(a, expected=5, reason="r", evidence=None),
        lambda: registry.record("hold", a, "r", None),
        lambda: registry.artifact("policy", a.policy),
        lambda: registry.verify("policy", a.policy),
    ):
        with pytest.raises(RegistryError, match=r"was removed by gc .*save the same content again"):
            use()
    assert registry.quarantine("policy", a.policy, "bad").quarantined == ("policy", a.policy)


def test_the_way_back_stays(registry: Registry) -> None:
    promote(registry, *"abcd")
    registry.rollback(expected=4, reason="alarm")
    registry.rollback(expected=5, reason="alarm")
    # The log's last two champions are c and b, the way back from b leads to a; d is no longer on either.
    registry.gc(keep=2, grace=NOW)
    assert held(registry) == "abc"
    assert registry.rollback(expected=6, reason="alarm").candidate == triple(registry, "a")


def test_a_quarantined_champion_does_not_count_as_a_way_back(registry: Registry) -> None:
    _, b, _ = promote(registry, *"abc")
    registry.quarantine("policy", b.policy, "bad")
    registry.gc(keep=2, grace=NOW)
    assert held(registry) == "abc"
    assert registry.rollback(expected=3, reason="alarm").candidate == triple(registry, "a")


def test_on_hold_and_just_saved_stay(registry: Registry) -> None:
    promote(registry, "a")
    registry.record("hold", triple(registry, "h"), "few users", None)
    registry.record("reject", triple(registry, "x"), "bad", None)
    registry.gc(keep=2, grace=NOW)
    assert held(registry) == "ah"
    promote(registry, "b")  # the hold was against another champion
    save(registry, "new")
    with sqlite3.connect(registry.root / "registry.sqlite3") as connection:
        connection.execute("UPDATE artifacts SET saved = '2020-01-01' WHERE metadata NOT LIKE '%new%'")
    registry.gc(keep=2)
    assert held(registry) == "abnew"


def test_saving_again_makes_young_again(registry: Registry) -> None:
    save(registry, "x")
    with sqlite3.connect(registry.root / "registry.sqlite3") as connection:
        connection.execute("UPDATE artifacts SET saved = '2020-01-01', created = '2020-01-01'")
    assert len(registry.garbage()) == 1
    save(registry, "x")
    assert registry.garbage() == []


def test_content_comes_back_also_half_removed(registry: Registry) -> None:
    promote(registry, *"abc")
    before = registry.artifact("policy", save(registry, "a"))
    registry.gc(keep=2, grace=NOW)
    again = registry.save("policy", write("a"), {"text": "other"})
    assert again == before
    assert registry.verify_all() == []
    # As after a kill between the mark and the move, with damage on top: what stands there is not trusted.
    with registry._ledger.write() as connection:
        ledger.collect(connection, "policy", again.hash)
    (registry._shelves.folder("policy", again.hash) / "a.txt").write_text("damaged")
    (finding,) = {f.hash.removesuffix(".metadata.json") for f in registry.verify_all()}
    assert finding == again.hash
    assert registry.save("policy", write("a"), {}) == before
    registry.verify("policy", again.hash)
    assert registry.verify_all() == []


def test_marked_but_not_yet_removed_is_out_already(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, _ = promote(registry, *"abc")
    new = triple(registry, "new")

    def mark(hash: str) -> None:
        with registry._ledger.write() as connection:
            ledger.collect(connection, "policy", hash)

    mark(b.policy)
    assert registry.rollback(expected=3, reason="alarm").candidate == a
    verify = registry.verify

    def slow(kind: Kind, hash: str) -> None:  # another process collects while this one hashes
        verify(kind, hash)
        if kind == "spec":
            mark(new.policy)

    monkeypatch.setattr(registry, "verify", slow)
    with pytest.raises(RegistryError, match="was removed by gc"):
        registry.promote(new, expected=4, reason="r", evidence=None)


def test_leftovers_and_what_they_point_to(registry: Registry, tmp_path: Path) -> None:
    promote(registry, "a")
    outside = tmp_path / "outside"
    outside.mkdir()
    write("precious")(outside)
    shelf = registry.root / "artifacts" / "policy"
    (shelf / ("0" * 64)).symlink_to(outside)
    (shelf / "stray.json").write_text("{}")
    os.mkfifo(registry.root / "staging" / "pipe")
    (registry.root / "staging" / "link").symlink_to(outside)
    assert [g.name for g in registry.gc()] == ["0" * 64, "stray.json", "link", "pipe"]
    assert registry.verify_all() == registry.garbage() == []
    assert (outside / "a.txt").read_text() == "precious"
    assert held(registry) == "a"


def test_staging_of_the_living_stays_and_of_the_dead_goes(registry: Registry) -> None:
    ready, never = FORK.Event(), FORK.Event()

    def saving() -> None:
        def slow(folder: Path) -> None:
            write("slow")(folder)
            ready.set()
            never.wait(60)

        Registry(registry.root).save("policy", slow, {"text": "slow"})

    process = FORK.Process(target=saving)
    process.start()
    assert ready.wait(30)
    assert registry.gc() == []
    assert len(list(registry.root.glob("staging/*"))) == 1
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    (garbage,) = registry.gc()
    assert (garbage.kind, garbage.reason) == (None, "left by a killed process")
    assert list(registry.root.glob("staging/*")) == []


# The tables as the first release made them.
FORMAT_1 = """
CREATE TABLE artifacts (
    kind TEXT NOT NULL CHECK (kind IN ('policy', 'relevance', 'spec')), hash TEXT NOT NULL, files TEXT NOT NULL,
    metadata TEXT NOT NULL, created TEXT NOT NULL, PRIMARY KEY (kind, hash)
);
CREATE TABLE decisions (
    number INTEGER PRIMARY KEY, time TEXT NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('promote', 'hold', 'reject', 'rollback', 'quarantine')),
    policy TEXT, relevance TEXT, spec TEXT,
    previous INTEGER REFERENCES decisions (number), fallback INTEGER REFERENCES decisions (number),
    reason TEXT NOT NULL, evidence TEXT NOT NULL, code_version TEXT NOT NULL,
    policy_kind TEXT AS ('policy'), relevance_kind TEXT AS ('relevance'), spec_kind TEXT AS ('spec'),
    FOREIGN KEY (policy_kind, policy) REFERENCES artifacts (kind, hash),
    FOREIGN KEY (relevance_kind, relevance) REFERENCES artifacts (kind, hash),
    FOREIGN KEY (spec_kind, spec) REFERENCES artifacts (kind, hash),
    CHECK ((policy IS NULL) + (relevance IS NULL) + (spec IS NULL) = CASE verdict WHEN 'quarantine' THEN 2 ELSE 0 END)
);
CREATE TRIGGER decisions_no_update BEFORE UPDATE ON decisions
BEGIN SELECT RAISE(ABORT, 'decisions are append-only'); END;
CREATE TRIGGER decisions_no_delete BEFORE DELETE ON decisions
BEGIN SELECT RAISE(ABORT, 'decisions are append-only'); END;
CREATE TRIGGER decisions_no_replace BEFORE INSERT ON decisions
WHEN NEW.number IS NOT (SELECT coalesce(max(number), 0) + 1 FROM decisions)
BEGIN SELECT RAISE(ABORT, 'decisions are append-only: the number must be the next one'); END;
PRAGMA user_version = 1;
"""


def as_format_1(root: Path) -> None:
    """Put the registry's rows into a database of the first format."""
    path = root / "registry.sqlite3"
    path.rename(root / "new.sqlite3")
    with sqlite3.connect(path) as connection:
        connection.executescript(FORMAT_1)
        connection.execute("ATTACH ? AS new", (str(root / "new.sqlite3"),))
        for table, columns in (
            ("artifacts", "kind, hash, files, metadata, created"),
            ("decisions", "number, time, verdict, policy, relevance, spec, previous, fallback, reason, evidence, code_version"),
        ):
            connection.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM new.{table}")
    connection.close()
    (root / "new.sqlite3").unlink()


def test_a_registry_of_the_first_format_is_upgraded(registry: Registry) -> None:
    promote(registry, *"abc")
    log, artifacts = registry.decisions(), registry.artifacts()
    as_format_1(registry.root)
    old = sqlite3.connect(registry.root / "registry.sqlite3", isolation_level=None)  # an old process goes on
    again = Registry(registry.root)
    assert (again.decisions(), again.artifacts()) == (log, artifacts)
    again.gc(keep=2, grace=NOW)
    assert held(again) == "bc"
    gone = log[0].candidate
    assert gone is not None
    insert = (
        "INSERT INTO decisions (number, time, verdict, policy, relevance, spec, reason, evidence, code_version) "
        "VALUES (4, 't', 'promote', ?, ?, ?, 'r', 'null', 'v')"
    )
    with pytest.raises(sqlite3.IntegrityError, match="removed by the garbage collection"):
        old.execute(insert, (gone.policy, gone.relevance, gone.spec))
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        old.execute("DELETE FROM decisions")
    old.close()
    assert Registry(registry.root).decisions() == log


def test_an_upgrade_that_fails_changes_nothing(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    promote(registry, "a")
    as_format_1(registry.root)
    steps = ledger._STEPS
    monkeypatch.setattr(ledger, "_STEPS", (steps[0], (*steps[1], "nonsense")))
    with pytest.raises(RegistryError, match="nonsense"):
        Registry(registry.root)
    with sqlite3.connect(registry.root / "registry.sqlite3") as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert len(connection.execute("PRAGMA table_info(artifacts)").fetchall()) == 5
    monkeypatch.undo()
    assert Registry(registry.root).champion() is not None


def work(root: Path, seed: int, until: float, results: "multiprocessing.Queue[str]") -> None:
    """Anything in any order; whenever the database is locked the champion must be whole."""
    draw, registry, done = random.Random(seed), Registry(root), 0
    try:
        while time.monotonic() < until:
            try:
                now = registry.champion()
                assert now is not None
                match draw.choice(["promote", "promote", "rollback", "gc", "save"]):
                    case "promote":
                        new = triple(registry, draw.choice("abcd"))
                        registry.promote(new, expected=now.version, reason="r", evidence=None)
                    case "rollback":
                        registry.rollback(expected=now.version, reason="r")
                    case "gc":
                        registry.gc(keep=2, grace=NOW)
                    case _:
                        save(registry, draw.choice("abcd"))
                done += 1
            except RegistryError as error:  # lost the race
                assert "damaged" not in str(error), error
            with registry._ledger.write() as connection:
                champion = ledger.current(connection)
                assert champion is not None
                for kind, hash in champion.hashes.items():
                    assert content_hash(manifest(registry._shelves.folder(kind, hash))) == hash
        assert done > 3
        results.put("")
    except BaseException as error:
        results.put(f"{type(error).__name__}: {error}")


def test_a_folder_whose_owner_removes_it_while_it_is_looked_at_is_not_abandoned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    flock = fcntl.flock

    def late(descriptor: int, kind: int) -> None:
        if kind & fcntl.LOCK_NB:  # opened, and not locked yet
            mine.rmdir()
        flock(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", late)
    remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_processes_that_race(registry: Registry) -> None:
    promote(registry, "a", "b")
    results, until = FORK.Queue(), time.monotonic() + 4
    processes = [FORK.Process(target=work, args=(registry.root, seed, until, results)) for seed in range(4)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [""] * 4
    for process in processes:
        process.join(30)
    assert registry.verify_all() == []
    assert list(registry.root.glob("staging/*")) == []
    log = registry.decisions()
    assert [d.number for d in log] == list(range(1, len(log) + 1))
    registry.gc(keep=2, grace=NOW)
    assert registry.verify_all() == []


def test_rollback_is_fast_in_a_long_history(registry: Registry) -> None:
    """Under a second, with ten years of weeks behind it and content that takes long to hash."""
    a, b = promote(registry, "a", "b")
    with registry._ledger.write() as connection:
        for number in range(2, 520):
            new = (a, b)[number % 2]
            ledger.append(
                connection, "promote", new.hashes, reason="r", evidence={"x": [0.5] * 50}, previous=number, fallback=number
            )  # fmt: skip
    large = registry.save("policy", lambda folder: (folder / "w.safetensors").write_bytes(bytes(10**8)) and None, {})
    now = registry.champion()
    assert now is not None
    promoted = registry.promote(Candidate(large.hash, b.relevance, b.spec), expected=now.version, reason="r", evidence=None)
    start = time.perf_counter()
    registry.rollback(expected=promoted.number, reason="alarm")
    assert time.perf_counter() - start < 1
    assert len(registry.decisions()) == 522
