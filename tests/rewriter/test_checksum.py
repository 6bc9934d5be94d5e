"""The checksum of weights: sums of words by arbitrary-precision integers, and what changes it."""

import numpy as np
import pytest
import torch

from corewrite.rewriter import checksum, weights_checksum


def by_hand(state):
    """The same sums in Python's integers."""
    factors = checksum._factors(torch.device("cpu")).tolist()
    total = 0
    for name in sorted(state):
        raw = state[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        words = np.frombuffer(raw + b"\0" * (-len(raw) % 4), np.int32).tolist()
        value = 0
        for start in range(0, len(words), checksum._CHUNK):
            part = words[start : start + checksum._CHUNK]
            value = value * 0x5851F42D4C957F2D + sum(w * f for w, f in zip(part, factors, strict=False))
        value = (value + 2**63) % 2**64 - 2**63  # as a signed word
        about = f"{name}{tuple(state[name].shape)}{state[name].dtype}".encode()
        for word in (int.from_bytes(about, "big") % (2**61 - 1), value):
            total = (total * 0x9E3779B97F4A7C15 + word + 1) % 2**64
    return f"checksum-{total:016x}"


def state_of(seed=0):
    draw = torch.Generator().manual_seed(seed)
    return {
        "a": torch.randn(7, 5, generator=draw), "b": torch.randn(3, generator=draw).bfloat16(), "c": torch.tensor(2.5),
        "empty": torch.zeros(0), "t": torch.randn(4, 6, generator=draw).t(),
    }  # fmt: skip


@pytest.mark.parametrize("chunk", [2, 3, 1 << 22])
def test_it_is_the_sum_of_words_times_their_factors(chunk, monkeypatch):
    monkeypatch.setattr(checksum, "_CHUNK", chunk)
    checksum._factors.cache_clear()
    assert weights_checksum(state_of()) == by_hand(state_of())
    checksum._factors.cache_clear()


def test_every_single_bit_and_every_swap_changes_it():
    before = weights_checksum(state_of())
    seen = {before}
    for name, tensor in state_of().items():
        for bit in range(8 * tensor.numel() * tensor.element_size()):
            state = state_of()
            raw = state[name].contiguous().reshape(-1).view(torch.uint8)
            raw[bit // 8] ^= 1 << (bit % 8)
            state[name] = raw.view(tensor.dtype).view(tensor.shape)
            seen.add(weights_checksum(state))
    assert len(seen) == 1 + sum(8 * t.numel() * t.element_size() for t in state_of().values())
    swapped = state_of()
    swapped["a"] = swapped["a"][[1, 0, *range(2, 7)]]
    assert weights_checksum(swapped) not in seen


def test_names_shapes_and_types_belong_to_it():
    one = {"a": torch.zeros(4)}
    others = [{"b": torch.zeros(4)}, {"a": torch.zeros(2, 2)}, {"a": torch.zeros(4).int()}, {"a": torch.zeros(5)}, {}]
    assert len({weights_checksum(x) for x in [one, *others]}) == 6
    assert weights_checksum(one) == weights_checksum({"a": torch.zeros(4)})
