"""A ranker that is not ours in every step of a cycle: probed, trained under, gated, replaced, refused, gone."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from corewrite.cycle import read_catalogue
from corewrite.cycle.run import run_cycle
from corewrite.deployment.open import RankerOpener
from corewrite.deployment.pins import load_pins
from corewrite.domain import ConfigError
from corewrite.registry import Registry, RegistryError
from corewrite.relevance.backends import ScorerUnavailableError
from corewrite.rewriter import load_rewriter

sys.path.insert(0, str(Path(__file__).parent))
import own_ranker


def ranker(version, **more):
    signal = {
        "kind": "python", "factory": "own_ranker:words_and_picture", "version": version, "options": {"version": version},
        "inputs": {"text": "text", "document": "document", "picture": "document.visual"}, **more,
    }  # fmt: skip
    return {"signals": {"relevance": signal}}


@pytest.fixture
def alone(tmp_path, monkeypatch):
    monkeypatch.setattr(own_ranker, "DOWN", set())
    monkeypatch.setattr(own_ranker, "ASKED", {})
    return own_ranker


def promoted(config, week, steps):
    """A finished cycle whose candidate is the champion, by hand where the gate held it back."""
    record = run_cycle(config, week, steps=steps)
    registry = Registry(config.run / "registry")
    if registry.champion() is None:
        candidate = next(d for d in registry.decisions() if d.candidate is not None).candidate
        # What training began from: the gate refuses, and bars, a candidate that rewrites nothing.
        start = registry.save("policy", load_rewriter(config.run / "cycles" / week / "start").save, {}).hash
        triple = replace(candidate, policy=start)
        registry.promote(triple, expected=None, reason="a test needs one", evidence={"override": True})
    return record


def artifact(config):
    registry = Registry(config.run / "registry")
    champion = registry.champion()
    return registry.artifact("relevance", champion.relevance), registry.path(registry.artifact("relevance", champion.relevance))


def test_weeks_under_a_ranker_of_ones_own(settings, steps, alone):
    refresh = {"relevance_every": 0, "examples": 200}
    one = settings(ranker=ranker("1"), refresh=refresh)
    first = promoted(one, "w1", steps)
    assert alone.ASKED["1"] > 1_000, "it was asked for rewards and lists"
    kept, folder = artifact(one)
    pins = load_pins(folder)
    assert pins.signals["relevance"]["version"] == "1" and "url" not in json.dumps(pins.signals)
    prints = pins.fingerprints["relevance"]
    assert len(prints.scores) == 64 and prints.spread <= 1e-6
    assert first["provenance"]["model_hash"] == kept.metadata["model_hash"]

    # The same ranker in the next week: nothing is fitted, nothing is new.
    second = run_cycle(one, "w2", steps=steps)
    assert second["relevance"] == kept.hash and not second["relevance_fitted"]

    # A version that prefers what matches least is refused; the one before stays in ranker and reward.
    broken = settings(ranker=ranker("broken"), refresh=refresh)
    third = run_cycle(broken, "w3", steps=steps)
    assert third["relevance"] == kept.hash
    assert any("is not used, the champion's stays" in a for a in third["alarms"]), third["alarms"]
    registry = Registry(one.run / "registry")
    barred = [d.quarantined[1] for d in registry.decisions() if d.quarantined and d.quarantined[0] == "relevance"]
    assert (
        barred
        and load_pins(registry.path(registry.artifact("relevance", barred[-1]))).signals["relevance"]["version"] == "broken"
    )
    assert registry.champion().relevance == kept.hash


def test_one_that_scores_in_two_ways_or_is_down_is_not_taken(settings, steps, alone, monkeypatch):
    config = settings(ranker=ranker("1"), refresh={"relevance_every": 0, "examples": 200})
    promoted(config, "w1", steps)
    kept, _ = artifact(config)
    alone.DOWN.add("2")
    record = run_cycle(settings(ranker=ranker("2"), refresh={"relevance_every": 0, "examples": 200}), "w2", steps=steps)
    assert record["relevance"] == kept.hash
    assert any("cannot be used, the champion's stays" in a and "version 2 is down" in a for a in record["alarms"])
    # Down while it is the champion's and the settings': nothing is decided, the same week goes on when it answers again.
    alone.DOWN.add("1")
    with pytest.raises(ScorerUnavailableError):
        run_cycle(config, "w3", steps=steps)
    alone.DOWN.clear()
    assert run_cycle(config, "w3", steps=steps)["relevance"] == kept.hash


def test_where_the_new_one_is_refused_and_the_old_one_gone_the_week_is_held(settings, steps, alone):
    refresh = {"relevance_every": 0, "examples": 200}
    promoted(settings(ranker=ranker("1"), refresh=refresh), "w1", steps)
    alone.DOWN.add("1")
    config = settings(ranker=ranker("broken"), refresh=refresh)
    record = run_cycle(config, "w2", steps=steps)
    assert record["verdict"] == "hold" and "there is no ranker to train on" in record["reason"]
    assert any("is gone" in a for a in record["alarms"])
    assert run_cycle(config, "w2", steps=steps) == record


def test_another_model_under_the_same_version_is_noticed(settings, steps, alone, platform, monkeypatch):
    config = settings(ranker=ranker("1"))
    catalogue = read_catalogue(platform / "documents.parquet")
    opener = RankerOpener(config.ranker.model_copy(), catalogue)
    from corewrite.relevance import cold_start

    made, folder = opener.build(cold_start(catalogue, seed=0)), config.run / "made"
    made.save(folder)
    assert opener.is_current(folder) and made.model_hash == opener.open("h", folder, made.about).model_hash
    real = own_ranker.words_and_picture
    monkeypatch.setattr(own_ranker, "words_and_picture", lambda version: real("broken"))
    with pytest.raises(ValueError, match="another model answers under the same name and version"):
        RankerOpener(config.ranker, catalogue).open("h", folder, made.about)
    monkeypatch.undo()
    other = settings(ranker=ranker("2"))
    opener = RankerOpener(other.ranker, catalogue)
    assert not opener.is_current(folder)
    # What the settings do not name any more runs where the artifact's metadata say.
    assert opener.open("h", folder, made.about).model_hash == made.model_hash
    with pytest.raises(RegistryError, match="nothing says where python own_ranker:words_and_picture 1 runs"):
        opener.open("h", folder, {})


def test_what_a_model_is_filled_with_must_be_there(settings, platform):
    catalogue = read_catalogue(platform / "documents.parquet")
    wrong = ranker("1", inputs={"text": "text", "frames": "document.frames"})
    with pytest.raises(ValueError, match="the documents have no column 'frames': there are "):
        RankerOpener(settings(ranker=wrong).ranker, catalogue).build(None)
    with pytest.raises((ConfigError, ValueError), match="inputs"):
        settings(ranker=ranker("1", inputs={"text": "query"}))
