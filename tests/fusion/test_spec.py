"""Specs that are taken: defaults, files, hashes, stages switched off, recommended floors."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from corewrite.fusion import FusionSpec, SpecError, default_spec, load_spec, parse_spec, recommended_eps

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
FIRST = parse_spec(TEXT)
SPEC = parse_spec(TEXT + "version: 2\n")


def test_defaults() -> None:
    ratio, constant = SPEC.finerank.rewrite
    assert (ratio.relative_to, ratio.n, ratio.eps, ratio.lo, ratio.hi, ratio.exponent) == (
        "original", None, 0.03, 0.25, 4.0, 0.4,
    )  # fmt: skip
    assert (constant.relative_to, constant.n) == ("constant", 0.5)
    assert (SPEC.finerank.original[0].top, SPEC.finerank.original[0].exponent) == (1.0, 1.0)
    assert SPEC.rawrank.rewrite == ()
    assert (SPEC.version, SPEC.reward.finerank_weight) == (2, 1.0)
    assert SPEC.reward.reach_weight == default_spec().reward.reach_weight > 0
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
    assert load_spec(path) == FIRST
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
    for spec, text, reward in (
        (FIRST, TEXT, "version: 1\nreward: {stage_weights: {finerank: 1}}\n"),
        (SPEC, TEXT + "version: 2\n", "reward: {finerank_weight: 1}\n"),
    ):
        spelled_out = spec.model_dump(mode="json")
        same = [
            "# a comment\n" + text.replace("eps: 0.01}]", "eps: 1.0e-2}]  # another"),
            text.replace("eps: 0.01", "eps: '0.01'"),
            yaml.safe_dump(spelled_out),
            yaml.safe_dump(reordered(spelled_out), sort_keys=False),
            text + "depths: {finerank: 80}\n" + reward,
        ]
        assert {parse_spec(one).spec_hash for one in same} == {spec.spec_hash}
    assert FIRST.spec_hash != SPEC.spec_hash


def leaves(node: object, path: tuple = ()) -> list[tuple]:
    """Paths of all values of nested mappings and lists."""
    if isinstance(node, dict | list) and node:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        return [leaf for key, value in items for leaf in leaves(value, (*path, key))]
    return [path]


def changed(spec: FusionSpec, path: tuple) -> list[str]:
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
        whole = spec.model_dump(mode="json")
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
FIXED = {"version", "relative_to", "rewrite", "zero_weight_reason"}
VALUES = [
    (spec, path)
    for spec in (FIRST, SPEC)
    for path in leaves(spec.model_dump(mode="json"))
    if path[-1] not in FIXED and path != ("finerank", "rewrite", 0, "n")
]


@pytest.mark.parametrize(("spec", "path"), VALUES, ids=lambda p: ".".join(map(str, p)) if isinstance(p, tuple) else p.version)
def test_hash_sees_every_value(spec: FusionSpec, path: tuple) -> None:
    texts = changed(spec, path)
    assert texts
    dumped = spec.model_dump(mode="json")
    assert spec.spec_hash not in {parse_spec(text).spec_hash for text in texts if yaml.safe_load(text) != dumped}


def test_the_hash_of_a_spec_of_version_1_is_the_one_it_always_had() -> None:
    # As computed by the version before there was another one.
    assert FIRST.spec_hash == "832f6bbc78f023af8d5d068e52154663a137337608f3dab9b09fdf9fc41e5abd"
    weighed = parse_spec(TEXT + "reward: {stage_weights: {rawrank: 0.3}, recall_weight: 2}")
    assert weighed.spec_hash == "2f7831717e8ea204b977ad1e79db09369eb2f278b5b49a175218bd31d352d790"
    assert (
        weighed.with_rewrite_stages(("finerank",)).spec_hash
        == "f40e2aeeab141b176d93925cb40e1c7c3a335c30ba27d80785c87e154c7dd0bd"
    )


def test_a_spec_of_version_1_rewards_finerank_alone() -> None:
    assert (FIRST.version, FIRST.reward.finerank_weight, FIRST.reward.reach_weight) == (1, 1.0, 0.0)
    assert not FIRST.rewards_reach and FIRST.reward_problem is None
    for weights in ("stage_weights: {rawrank: 0.3, finerank: 1}", "recall_weight: 0.1"):
        problem = parse_spec(TEXT + f"reward: {{{weights}}}").reward_problem
        assert problem is not None and "version: 2" in problem and "reach_weight" in problem


RECALLS, RANKS = "recall: {use_rewrite: true}\n", "recall: {use_rewrite: false}\n"


def test_a_weight_of_0_is_taken_with_a_reason_or_where_no_stage_uses_the_rewrite() -> None:
    stated = parse_spec(TEXT + "version: 2\nreward: {finerank_weight: 0, reach_weight: 0, zero_weight_reason: an ablation}")
    assert (stated.reward.finerank_weight, stated.reward.reach_weight) == (0, 0)
    assert not parse_spec(TEXT + "version: 2\nreward: {reach_weight: 0}\n" + RANKS).rewards_reach
    assert not parse_spec(TEXT + "version: 2\n" + RANKS).rewards_reach
    none_added = "recall: {rewrite_candidates: 0}\nversion: 2\nreward: {reach_weight: 0}"
    assert not parse_spec(TEXT + none_added).rewards_reach
    assert parse_spec(TEXT + "version: 2\n" + RECALLS).rewards_reach
    bare = TEXT[: TEXT.index("  rewrite:")] + "version: 2\nreward: {finerank_weight: 0}"
    assert parse_spec(bare).reward.finerank_weight == 0


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
