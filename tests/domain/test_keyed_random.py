"""Keyed random numbers against the published SplitMix64, and as random numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from corewrite.domain import keyed_bits, keyed_uniform, text_key

MASK = 2**64 - 1
KEYS = st.integers(min_value=-(2**63), max_value=2**64 - 1)


def splitmix64(state: int) -> int:
    """One output of the published generator (Steele, Lea & Flood 2014) in plain integers."""
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_golden_values_of_the_published_generator() -> None:
    # The first five outputs for seed 1234567, as published with the reference implementation.
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    gamma = 0x9E3779B97F4A7C15
    assert [int(keyed_bits(1234567 + i * gamma)) for i in range(5)] == published
    assert int(keyed_bits(0)) == 0xE220A8397B1DCDAF


@given(st.lists(KEYS, min_size=1, max_size=4))
def test_keys_are_mixed_one_by_one(keys: list[int]) -> None:
    state = 0
    for key in keys:
        state = splitmix64(state ^ (key & MASK))
    assert int(keyed_bits(*keys)) == state
    assert float(keyed_uniform(*keys)) == (state >> 11) / 2**53


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=20), st.integers(0, 2**63 - 1), st.randoms())
def test_a_draw_does_not_depend_on_its_batch(keys: list[int], seed: int, random) -> None:
    alone = {k: float(keyed_uniform(seed, k, 3)) for k in keys}
    random.shuffle(keys)
    together = keyed_uniform(seed, np.array(keys), 3)
    assert together.tolist() == [alone[k] for k in keys]


def test_shapes_broadcast() -> None:
    rows, columns = np.arange(3)[:, None], np.arange(4)
    table = keyed_uniform(7, rows, columns)
    assert table.shape == (3, 4)
    assert table[2, 1] == keyed_uniform(7, 2, 1)
    assert keyed_uniform(7, 2, 1).shape == ()


@pytest.mark.parametrize("vary", [0, 1, 2])
def test_uniform_in_every_key(vary: int) -> None:
    keys: list = [5, 6, 7]
    keys[vary] = np.arange(20_000)
    draws = keyed_uniform(*keys)
    assert draws.min() >= 0 and draws.max() < 1
    assert stats.kstest(draws, "uniform").pvalue > 1e-3


def test_neighbouring_keys_are_independent() -> None:
    n = np.arange(20_000)
    base = keyed_uniform(1, n, 0)
    for other in (
        keyed_uniform(2, n, 0),
        keyed_uniform(1, n + 1, 0),
        keyed_uniform(1, n, 1),
        keyed_uniform(n, 1, 0),
    ):
        table, *_ = np.histogram2d(base, other, bins=8, range=[[0, 1], [0, 1]])
        assert stats.chi2_contingency(table).pvalue > 1e-3
        assert abs(stats.spearmanr(base, other).statistic) < 0.03


def test_order_and_number_of_keys_matter() -> None:
    draws = {int(keyed_bits(*keys)) for keys in [(), (0,), (0, 0), (1, 2), (2, 1), (1, 2, 0), (12,)]}
    assert len(draws) == 7


def test_text_key_is_fnv_1a() -> None:
    # Vectors published with the algorithm (64 bits).
    assert text_key("") == 0xCBF29CE484222325
    assert text_key("a") == 0xAF63DC4C8601EC8C
    assert text_key("foobar") == 0x85944171F73967E8
    assert text_key("\ud800") != text_key("\ud801")
