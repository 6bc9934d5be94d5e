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
version: 2
reward: {finerank_weight: 0.7, reach_weight: 2}
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
def test_log_reward_is_the_mean_over_pairs_of_the_change_in_log_odds_and_the_share_gained(seed: int) -> None:
    own, new, gains, weights = drawn(seed)
    reached = np.random.default_rng(seed + 1).integers(0, 2, (2, 7)).astype(float)
    fused, plain = evaluate_stage(SPEC.finerank, own, new), evaluate_stage(SPEC.finerank, own)
    got = log_reward(SPEC, fused.log_rewrite, gains, weights, reached)
    for i in range(2):
        ups, downs = np.flatnonzero(gains[i]), np.flatnonzero(weights[i])
        total = mass = 0.0
        for up in ups:
            for down in downs:
                with_rewrite = fused.score[i, up] / fused.score[i, down]
                without = plain.score[i, up] / plain.score[i, down]
                pair = gains[i, up] * weights[i, down]
                total += pair * math.log(with_rewrite / without)
                mass += pair
        gained = sum(gains[i, up] for up in ups if reached[i, up]) / sum(gains[i, up] for up in ups)
        assert got[i] == pytest.approx(0.7 * total / mass + 2 * gained, abs=1e-9)


@given(st.integers(0, 2**32 - 1))
def test_the_identity_has_exactly_zero(seed: int) -> None:
    own, _, gains, weights = drawn(seed)
    factors = evaluate_stage(default_spec().finerank, own, own).log_rewrite
    assert log_reward(default_spec(), factors, gains, weights, np.zeros(gains.shape)).tolist() == [0.0, 0.0]


def test_a_stage_without_rewrite_counts_nothing() -> None:
    _, _, gains, weights = drawn(1)
    assert log_reward(SPEC, None, gains, weights, None).tolist() == [0.0, 0.0]
    reached = np.where(gains > 0, 1.0, np.nan)  # off D+ nothing needs to be known
    assert log_reward(SPEC, None, gains, weights, reached) == pytest.approx([2.0, 2.0])
    unknown = np.where(np.arange(7) == 1, np.nan, 0.0) + np.zeros((2, 1))
    assert np.isnan(log_reward(SPEC, None, gains, weights, unknown)).all()


def test_golden() -> None:
    # D+ weighs 3 to 1, D- 1 to 1: (3 log 2 + log 1) / 4 - (log 0.5 + log 1) / 2 = 1.25 log 2.
    factors = np.log([2.0, 1.0, 0.5, 1.0])
    gains, weights = np.array([3.0, 1, 0, 0]), np.array([0, 0, 2.0, 2])
    assert log_reward(default_spec(), factors, gains, weights) == pytest.approx(1.25 * math.log(2))
    # The rewrite brings in the document of D+ that weighs 3 of 4.
    reached = np.array([1.0, 0, 1, 0])
    expected = 0.7 * 1.25 * math.log(2) + 2 * 0.75
    assert log_reward(SPEC, factors, gains, weights, reached) == pytest.approx(expected)
    # Arithmetic means: (3 * 2 + 1) / 4 over (0.5 + 1) / 2.
    assert arithmetic_log_reward(factors, gains, weights) == pytest.approx(math.log(1.75 / 0.75))


def test_scale_of_gains_and_weights_and_documents_in_neither_do_not_matter() -> None:
    own, new, gains, weights = drawn(3)
    factors = evaluate_stage(SPEC.finerank, own, new).log_rewrite
    reached = np.random.default_rng(3).integers(0, 2, gains.shape).astype(float)
    base = log_reward(SPEC, factors, gains, weights, reached)
    assert log_reward(SPEC, factors, 5 * gains, 0.1 * weights, reached) == pytest.approx(base)
    changed, others = factors.copy(), reached.copy()
    changed[:, 6] += 100
    others[:, 6] = 1 - others[:, 6]
    assert log_reward(SPEC, changed, gains, weights, others) == pytest.approx(base)


def test_refusals() -> None:
    factors, some, none = np.zeros(2), np.array([1.0, 0]), np.zeros(2)
    for gains, weights in ((none, some), (some, none)):
        with pytest.raises(ValueError, match=r"D\+ and one in D-"):
            log_reward(default_spec(), factors, gains, weights)
