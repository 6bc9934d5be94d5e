"""The fuzzer of benchmarks/fuzz.py on a few thousand inputs, and that it finds what is broken on purpose."""

import sys
from collections import Counter
from importlib import import_module
from itertools import islice
from pathlib import Path

import pytest
import yaml

import corewrite.domain.strict_yaml
from corewrite.rewriter.text_encoder import TextEncoder
from corewrite.serving.service import Service

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import fuzz
import fuzz_targets

sys.path.pop(0)


def tried(target, n, seed=0):
    tally, kept = fuzz.Tally(), []
    for data in [*target.seeds, *islice(fuzz.inputs(target, seed), n)]:
        fuzz.one(target, data, tally, lambda kind, data, told: kept.append(told))
    return tally, kept


@pytest.fixture(scope="module")
def rewriter():
    return fuzz_targets.small_rewriter()


@pytest.fixture(scope="module")
def bodies(rewriter, made):
    config = made.config(limits={"body_bytes": 8_192}, rewriter={"max_wait_ms": 0})
    target = fuzz_targets.Bodies(config, rewriter)
    yield target
    target.close()


@pytest.fixture(scope="module")
def lines(rewriter):
    target = fuzz_targets.Lines(rewriter)
    yield target
    target.close()


@pytest.fixture(scope="module")
def specs():
    target = fuzz_targets.Specs()
    yield target
    target.close()


def test_bodies(bodies):
    tally, kept = tried(bodies, 3_000)
    assert kept == []
    assert {"taken", "refused", "over a limit", "no JSON", "app 200", "app 400", "app 422"} <= set(tally.outcomes)


def test_lines(lines):
    tally, kept = tried(lines, 6_000)
    assert kept == []
    assert {"answer", "garbage", "no answer", "greeting", "no greeting", "rewrite", "no rewrite"} == set(tally.outcomes)


def test_specs(specs):
    tally, kept = tried(specs, 400)
    assert kept == []
    assert {"spec", "refused", "not UTF-8"} == set(tally.outcomes)


def found(target, n, what):
    _, kept = tried(target, n)
    assert any(what in told for told in kept), kept[:1]


def test_a_500_is_found(bodies, monkeypatch):
    search = Service.search

    async def fragile(self, query, **options):
        if len(query.text) > 60:
            raise KeyError("planted")
        return await search(self, query, **options)

    monkeypatch.setattr(Service, "search", fragile)
    monkeypatch.setattr(bodies, "deep", 1)
    found(bodies, 600, "KeyError: 'planted'")


def test_a_text_that_becomes_a_part_of_the_prompt_is_found(bodies, monkeypatch):
    def trusting(self, text, before=None):
        return tuple(self._tokenizer.encode(" ".join(text.split()), add_special_tokens=False))

    monkeypatch.setattr(TextEncoder, "encode", trusting)
    found(bodies, 2_000, "changed the prompt's structure")


def test_a_cache_key_that_two_prompts_share_is_found(bodies, monkeypatch):
    canonical = fuzz_targets.canonical
    monkeypatch.setattr(
        fuzz_targets, "canonical", lambda query, config: type(query)(canonical(query, config).text.lower(), query.context)
    )
    found(bodies, 500, "two prompts under one cache key")


def test_a_cleaning_that_lets_directions_through_is_found(lines, monkeypatch):
    cleaning = import_module("corewrite.rewriter.clean")  # by its path the function of the same name is found
    category = cleaning.unicodedata.category

    class Lenient:
        @staticmethod
        def category(c):
            return "Ll" if c == "\u202e" else category(c)

    monkeypatch.setattr(cleaning, "unicodedata", Lenient)
    found(lines, 2_000, "not clean")


def test_a_server_that_trusts_the_process_is_found(lines, monkeypatch):
    monkeypatch.setattr(fuzz_targets, "sound", lambda value: tuple(value) if isinstance(value, list) else None)
    found(lines, 500, "BrokenError")


def test_a_loader_that_lets_the_yaml_library_speak_is_found(specs, monkeypatch):
    monkeypatch.setattr(corewrite.domain.strict_yaml, "composed", yaml.SafeLoader.get_single_node)
    found(specs, 400, "arg not in range(0x110000)")


def test_an_error_without_its_place_is_found(specs, monkeypatch):
    monkeypatch.setattr(corewrite.domain.strict_yaml, "find_line", lambda node, location: 10_000)
    found(specs, 30, "an error without file and line")


def test_what_takes_too_long_is_found(specs, monkeypatch):
    monkeypatch.setattr(specs, "cpu_seconds", 1e-9)
    found(specs, 1, "TimeoutError")


def test_inputs_are_the_same_again_and_the_tally_goes_on(specs, tmp_path):
    first = list(islice(fuzz.inputs(specs, 3), 50))
    assert first[20:] == list(islice(fuzz.inputs(specs, 3, 20), 30))
    assert len(set(first)) > 40 and first != list(islice(fuzz.inputs(specs, 4), 50))
    tally = fuzz.Tally(Counter(spec=3), Counter({"KeyError a.py:1": 2}), 1.5)
    tally.write(tmp_path / "t.json", guided=False)
    assert fuzz.Tally.read(tmp_path / "t.json") == tally and tally.inputs == 5
