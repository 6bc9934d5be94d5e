"""Promote, hold, reject, rollback, quarantine: compare-and-swap and the append-only log."""

import multiprocessing
import sqlite3
from datetime import UTC, datetime
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from corewrite.registry import Candidate, Champion, ConflictError, Kind, Registry, RegistryError
from corewrite.version import VERSION

FORK = multiprocessing.get_context("fork")


def save(registry: Registry, kind: Kind, text: str) -> str:
    return registry.save(kind, lambda folder: (folder / "a.txt").write_text(text) and None, {}).hash


def candidate(registry: Registry, policy: str, relevance: str = "r", spec: str = "s") -> Candidate:
    return Candidate(save(registry, "policy", policy), save(registry, "relevance", relevance), save(registry, "spec", spec))


def promote(registry: Registry, new: Candidate) -> int:
    now = registry.champion()
    return registry.promote(new, expected=now.version if now else None, reason="better", evidence={"L": 0.01}).number


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


def test_first_promote(registry: Registry) -> None:
    assert registry.champion() is None
    assert registry.decisions() == []
    a = candidate(registry, "a")
    before = datetime.now(UTC).replace(microsecond=0)
    decision = registry.promote(a, expected=None, reason="first", evidence={"reward": {"L": 0.1}})
    assert registry.champion() == Champion(a.policy, a.relevance, a.spec, version=1, fallback=None)
    assert registry.decisions() == [decision]
    assert (decision.number, decision.verdict, decision.candidate, decision.previous) == (
        1,
        "promote",
        a,
        None,
    )
    assert (decision.quarantined, decision.reason, decision.evidence) == (
        None,
        "first",
        {"reward": {"L": 0.1}},
    )
    assert decision.code_version == VERSION
    assert decision.time.endswith("Z")
    assert before <= datetime.fromisoformat(decision.time) <= datetime.now(UTC)


def test_compare_and_swap_between_two_registries(registry: Registry) -> None:
    other = Registry(registry.root)
    a, b, c = (candidate(registry, name) for name in "abc")
    promote(registry, a)
    seen = other.champion()
    assert seen is not None
    promote(registry, b)
    with pytest.raises(ConflictError, match="champion is version 2, not 1"):
        other.promote(c, expected=seen.version, reason="late", evidence=None)
    with pytest.raises(ConflictError, match="champion is version 2, not None"):
        other.promote(c, expected=None, reason="late", evidence=None)
    with pytest.raises(ConflictError):
        other.rollback(expected=seen.version, reason="late")
    champion = other.champion()
    assert champion is not None
    assert champion.hashes == b.hashes
    assert len(other.decisions()) == 2


def test_a_version_never_comes_back(registry: Registry) -> None:
    """After a rollback the triple is the old one, but who saw it the first time must not win (ABA)."""
    a, b, c = (candidate(registry, name) for name in "abc")
    first = promote(registry, a)
    registry.rollback(expected=promote(registry, b), reason="worse")
    champion = registry.champion()
    assert champion is not None
    assert champion.hashes == a.hashes
    with pytest.raises(ConflictError):
        registry.promote(c, expected=first, reason="stale", evidence=None)


def test_rollback_goes_back_step_by_step_and_keeps_the_history(registry: Registry) -> None:
    a, b, c = (candidate(registry, name) for name in "abc")
    for new in (a, b, c):
        promote(registry, new)
    decision = registry.rollback(expected=3, reason="alarm")
    assert (decision.verdict, decision.candidate, decision.previous) == ("rollback", b, 3)
    assert decision.evidence == {"from": 3, "to": 2}
    assert registry.champion() == Champion(b.policy, b.relevance, b.spec, version=4, fallback=1)
    assert registry.rollback(expected=4, reason="still").candidate == a
    with pytest.raises(RegistryError, match="no usable champion stands before version 5"):
        registry.rollback(expected=5, reason="more")
    assert [d.verdict for d in registry.decisions()] == ["promote"] * 3 + ["rollback"] * 2
    promote(registry, c)
    assert registry.rollback(expected=6, reason="again").candidate == a


def test_rollback_to_a_version_passes_over_later_ones(registry: Registry) -> None:
    a, b, c = (candidate(registry, p) for p in "abc")
    for each in (a, b, c):
        promote(registry, each)
    assert registry.rollback(expected=3, reason="alarm", to=1).candidate == a
    with pytest.raises(RegistryError, match="no usable champion stands before"):
        registry.rollback(expected=4, reason="more", to=0)


def test_rollback_passes_over_what_cannot_serve(registry: Registry, tmp_path: Path) -> None:
    a, b, c, d = (candidate(registry, name) for name in "abcd")
    for new in (a, b, c, d):
        promote(registry, new)
    registry.quarantine("policy", c.policy, "leaks names")
    registry.path(registry.artifact("policy", b.policy)).rename(tmp_path / "lost")
    assert registry.rollback(expected=4, reason="alarm").candidate == a


def test_rollback_does_not_restore_what_it_leaves(registry: Registry) -> None:
    a, b = candidate(registry, "a"), candidate(registry, "b")
    for new in (a, b, a):
        promote(registry, new)
    registry.quarantine("policy", b.policy, "bad")
    with pytest.raises(RegistryError, match="no usable champion"):
        registry.rollback(expected=3, reason="alarm")


def test_rollback_without_champion(registry: Registry) -> None:
    with pytest.raises(ConflictError, match="version None, not 1"):
        registry.rollback(expected=1, reason="x")
    with pytest.raises(RegistryError, match="no champion to roll back"):
        registry.rollback(expected=None, reason="x")  # type: ignore[arg-type]


def test_promote_refuses_missing_damaged_unknown_quarantined_and_the_champion(registry: Registry, tmp_path: Path) -> None:
    champion = candidate(registry, "champion")
    promote(registry, champion)
    damaged, missing, quarantined = (candidate(registry, n) for n in ("damaged", "missing", "quarantined"))
    (registry.path(registry.artifact("policy", damaged.policy)) / "a.txt").write_text("Damaged")
    registry.path(registry.artifact("policy", missing.policy)).rename(tmp_path / "lost")
    registry.quarantine("policy", quarantined.policy, "leaks names")
    unknown = Candidate(champion.policy, "0" * 64, champion.spec)
    swapped = Candidate(champion.relevance, champion.relevance, champion.spec)
    for refused, why in [
        (damaged, "changed: a.txt"),
        (missing, "is missing"),
        (quarantined, "quarantined .leaks names."),
        (unknown, "there is no relevance 0+ in the registry"),
        (swapped, f"there is no policy {champion.relevance}"),
        (champion, "the champion already"),
    ]:
        with pytest.raises(RegistryError, match=why):
            promote(registry, refused)
    now = registry.champion()
    assert now is not None
    assert (now.hashes, now.version) == (champion.hashes, 1)


def test_hold_and_reject_are_recorded_and_change_nothing(registry: Registry) -> None:
    a, b = candidate(registry, "a"), candidate(registry, "b")
    early = registry.record("hold", a, reason="39 users", evidence=None)
    assert (early.number, early.verdict, early.candidate, early.previous) == (1, "hold", a, None)
    promote(registry, a)
    late = registry.record("reject", b, reason="copies", evidence=[1, {"U": -0.2}])
    assert (late.number, late.verdict, late.previous, late.evidence) == (3, "reject", 2, [1, {"U": -0.2}])
    assert registry.champion() == Champion(a.policy, a.relevance, a.spec, version=2, fallback=None)
    with pytest.raises(RegistryError, match="verdict 'promote' cannot be recorded"):
        registry.record("promote", b, reason="x", evidence=None)  # type: ignore[arg-type]
    with pytest.raises(RegistryError, match="there is no spec"):
        registry.record("hold", Candidate(a.policy, a.relevance, "1" * 64), reason="x", evidence=None)


def test_quarantine(registry: Registry) -> None:
    a, b = candidate(registry, "a"), candidate(registry, "b")
    promote(registry, a)
    decision = registry.quarantine("policy", b.policy, "canary leaked", {"canary": 3})
    assert (decision.verdict, decision.candidate, decision.previous) == ("quarantine", None, 1)
    assert decision.quarantined == ("policy", b.policy)
    for kind, hash in a.hashes.items():
        with pytest.raises(RegistryError, match="is part of the champion: roll back or promote another first"):
            registry.quarantine(kind, hash, "x")
    # The same bytes as another kind are another artifact.
    same = save(registry, "relevance", "b")
    assert same == b.policy
    promote(registry, Candidate(a.policy, same, a.spec))


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_a_decision_needs_a_reason_and_json(registry: Registry, reason: str) -> None:
    a = candidate(registry, "a")
    with pytest.raises(RegistryError, match="a promote needs a reason"):
        registry.promote(a, expected=None, reason=reason, evidence=None)
    with pytest.raises(RegistryError, match=r"evidence is not JSON: .*None for a missing number"):
        registry.record("hold", a, reason="x", evidence={"L": float("nan")})
    assert registry.decisions() == []


COLUMNS = "number, time, verdict, policy, relevance, spec, reason, evidence, code_version"


def copy_of_row_1(**changed: str) -> str:
    """SQL values of the first decision with some of them replaced by other SQL."""
    values = ", ".join(changed.get(name, name) for name in COLUMNS.split(", "))
    return f"decisions ({COLUMNS}) SELECT {values} FROM decisions WHERE number = 1"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE decisions SET reason = 'nicer'",
        "UPDATE decisions SET verdict = 'hold' WHERE number = 2",
        "DELETE FROM decisions",
        "DELETE FROM decisions WHERE number = 2",
        f"INSERT OR REPLACE INTO {copy_of_row_1(number='2')}",
        "REPLACE INTO " + copy_of_row_1(reason="'nicer'"),
        f"INSERT INTO {copy_of_row_1(number='9')}",
    ],
)
def test_decisions_are_append_only(registry: Registry, statement: str) -> None:
    promote(registry, candidate(registry, "a"))
    promote(registry, candidate(registry, "b"))
    before = registry.decisions()
    with sqlite3.connect(registry.root / "registry.sqlite3") as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    assert registry.decisions() == before


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("DELETE FROM artifacts", "FOREIGN KEY"),
        (f"INSERT INTO {copy_of_row_1(number='2', policy='relevance', relevance='policy')}", "FOREIGN KEY"),
        (f"INSERT INTO {copy_of_row_1(number='2', spec='NULL')}", "CHECK"),
        ("INSERT INTO " + copy_of_row_1(number="2", verdict="'quarantine'"), "CHECK"),
        ("INSERT INTO " + copy_of_row_1(number="2", verdict="'maybe'"), "CHECK"),
    ],
)
def test_the_database_itself_refuses_nonsense(registry: Registry, statement: str, why: str) -> None:
    promote(registry, candidate(registry, "a"))
    with registry._ledger.write() as connection, pytest.raises(sqlite3.IntegrityError, match=why):
        connection.execute(statement)


def test_a_failing_operation_is_undone(registry: Registry) -> None:
    promote(registry, candidate(registry, "a"))
    before = registry.champion()
    with pytest.raises(KeyboardInterrupt), registry._ledger.write() as connection:
        connection.execute(f"INSERT INTO {copy_of_row_1(number='2')}")
        raise KeyboardInterrupt
    assert registry.champion() == before


def race(root: Path, new: Candidate, seen: int | None, start: Barrier, won: "multiprocessing.Queue[str]") -> None:
    registry = Registry(root)
    start.wait()
    try:
        registry.promote(new, expected=seen, reason="race", evidence=None)
        won.put(new.policy)
    except ConflictError:
        won.put("")


def test_of_racing_processes_exactly_one_promotes(registry: Registry) -> None:
    candidates = [candidate(registry, name) for name in "abcd"]
    for _ in range(4):
        champion = registry.champion()
        seen = champion.version if champion else None
        racers = [c for c in candidates if champion is None or c.hashes != champion.hashes]
        start, results = FORK.Barrier(len(racers)), FORK.Queue()
        processes = [FORK.Process(target=race, args=(registry.root, c, seen, start, results)) for c in racers]
        for process in processes:
            process.start()
        outcomes = [results.get(timeout=30) for _ in racers]
        for process in processes:
            process.join(30)
        (winner,) = [policy for policy in outcomes if policy]
        champion = registry.champion()
        assert champion is not None
        assert champion.policy == winner
        assert champion.fallback == seen
    assert [d.number for d in registry.decisions()] == [1, 2, 3, 4]


def open_and_save(root: Path, start: Barrier, hashes: "multiprocessing.Queue[str]") -> None:
    start.wait()
    hashes.put(save(Registry(root), "policy", "same"))


def test_racing_processes_open_a_new_registry_and_save_the_same_content(tmp_path: Path) -> None:
    for attempt in range(3):
        root = tmp_path / str(attempt)
        start, hashes = FORK.Barrier(4), FORK.Queue()
        processes = [FORK.Process(target=open_and_save, args=(root, start, hashes)) for _ in range(4)]
        for process in processes:
            process.start()
        (saved,) = {hashes.get(timeout=30) for _ in processes}
        for process in processes:
            process.join(30)
        registry = Registry(root)
        assert [a.hash for a in registry.artifacts()] == [saved]
        assert registry.verify_all() == []


def test_another_writer_makes_an_operation_wait_and_then_fail_clearly(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = candidate(registry, "a")
    monkeypatch.setattr("corewrite.registry.ledger._BUSY_SECONDS", 0.05)
    with Registry(registry.root)._ledger.write():
        assert registry.champion() is None  # reading goes on
        with pytest.raises(RegistryError, match=r"registry\.sqlite3: database is locked"):
            registry.promote(a, expected=None, reason="x", evidence=None)
    promote(registry, a)
