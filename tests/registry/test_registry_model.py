"""Random sequences of operations against a model that is a few lists."""

import shutil
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from corewrite.registry import KINDS, Candidate, ConflictError, Kind, Registry, RegistryError

Key = tuple[Kind, str]
Draw = Callable[[st.SearchStrategy[Any]], Any]
MEMORY = Path("/dev/shm")
# One rule with weights, not a rule per operation: hypothesis switches rules off at random, and most runs
# would then hold no champion at all.
OPERATIONS = [
    *["promote"] * 8, *["rollback"] * 4, *["save"] * 3, *["quarantine"] * 2,
    "record", "damage", "open_again", "collect", "collect",
]  # fmt: skip


class RegistryModel(RuleBasedStateMachine):
    """The model: `stack` holds (version, candidate) of the champion and those below it, the champion last."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.registry = Registry(self.root)
        self.text: dict[Key, str] = {}
        self.metadata: dict[Key, int] = {}
        self.damaged: set[Key] = set()
        self.quarantined: set[Key] = set()
        self.collected: set[Key] = set()
        self.stack: list[tuple[int, Candidate]] = []
        self.log: list[tuple[str, Candidate | Key, int | None]] = []

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @initialize()
    def enough_to_promote(self) -> None:
        for kind in KINDS:
            for text in "abc" if kind == "policy" else "a":
                self.put(kind, text, 0)

    @rule(data=st.data(), operation=st.sampled_from(OPERATIONS))
    def operate(self, data: st.DataObject, operation: str) -> None:
        getattr(self, operation)(data.draw)

    def save(self, draw: Draw) -> None:
        self.put(draw(st.sampled_from(KINDS)), draw(st.sampled_from("abcd")), draw(st.integers(0, 9)))

    def promote(self, draw: Draw) -> None:
        new, stale = self.candidate(draw), draw(st.sampled_from([False] * 5 + [True]))
        expected = len(self.log) + 1 if stale else self.version
        keys = set(new.hashes.items())
        sound = not keys & (self.damaged | self.collected)
        fit = not keys & self.quarantined and new != self.top
        decision = self.attempt(
            lambda: self.registry.promote(new, expected=expected, reason="r", evidence=[1]),
            allowed=sound and fit and not stale,
            conflict=sound and stale,
        )
        if decision is not None:
            self.log.append(("promote", new, self.version))
            self.stack.append((decision.number, new))

    def rollback(self, draw: Draw) -> None:
        stale = self.version is None or draw(st.sampled_from([False] * 5 + [True]))
        expected = len(self.log) + 1 if stale else self.version
        below = self.stack[:-1]
        while below and (below[-1][1] == self.top or set(below[-1][1].hashes.items()) & self.barred):
            below.pop()
        decision = self.attempt(
            lambda: self.registry.rollback(expected=expected, reason="r"),  # type: ignore[arg-type]
            allowed=bool(below) and not stale,
            conflict=stale,
        )
        if decision is not None:
            self.log.append(("rollback", below[-1][1], self.version))
            self.stack = [*below[:-1], (decision.number, below[-1][1])]

    def quarantine(self, draw: Draw) -> None:
        key = draw(st.sampled_from([k for k in self.text if k[0] == "policy"]))
        serving = self.top is not None and key in self.top.hashes.items()
        decision = self.attempt(lambda: self.registry.quarantine(*key, reason="r"), allowed=not serving)
        if decision is not None:
            self.quarantined.add(key)
            self.log.append(("quarantine", key, self.version))

    def record(self, draw: Draw) -> None:
        new, verdict = self.candidate(draw), draw(st.sampled_from(["hold", "reject"]))
        decision = self.attempt(
            lambda: self.registry.record(verdict, new, reason="r", evidence=None),
            allowed=not set(new.hashes.items()) & self.collected,
        )
        if decision is not None:
            self.log.append((verdict, new, self.version))

    def collect(self, draw: Draw) -> None:
        keep = draw(st.integers(2, 3))
        needed = [what for verdict, what, _ in self.log if verdict in ("promote", "rollback")][-keep:]
        needed += [what for verdict, what, at in self.log if verdict == "hold" and at == self.version]
        sound = [c for _, c in reversed(self.stack) if not set(c.hashes.items()) & self.quarantined]
        needed += list(dict.fromkeys(sound))[:keep]
        keys = {key for c in needed if isinstance(c, Candidate) for key in c.hashes.items()}
        gone = self.text.keys() - keys - self.collected
        told = self.registry.garbage(keep=keep, grace=timedelta(0))
        found = self.registry.gc(keep=keep, grace=timedelta(0))
        assert found == told
        assert {(g.kind, g.name) for g in found} == gone
        self.collected |= gone
        self.damaged -= gone

    def damage(self, draw: Draw) -> None:
        there = [key for key in self.text if key not in self.collected]
        if not there:
            return
        kind, hash = key = draw(st.sampled_from(there))
        (self.root / "artifacts" / kind / hash / "a.txt").write_text("damaged")
        self.damaged.add(key)

    def open_again(self, draw: Draw) -> None:
        self.registry = Registry(self.root)

    @property
    def barred(self) -> set[Key]:
        return self.quarantined | self.collected

    @property
    def version(self) -> int | None:
        return self.stack[-1][0] if self.stack else None

    @property
    def top(self) -> Candidate | None:
        return self.stack[-1][1] if self.stack else None

    def candidate(self, draw: Draw) -> Candidate:
        return Candidate(*(draw(st.sampled_from([h for k, h in self.text if k == kind])) for kind in KINDS))

    def put(self, kind: Kind, text: str, value: int) -> None:
        known = {t: key for key, t in self.text.items() if key[0] == kind}.get(text)

        def write(folder: Path) -> None:
            (folder / "a.txt").write_text(text)

        saved = self.attempt(lambda: self.registry.save(kind, write, {"v": value}), allowed=known not in self.damaged)
        if saved is not None:
            key = (kind, saved.hash)
            assert known in (None, key)
            self.text[key] = text
            self.collected.discard(key)
            assert saved.metadata == {"v": self.metadata.setdefault(key, value)}

    def attempt(self, act: Callable[[], Any], *, allowed: bool, conflict: bool = False) -> Any:
        """What `act` returns; it must succeed exactly if allowed, and fail by a conflict only if so said."""
        try:
            result = act()
        except RegistryError as error:
            assert not allowed
            assert isinstance(error, ConflictError) == conflict
            return None
        assert allowed
        return result

    @invariant()
    def agrees(self) -> None:
        champion = self.registry.champion()
        if champion is None:
            assert self.stack == []
        else:
            assert (champion.version, Candidate(**champion.hashes)) == self.stack[-1]
            assert champion.fallback == (self.stack[-2][0] if len(self.stack) > 1 else None)
            assert not set(champion.hashes.items()) & self.barred
        decisions = self.registry.decisions()
        assert [(d.verdict, d.candidate or d.quarantined, d.previous) for d in decisions] == self.log
        assert [d.number for d in decisions] == list(range(1, len(self.log) + 1))
        rows = self.registry.artifacts(collected=True)
        assert {(a.kind, a.hash): a.metadata["v"] for a in rows} == self.metadata
        assert {(a.kind, a.hash) for a in rows if a.collected is not None} == self.collected
        on_disk = {(p.parent.name, p.name) for p in self.root.glob("artifacts/*/*/")}
        assert on_disk == self.text.keys() - self.collected
        assert {(f.kind, f.hash) for f in self.registry.verify_all()} == self.damaged


TestRegistryModel = RegistryModel.TestCase
TestRegistryModel.settings = settings(max_examples=30, stateful_step_count=30, deadline=None, derandomize=True)
