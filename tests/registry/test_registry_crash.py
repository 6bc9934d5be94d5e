"""A process killed at any line leaves whole artifacts, one valid champion and a registry that works on."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import corewrite.registry.garbage
import corewrite.registry.ledger
import corewrite.registry.shelves
import corewrite.registry.staging
import corewrite.registry.store
import corewrite.storage.durable
from corewrite.registry import Candidate, Champion, Registry
from corewrite.registry.content import content_hash, manifest

# Where files are written, moved and committed; hashing and reading rows change nothing.
WRITING = {
    __file__, corewrite.registry.store.__file__, corewrite.storage.durable.__file__, corewrite.registry.staging.__file__,
    corewrite.registry.shelves.__file__, corewrite.registry.garbage.__file__,
}  # fmt: skip
COMMIT = corewrite.registry.ledger._transaction.__wrapped__.__code__


def write(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "config.json").write_text("{}")
    (folder / "weights.safetensors").write_bytes(b"new" * 1000)


def fill(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "a.txt").write_text(text) and None


def save_and_promote(root: Path) -> None:
    registry = Registry(root)
    champion = registry.champion()
    assert champion is not None
    policy = registry.save("policy", write, {"reward": 1.5}).hash
    new = Candidate(policy, champion.relevance, champion.spec)
    registry.promote(new, expected=champion.version, reason="better", evidence=None)


def killed_at(line: int, work: Callable[[Path], object], root: Path) -> bool:
    """Do `work` in a child that kills itself before its `line`-th line of writing code; False: it got through."""
    child = os.fork()
    if child == 0:
        left = line

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left
            if frame.f_code.co_filename not in WRITING and frame.f_code is not COMMIT:
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        try:
            work(root)
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def kills(work: Callable[[Path], object], tmp: Path, template: Path | None) -> Iterator[Path]:
    """The registry after a kill at every line, from a copy of `template` each time."""
    line = 1
    while True:
        root = tmp / "registry"
        if template is not None:
            shutil.copytree(template, root)
        alive = not killed_at(line, work, root)
        yield root
        shutil.rmtree(root, ignore_errors=True)
        if alive:
            return
        line += 1


def check(root: Path, allowed: list[dict[str, str]]) -> Champion | None:
    for folder in root.glob("artifacts/*/*/"):
        assert content_hash(manifest(folder)) == folder.name  # nothing partial
    registry = Registry(root)
    champion = registry.champion()
    assert (champion.hashes if champion else None) in allowed
    for artifact in registry.artifacts():
        registry.verify(artifact.kind, artifact.hash)
    assert all("not registered" in finding.problem for finding in registry.verify_all())
    return champion


@pytest.fixture
def fast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory where there is one: a kill loses nothing written, so the disk does not matter."""
    memory = Path("/dev/shm")
    root = memory / f"corewrite-{os.getpid()}" if memory.is_dir() else tmp_path_factory.mktemp("crash")
    root.mkdir(exist_ok=True)
    yield root
    shutil.rmtree(root)


def test_kill_while_saving_and_promoting(fast: Path) -> None:
    registry = Registry(fast / "template")
    old = Candidate(*(registry.save(k, fill(f"old {k}"), {}).hash for k in ("policy", "relevance", "spec")))
    registry.promote(old, expected=None, reason="first", evidence=None)
    new = Registry(fast / "probe").save("policy", write, {}).hash
    promoted = {**old.hashes, "policy": new}
    seen = []
    for root in kills(save_and_promote, fast, registry.root):
        champion = check(root, [old.hashes, promoted])
        assert champion is not None
        seen.append(champion.version)
        if champion.version == 1:  # life goes on: the same work, done again, succeeds
            save_and_promote(root)
            assert check(root, [promoted]) is not None
            assert Registry(root).verify_all() == []
    assert seen == sorted(seen)
    assert set(seen) == {1, 2}
    assert seen.count(1) > 50


def test_kill_while_making_a_registry(fast: Path) -> None:
    tried = 0
    for root in kills(Registry, fast, None):
        assert Registry(root).champion() is None
        saved = Registry(root).save("policy", write, {})
        assert Registry(root).artifacts() == [saved]
        tried += 1
    assert tried > 30


def promoted(registry: Registry, *policies: str) -> list[Candidate]:
    """Champions one after the other."""
    triples = []
    for text in policies:
        hashes = (registry.save(k, fill(text if k == "policy" else k), {}).hash for k in ("policy", "relevance", "spec"))
        triples.append(Candidate(*hashes))
        registry.promote(triples[-1], expected=len(triples) - 1 or None, reason="better", evidence=None)
    return triples


def roll_back(root: Path) -> None:
    registry = Registry(root)
    champion = registry.champion()
    assert champion is not None
    registry.rollback(expected=champion.version, reason="alarm")


def test_kill_while_rolling_back(fast: Path) -> None:
    first, second = promoted(Registry(fast / "template"), "first", "second")
    seen = []
    for root in kills(roll_back, fast, fast / "template"):
        champion = check(root, [first.hashes, second.hashes])
        assert champion is not None
        assert champion.hashes == (second.hashes if champion.version == 2 else first.hashes)
        seen.append(champion.version)
        assert len(Registry(root).decisions()) == champion.version
    assert seen == sorted(seen)
    assert set(seen) == {2, 3}


def collect(root: Path) -> None:
    Registry(root).gc(keep=2, grace=timedelta(0))


def revive(root: Path) -> None:
    Registry(root).save("policy", fill("first"), {})


def test_kill_while_collecting_garbage(fast: Path) -> None:
    template = Registry(fast / "template")
    first, second, third = promoted(template, "first", "second", "third")
    spare = template.save("policy", write, {}).hash
    fill("x")(template._shelves.shelf("spec"))  # an entry that is no artifact
    abandoned = template.root / "staging" / "abandoned"
    abandoned.mkdir()
    write(abandoned)
    left = {second.policy, third.policy}
    seen = []
    for root in kills(collect, fast, template.root):
        assert check(root, [third.hashes]) is not None
        held = {a.hash for a in Registry(root).artifacts() if a.kind == "policy"}
        assert held in (left, left | {first.policy, spare})
        seen.append(len(held))
        if len(seen) % 3 == 0:  # first a save, which must bring back what is half removed
            revive(root)
            check(root, [third.hashes])
            assert Registry(root).artifact("policy", first.policy).metadata == {}
        collect(root)
        registry = Registry(root)
        assert {a.hash for a in registry.artifacts() if a.kind == "policy"} == left
        assert registry.verify_all() == []
        assert registry.garbage(keep=2, grace=timedelta(0)) == []
        assert len(list(root.glob("artifacts/policy/*"))) == 4
        assert list(root.glob("staging/*")) == []
        assert len(registry.decisions()) == 3
    assert seen == sorted(seen, reverse=True)
    assert set(seen) == {2, 4}


def test_kill_while_bringing_back_what_was_collected(fast: Path) -> None:
    template = Registry(fast / "template")
    first, _, third = promoted(template, "first", "second", "third")
    collect(template.root)
    seen = []
    for root in kills(revive, fast, template.root):
        assert check(root, [third.hashes]) is not None
        held = {a.hash for a in Registry(root).artifacts()}
        seen.append(first.policy in held)
        revive(root)
        Registry(root).verify("policy", first.policy)
        assert Registry(root).verify_all() == []
    assert seen == sorted(seen)
    assert set(seen) == {False, True}
