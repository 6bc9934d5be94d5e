"""The fuzz targets for files and backends on a few inputs each, and that they find what is broken on purpose."""

import sys
from itertools import islice
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import fuzz
import fuzz_backends
import fuzz_files

sys.path.pop(0)
pytest.importorskip("qdrant_client")
pytest.importorskip("opensearchpy")


def tried(target, n):
    tally, kept = fuzz.Tally(), []
    for data in [*target.seeds, *islice(fuzz.inputs(target, 0), n)]:
        fuzz.one(target, data, tally, lambda kind, data, told: kept.append(told))
    return tally, kept


@pytest.fixture(params=["models", "journals", "configs", "values", "backends"])
def named(request, tmp_path, capfd):
    target = fuzz._maker(request.param)(tmp_path)
    yield request.param, target
    target.close()


OUTCOMES = {
    "models": {"hashed", "refused", "named", "loads", "ranker"},
    "journals": {"read", "refused"},
    "configs": {"settings", "refused"},
    "values": {"value", "secret value", "refused", "warm", "cold"},
    "backends": {
        "model scores", "model ScorerMismatchError", "model ScorerUnavailableError", "engine rows", "engine scores",
        "engine EngineError", "engine EngineUnavailableError", "samples", "no samples", "models", "no models",
    },
}  # fmt: skip


def test_nothing_but_what_is_documented(named):
    name, target = named
    tally, kept = tried(target, {"models": 300, "configs": 300}.get(name, 1_000))
    assert kept == []
    assert OUTCOMES[name] <= set(tally.outcomes)


def test_every_target_has_its_share():
    assert set(fuzz.SHARES) == set(fuzz.SHARES_OF_TIME) and sum(fuzz.SHARES.values()) == pytest.approx(1)
    assert sum(fuzz.SHARES_OF_TIME.values()) == pytest.approx(1)


@pytest.fixture
def made():
    """Makes a target that is closed at the end."""
    begun = []
    yield lambda kind: begun.append(kind()) or begun[-1]
    for target in begun:
        target.close()


def found(target, n, what):
    _, kept = tried(target, n)
    assert any(what in told for told in kept), kept[:1]


def test_an_index_that_is_not_checked_is_found(made, monkeypatch):
    monkeypatch.setattr("corewrite.storage.model_files._check_index", lambda path: None)
    target = made(fuzz_files.Models)
    target.seeds = [target.seeds[1]]
    found(target, 500, "weights")


def test_a_step_that_is_not_checked_is_found(made, monkeypatch):
    monkeypatch.setattr(fuzz_files, "SHAPES", {})
    found(made(fuzz_files.Journals), 600, "Error")


def test_settings_that_raise_as_the_library_does_are_found(made, monkeypatch):
    monkeypatch.setattr(
        "corewrite.domain.strict_yaml.StrictLoader.construct_object", fuzz_files.yaml.SafeLoader.construct_object
    )
    found(made(fuzz_files.Configs), 600, "Error")


def test_a_value_whose_mark_is_not_looked_at_is_found(made, monkeypatch):
    monkeypatch.setattr("corewrite.serving.cache.hmac.compare_digest", lambda one, other: True)
    found(made(fuzz_backends.Values), 600, "planted, and served")


def test_an_engine_that_lets_its_client_speak_is_found(made, monkeypatch):
    from contextlib import nullcontext

    for name in ("qdrant", "opensearch", "redis"):
        monkeypatch.setattr(f"corewrite.search.engines.{name}.answered", lambda *_: nullcontext())
    found(made(fuzz_backends.Backends), 300, "Error")
