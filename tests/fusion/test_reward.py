"""log R against its definition: what a rewrite does to pairs of D+ and D- in production's own scores."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewrite.fusion import arithmetic_log_reward, default_spec, evaluate_stage, log_reward, parse_spec

SPEC = parse_spec(
    """
rawrank:
  original: [{signal: dense, eps: 0.01}, {signal: prior, eps: 0.05, exponent: 0.3}]
  rewrite: [{signal: dense, eps: 0.05, lo: 0.5, hi: 3, exponent: 0.4}]
finerank:
  original: [{signal: relevance, eps: 0.01}, {signal: prior, eps: 0.05, exponent: 0.3}]
  rewrite:
    - {signal: relevance, eps: 0.05, lo: 0.25, hi: 4, exponent: 0.5}
    - {signal: dense, relative_to: constant, n: 0.4, eps: 0.02, lo: 0.5, hi: 1, exponent: 1}
reward: {stage_weights: {rawrank: 0.3, finerank: 0.7}, recall_weight: 2}
"""
)
SIGNALS = ("dense", "prior", "relevance")


def drawn(seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Signals of two instances under query and rewrite; three documents in D+, three in D-, one in none."""
    rng = np.random.default_rng(seed)
    own, new = ({n: rng.uniform(0, 1, (2, 7)) for n in SIGNALS} for _ in range(2))
    gains, weights = rng.uniform(0.5, 2, (2, 7)), rng.uniform(1, 10, (2, 7))
    gains[:, 3:] = 0
    weights[:, [0, 1, 2, 6]] = 0
    return own, new, gains, weights


@given(st.integers(0, 2**32 - 1))
def test_log_reward_is_the_mean_over_pairs_of_the_change_in_log_odds(seed: int) -> None:
    own, new, gains, weights = drawn(seed)
    hits = np.array([0.5, -0.25])
    fused = {name: evaluate_stage(stage, own, new) for name, stage in SPEC.stages.items()}
    plain = {name: evaluate_stage(stage, own) for name, stage in SPEC.stages.items()}
    got = log_reward(SPEC, {name: f.log_rewrite for name, f in fused.items()}, gains, weights, hits)
    for i in range(2):
        expected = 2 * hits[i]
        for name, share in SPEC.reward.stage_weights.items():
            total = mass = 0.0
            for up in np.flatnonzero(gains[i]):
                for down in np.flatnonzero(weights[i]):
                    with_rewrite = fused[name].score[i, up] / fused[name].score[i, down]
                    without = plain[name].score[i, up] / plain[name].score[i, down]
                    pair = gains[i, up] * weights[i, down]
                    total += pair * math.log(with_rewrite / without)
                    mass += pair
            expected += share * total / mass
        assert got[i] == pytest.approx(expected, abs=1e-9)


@given(st.integers(0, 2**32 - 1))
def test_the_identity_has_exactly_zero(seed: int) -> None:
    own, _, gains, weights = drawn(seed)
    factors = {name: evaluate_stage(stage, own, own).log_rewrite for name, stage in default_spec().stages.items()}
    assert log_reward(default_spec(), factors, gains, weights).tolist() == [0.0, 0.0]


def test_golden() -> None:
    # D+ weighs 3 to 1, D- 1 to 1: (3 log 2 + log 1) / 4 - (log 0.5 + log 1) / 2 = 1.25 log 2.
    factors = {"finerank": np.log([2.0, 1.0, 0.5, 1.0])}
    gains, weights = np.array([3.0, 1, 0, 0]), np.array([0, 0, 2.0, 2])
    assert log_reward(default_spec(), factors, gains, weights) == pytest.approx(1.25 * math.log(2))
    # Arithmetic means: (3 * 2 + 1) / 4 over (0.5 + 1) / 2.
    assert arithmetic_log_reward(factors["finerank"], gains, weights) == pytest.approx(math.log(1.75 / 0.75))


def test_scale_of_gains_and_weights_and_documents_in_neither_do_not_matter() -> None:
    own, new, gains, weights = drawn(3)
    factors = {name: evaluate_stage(stage, own, new).log_rewrite for name, stage in SPEC.stages.items()}
    hits = np.zeros(2)
    base = log_reward(SPEC, factors, gains, weights, hits)
    assert log_reward(SPEC, factors, 5 * gains, 0.1 * weights, hits) == pytest.approx(base)
    changed = {name: f.copy() for name, f in factors.items()}
    for f in changed.values():
        f[:, 6] += 100
    assert log_reward(SPEC, changed, gains, weights, hits) == pytest.approx(base)


def test_refusals() -> None:
    factors, some, none = {"finerank": np.zeros(2)}, np.array([1.0, 0]), np.zeros(2)
    for gains, weights in ((none, some), (some, none)):
        with pytest.raises(ValueError, match=r"D\+ and one in D-"):
            log_reward(default_spec(), factors, gains, weights)
    with pytest.raises(ValueError, match="recall_weight is above 0"):
        log_reward(SPEC, factors, some, some[::-1])
