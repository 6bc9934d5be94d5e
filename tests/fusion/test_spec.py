"""Specs that are taken: defaults, files, hashes, stages switched off, recommended floors."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from corewrite.fusion import SpecError, default_spec, load_spec, parse_spec, recommended_eps

TEXT = """\
rawrank:
  original: [{signal: dense, eps: 0.01}]
finerank:
  original:
    - {signal: relevance, eps: 0.001}
    - {signal: prior, eps: 0.05, exponent: 0.3}
  rewrite:
    - {signal: relevance, exponent: 0.4}
    - {signal: other, relative_to: constant, n: 0.5, exponent: 1}
"""
SPEC = parse_spec(TEXT)
DUMPED = SPEC.model_dump(mode="json")


def test_defaults() -> None:
    ratio, constant = SPEC.finerank.rewrite
    assert (ratio.relative_to, ratio.n, ratio.eps, ratio.lo, ratio.hi, ratio.exponent) == (
        "original", None, 0.03, 0.25, 4.0, 0.4,
    )  # fmt: skip
    assert (constant.relative_to, constant.n) == ("constant", 0.5)
    assert (SPEC.finerank.original[0].top, SPEC.finerank.original[0].exponent) == (1.0, 1.0)
    assert SPEC.rawrank.rewrite == ()
    assert dict(SPEC.reward.stage_weights) == {"rawrank": 0.0, "finerank": 1.0}
    assert SPEC.depths.protected >= SPEC.depths.finerank
    assert SPEC.stages == {"rawrank": SPEC.rawrank, "finerank": SPEC.finerank}


def test_default_spec_obeys_the_algebra() -> None:
    spec = default_spec()
    assert spec.recall.use_rewrite
    for stage in spec.stages.values():
        exponents = {s.signal: s.exponent for s in stage.original}
        for j in stage.rewrite:
            assert 0 < j.lo <= 1 <= j.hi
            assert j.exponent <= exponents[j.signal] / 2


def test_the_largest_allowed_values_are_taken() -> None:
    edge = parse_spec(TEXT.replace("exponent: 0.4", "lo: 1, hi: 1, exponent: 0.5"))
    assert edge.finerank.rewrite[0].exponent == 0.5
    # The constant form does not divide by the original, so nothing cancels out.
    parse_spec(TEXT.replace("signal: other", "signal: prior"))


def test_load_spec(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("\ufeff" + TEXT, "utf-8")
    assert load_spec(path) == SPEC
    path.write_bytes(b"rawrank: \xff")
    for bad in (path, tmp_path / "none.yaml", tmp_path):
        with pytest.raises(SpecError, match=r"cannot read the fusion spec"):
            load_spec(bad)


def reordered(value: object) -> object:
    """The same with the keys of every mapping the other way round."""
    if isinstance(value, dict):
        return {k: reordered(v) for k, v in reversed(value.items())}
    return [reordered(v) for v in value] if isinstance(value, list) else value


def test_hash_ignores_layout() -> None:
    spelled_out = SPEC.model_dump(mode="json")
    same = [
        "# a comment\n" + TEXT.replace("eps: 0.01}]", "eps: 1.0e-2}]  # another"),
        TEXT.replace("eps: 0.01", "eps: '0.01'"),
        yaml.safe_dump(spelled_out),
        yaml.safe_dump(reordered(spelled_out), sort_keys=False),
        TEXT + "version: 1\ndepths: {finerank: 80}\nreward: {stage_weights: {finerank: 1}}\n",
    ]
    assert {parse_spec(text).spec_hash for text in same} == {SPEC.spec_hash}


def leaves(node: object, path: tuple = ()) -> list[tuple]:
    """Paths of all values of nested mappings and lists."""
    if isinstance(node, dict | list) and node:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        return [leaf for key, value in items for leaf in leaves(value, (*path, key))]
    return [path]


def changed(path: tuple) -> list[str]:
    """Allowed specs with another value at `path`."""
    texts = []
    for change in (
        lambda v: not v,
        lambda v: v + "x",
        lambda v: v * 2,
        lambda v: v * 0.9,
        lambda v: v + 1,
        lambda v: v - 1,
    ):
        whole = SPEC.model_dump(mode="json")
        node = whole
        for key in path[:-1]:
            node = node[key]
        try:
            node[path[-1]] = change(node[path[-1]])
            parse_spec(yaml.safe_dump(whole))
        except (TypeError, SpecError):
            continue
        texts.append(yaml.safe_dump(whole))
    return texts


# These name one of few things, or nothing: no other value is allowed on its own.
FIXED = {"version", "relative_to", "rewrite"}
VALUES = [p for p in leaves(SPEC.model_dump(mode="json")) if p[-1] not in FIXED and p != ("finerank", "rewrite", 0, "n")]


@pytest.mark.parametrize("path", VALUES, ids=lambda p: ".".join(map(str, p)))
def test_hash_sees_every_value(path: tuple) -> None:
    texts = changed(path)
    assert texts
    assert SPEC.spec_hash not in {parse_spec(text).spec_hash for text in texts if yaml.safe_load(text) != DUMPED}


@pytest.mark.parametrize("names", [(), ("recall",), ("rawrank",), ("finerank",), ("recall", "finerank")])
def test_with_rewrite_stages(names: tuple[str, ...]) -> None:
    full = default_spec()
    before = full.spec_hash
    spec = full.with_rewrite_stages(names)
    assert spec.recall.use_rewrite == ("recall" in names)
    for name, stage in full.stages.items():
        assert spec.stages[name].original == stage.original
        assert spec.stages[name].rewrite == (stage.rewrite if name in names else ())
    assert (spec.depths, spec.reward) == (full.depths, full.reward)
    assert spec.spec_hash != before == full.spec_hash
    assert parse_spec(yaml.safe_dump(spec.model_dump(mode="json"))).spec_hash == spec.spec_hash


def test_with_all_rewrite_stages_is_the_same_spec() -> None:
    assert default_spec().with_rewrite_stages(("recall", "rawrank", "finerank")) == default_spec()
    with pytest.raises(ValueError, match=r"no stage \['rank'\]"):
        default_spec().with_rewrite_stages(["rank"])


def test_a_stage_switched_off_stays_off() -> None:
    off = parse_spec(TEXT + "recall: {use_rewrite: false}\n")
    assert not off.with_rewrite_stages(["recall"]).recall.use_rewrite


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_recommended_eps_is_the_75th_percentile_but_never_below_003(scores: list[float]) -> None:
    assert recommended_eps(scores) == pytest.approx(max(0.03, float(np.percentile(scores, 75))), abs=1e-12)
    assert recommended_eps(iter(scores)) == recommended_eps(scores)


@pytest.mark.parametrize("scores", [[], [0.1, float("nan")]])
def test_recommended_eps_refuses(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one score and no NaN"):
        recommended_eps(scores)
