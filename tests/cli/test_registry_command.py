"""`corewrite registry`: what it prints, what it changes, and its exit codes."""

import json
import sqlite3
import sys
import time

import pytest
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.domain.shown import spelled
from corewrite.registry import Candidate, Registry


def save(registry, kind, text):
    return registry.save(kind, lambda folder: (folder / "a.txt").write_text(text) and None, {"text": text}).hash


@pytest.fixture
def run(tmp_path):
    registry = Registry(tmp_path / "registry")
    shared = save(registry, "relevance", "r"), save(registry, "spec", "s")
    for version, text in ((None, "a"), (1, "bb")):
        policy = save(registry, "policy", text)
        registry.promote(Candidate(policy, *shared), expected=version, reason=f"{text} is better", evidence={"L": 0.25})
    save(registry, "policy", "spare")
    return tmp_path


@pytest.fixture
def registry(run):
    return Registry(run / "registry")


def call(run, *args, code=0):
    result = CliRunner().invoke(app, ["registry", *args, "--run", str(run)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.stdout if code == 0 else result.output


def called(run, *args, code=0):
    return json.loads(call(run, *args, "--json", code=code))


def policy(registry, text):
    return next(a.hash for a in registry.artifacts() if a.metadata["text"] == text)


def age(registry):
    with sqlite3.connect(registry.root / "registry.sqlite3") as connection:
        connection.execute("UPDATE artifacts SET saved = '2020-01-01'")


def test_reasons_are_shown_and_nothing_more(run, registry):
    reason = "bad\x1b[2J\x9b\u202egnp\u3164\n   9  2026-01-01  promote    000000000000  never happened"
    number = registry.quarantine("policy", policy(registry, "spare"), reason, {"by\x1b": "\u202e"}).number
    for args in (("show",), ("show", policy(registry, "spare")), ("show", "--decision", str(number))):
        out = call(run, *args)
        assert out == spelled(out, keep="\n") and "bad<U+001B>[2J<U+009B><U+202E>gnp<U+3164> 9 2026" in out
        assert called(run, *args) and call(run, *args, "--json").isascii()


def test_list(run, registry):
    registry.quarantine("policy", policy(registry, "spare"), "bad")
    lines = call(run, "list").splitlines()
    assert lines[0].startswith(f"champion  version 2, policy {policy(registry, 'bb')[:12]}, relevance ")
    assert len(lines) == 1 + 5
    bb = next(line for line in lines if policy(registry, "bb")[:12] in line and not line.startswith("champion"))
    assert bb.split() == ["*", "policy", policy(registry, "bb")[:12], "2", "B", registry.artifact(
        "policy", policy(registry, "bb")).created, "1", "decisions"]  # fmt: skip
    rows = called(run, "list")["artifacts"]
    assert [(r["kind"], r["champion"], r["quarantined"], r["size"], r["decisions"]) for r in rows] == [
        ("relevance", True, False, 1, 2), ("spec", True, False, 1, 2), ("policy", False, False, 1, 1),
        ("policy", True, False, 2, 1), ("policy", False, True, 5, 1),
    ]  # fmt: skip


def test_show(run, registry):
    lines = call(run, "show").splitlines()
    assert [line.split()[0] for line in lines] == ["champion", "1", "2"]
    assert lines[2].endswith("bb is better")
    shown = called(run, "show", policy(registry, "a")[:6])
    assert (shown["metadata"], [d["number"] for d in shown["decisions"]]) == ({"text": "a"}, [1])
    assert called(run, "show", "--decision", "2")["evidence"] == {"L": 0.25}
    assert "no decision 3, the log ends with 2" in call(run, "show", "--decision", "3", code=1)
    assert "not both" in call(run, "show", "abcdef", "--decision", "1", code=2)
    assert "at least 6" in call(run, "show", "abcde", code=1)


def test_promote_by_hand_is_an_override_with_a_reason_and_a_name(run, registry):
    spare = policy(registry, "spare")
    assert "--by" in call(run, "promote", spare, "--reason", "r", code=2)
    assert "--reason" in call(run, "promote", spare, "--by", "Ada", code=2)
    assert "a name is needed" in call(run, "promote", spare, "--reason", "r", "--by", " ", code=2)
    assert "needs a reason" in call(run, "promote", spare, "--reason", " ", "--by", "Ada", code=1)
    stale = call(run, "promote", spare, "--reason", "r", "--by", "Ada", "--expected", "1", code=1)
    assert "champion is version 2, not 1" in stale
    assert len(registry.decisions()) == 2
    made = called(run, "promote", spare[:6], "--reason", "gate was down", "--by", "Ada")
    assert (made["number"], made["verdict"], made["evidence"]) == (3, "promote", {"override": True, "by": "Ada"})
    assert registry.champion().policy == spare
    assert registry.decisions()[-1].reason == "gate was down"


def test_the_first_promote_needs_all_three(tmp_path):
    registry = Registry(tmp_path / "registry")
    p, r, s = save(registry, "policy", "p"), save(registry, "relevance", "r"), save(registry, "spec", "s")
    why = "--reason", "first", "--by", "Ada"
    assert "name one with --relevance" in call(tmp_path, "promote", p, *why, code=1)
    assert "no artifact" in call(tmp_path, "promote", p, "--relevance", s, "--spec", s, *why, code=1)
    call(tmp_path, "promote", p[:8], "--relevance", r[:8], "--spec", s[:8], *why)
    assert registry.champion().hashes == {"policy": p, "relevance": r, "spec": s}


def test_rollback(run, registry):
    assert "--reason" in call(run, "rollback", code=2)
    assert "version 2, not 1" in call(run, "rollback", "--reason", "r", "--expected", "1", code=1)
    start = time.perf_counter()
    assert called(run, "rollback", "--reason", "alarm")["evidence"] == {"from": 2, "to": 1}
    assert time.perf_counter() - start < 1
    assert registry.champion().policy == policy(registry, "a")
    assert "no usable champion" in call(run, "rollback", "--reason", "alarm", code=1)
    assert [d.verdict for d in registry.decisions()] == ["promote", "promote", "rollback"]


def test_rollback_without_champion(tmp_path):
    Registry(tmp_path / "registry")
    assert "no champion to roll back" in call(tmp_path, "rollback", "--reason", "r", code=1)


def test_quarantine(run, registry):
    assert "part of the champion" in call(run, "quarantine", policy(registry, "bb"), "--reason", "r", code=1)
    same = save(registry, "spec", "spare")
    assert "start of 2" in call(run, "quarantine", same, "--reason", "r", code=1)
    made = called(run, "quarantine", same, "--kind", "policy", "--reason", "leaks")
    assert made["quarantined"] == ["policy", same]
    assert "quarantined (leaks)" in call(run, "promote", same, "--reason", "r", "--by", "Ada", code=1)


def test_verify_finds_a_flipped_byte(run, registry):
    assert call(run, "verify").strip() == "all content matches its hash"
    damaged, sound = policy(registry, "spare"), policy(registry, "a")
    path = registry.root / "artifacts" / "policy" / damaged / "a.txt"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    assert "changed: a.txt" in call(run, "verify", code=1)
    (finding,) = called(run, "verify", damaged[:7], code=1)["findings"]
    assert finding["hash"] == damaged
    assert called(run, "verify", sound[:7]) == {"findings": []}


def test_gc_only_says_what_it_would_do_until_it_is_told_yes(run, registry):
    assert "would remove 0 entries" in call(run, "gc")
    age(registry)
    spare = policy(registry, "spare")
    lines = call(run, "gc").splitlines()
    assert lines == [
        f"policy    {spare[:12]}        5 B  no decision needs it any more", "would remove 1 entries, 5 B; --yes does it"
    ]  # fmt: skip
    assert registry.path(registry.artifact("policy", spare)).is_dir()
    removed = called(run, "gc", "--yes")
    assert (removed["removed"], removed["bytes"], [g["name"] for g in removed["garbage"]]) == (True, 5, [spare])
    assert spare not in {a.hash for a in registry.artifacts()}
    assert not (registry.root / "artifacts" / "policy" / spare).exists()
    assert "collected" in call(run, "show", spare[:6])
    assert "removed by gc" in call(run, "promote", spare, "--reason", "r", "--by", "Ada", code=1)
    assert "--keep" in call(run, "gc", "--keep", "1", code=2)


def test_export(run, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "store").as_uri()
    assert called(run, "export", "--mlflow", uri) == {"runs": 2}
    assert called(run, "export", "--mlflow", uri) == {"runs": 0}


def test_export_without_mlflow_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert "pip install 'corewrite[mlflow]'" in call(run, "export", "--mlflow", "file:///nowhere", code=1)
