"""Promotions, rollbacks, and artifacts that are damaged just then."""

import os
import shutil
import signal
import time

import pytest

from corewrite.domain import Query
from corewrite.registry import Candidate, Registry
from corewrite.rewriter import greedy, load_rewriter

SECONDS = float(os.environ.get("COREWRITE_FAULTS_SECONDS", "14"))


@pytest.fixture
def calm(server, platform, kit):
    """The first policy is served, whatever a test before left."""
    champion = platform.registry.champion()
    if champion.policy != platform.first.policy:
        platform.promote(platform.first)
        kit.wait(lambda: shown(server)["policy"] == platform.first.policy, 20, "the first policy")


def shown(server):
    with server.http as http:
        return http.get("/readyz").json()


def test_promotion_and_rollback_every_second(server, platform, calm, queries, cascade, kit, note):
    """Every answer is wholly of one policy: its number, its rewrite, and the ranking that this rewrite gives."""
    registry, expected = platform.registry, {}
    for candidate in (platform.first, platform.second):
        policy = load_rewriter(registry.path(registry.artifact("policy", candidate.policy)))
        for query, found in zip(queries, greedy(policy, [Query(q) for q in queries]), strict=True):
            expected[candidate.policy, query] = found.text
    policies, switches = {registry.champion().version: registry.champion().policy}, []
    with kit.load.Load(server.port, queries, contexts=False) as load:
        end = time.monotonic() + SECONDS
        promote = True
        while time.monotonic() < end:
            began = time.monotonic()
            platform.promote(platform.second) if promote else platform.rollback()
            champion, promote = registry.champion(), not promote
            policies[champion.version] = champion.policy
            switches.append(load.until(lambda a, wanted=champion.version: a.body["version"] == wanted, began, 2))
            time.sleep(max(0.0, began + 1 - time.monotonic()))
    rankings = {}
    assert {a.status for a in load.answers} == {200}
    for a in load.answers:
        policy, rewrites = policies[a.body["version"]], tuple(a.body["rewrites"])
        assert a.body["policy"] == policy
        if a.body["rewrite_status"] in {"ok", "cached"}:
            assert rewrites == (expected[policy, a.query],), a
        states = set(a.body["signal_status"].values())
        if states in ({"ok"}, {"neutral"}) or a.neutral:
            key = a.query, None if a.neutral else rewrites
            if key not in rankings:
                rankings[key] = kit.ranked(cascade, *key)
            assert kit.load.ranking(a) == rankings[key], a
    told = {a.body["policy"] for a in load.answers}
    assert told == {platform.first.policy, platform.second.policy} and len(switches) >= 0.8 * SECONDS
    note(
        f"promotion and rollback every second, {SECONDS:.0f} s", load.answers, recovery_s=max(switches), switches=len(switches)
    )


@pytest.mark.parametrize("damage", ["deleted", "a byte flipped"])
def test_a_model_folder_that_is_damaged_while_the_champion_changes(
    server, platform, calm, queries, plain, kit, note, tmp_path, monkeypatch, damage
):
    registry, before = platform.registry, platform.registry.champion()
    artifact = registry.save("policy", kit.taught(platform.catalogue, seed=3 + len(damage)).save, {})
    folder = registry.path(artifact)
    shutil.copytree(folder, tmp_path / "whole")
    with kit.load.Load(server.port, queries) as load:
        monkeypatch.setattr(Registry, "verify", lambda *_: None)  # the damage comes after the check and before the load
        if damage == "deleted":
            shutil.rmtree(folder)
        else:
            weights = folder / "model.safetensors"
            weights.chmod(0o644)
            content = bytearray(weights.read_bytes())
            content[-1] ^= 1
            weights.write_bytes(content)
        platform.promote(Candidate(artifact.hash, platform.first.relevance, platform.first.spec))
        monkeypatch.undo()
        began = time.monotonic()
        kit.wait(lambda: shown(server).get("problem"), 5, "a problem that is told")
        time.sleep(1.5)
        mended = time.monotonic()
        told = shown(server)
        if damage != "deleted":
            weights.write_bytes((tmp_path / "whole" / "model.safetensors").read_bytes())
        else:
            shutil.copytree(tmp_path / "whole", folder)
        recovery = load.until(lambda a: a.body["policy"] == artifact.hash, mended, 15, run=5)
    kit.load.check(load.answers, plain)
    broken = load.since(began, mended)
    assert told["status"] == "ready" and told["version"] == before.version and told["problem"]
    assert {a.body["version"] for a in broken} == {before.version}
    assert sum(a.body["rewrite_status"] in kit.load.SPOKE for a in broken) > 0.8 * len(broken)
    note(f"model folder {damage} while the champion changes", broken, recovery_s=recovery)


def test_the_champions_own_folder_is_deleted_and_its_process_dies(server, platform, calm, queries, plain, kit, note, tmp_path):
    registry = platform.registry
    folder = registry.path(registry.artifact("policy", platform.first.policy))
    with kit.load.Load(server.port, queries) as load:
        load.until(lambda a: a.body["rewrite_status"] in kit.load.SPOKE, time.monotonic(), 15, run=5)
        shutil.move(folder, tmp_path / "away")
        for pid in server.rewriters():
            os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        load.until(lambda a: a.body["rewrite_status"] == "starting", began, 5, run=5)
        time.sleep(1)
        mended = time.monotonic()
        shutil.copytree(tmp_path / "away", folder)
        recovery = load.until(lambda a: a.body["rewrite_status"] in kit.load.SPOKE, mended, 15, run=5)
    kit.load.check(load.answers, plain)
    broken = load.since(began + 0.2, mended)
    assert all(a.neutral and kit.load.ranking(a) == plain[a.query] for a in broken)
    note("the champion's folder deleted, its process killed", broken, recovery_s=recovery)
