"""Content hashes and the shares made of them."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from corewrite.domain import hash_share, sha256_chunks, sha256_json, sha256_text


def test_golden() -> None:
    assert sha256_text("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2
    assert sha256_chunks([b"a", b"bc"]) == sha256_text("abc")
    assert sha256_json({"b": [1, "é"], "a": None}) == hashlib.sha256('{"a":null,"b":[1,"é"]}'.encode()).hexdigest()
    digest = hashlib.sha256(b"salt\x1fuser").hexdigest()
    assert hash_share("user", "salt") == int(digest[:13], 16) / 2**52


@given(st.dictionaries(st.text(), st.integers() | st.text()))
def test_json_hash_ignores_key_order(value: dict) -> None:
    assert sha256_json(value) == sha256_json(dict(reversed(value.items())))


def test_json_hash_refuses_what_json_cannot_say() -> None:
    with pytest.raises(TypeError):
        sha256_json({1, 2})


def test_lone_surrogates_are_kept_apart() -> None:
    assert len({sha256_text(t) for t in ("\ud800", "\ud801", "?", "�")}) == 4


def test_same_in_every_process() -> None:
    code = "from corewrite.domain import hash_share; print(repr(hash_share('user', 'salt')))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(other.stdout) == hash_share("user", "salt")


def test_shares_are_uniform_and_independent_between_salts() -> None:
    a, b = (np.array([hash_share(f"user{i}", salt) for i in range(10_000)]) for salt in ("gate", "holdback"))
    for shares in (a, b):
        assert shares.min() >= 0 and shares.max() < 1
        assert stats.kstest(shares, "uniform").pvalue > 1e-3
    assert stats.chi2_contingency(np.histogram2d(a, b, bins=6)[0]).pvalue > 1e-3


def test_salt_and_key_do_not_run_together() -> None:
    assert hash_share("b", "a") != hash_share("", "ab") != hash_share("ab", "")
