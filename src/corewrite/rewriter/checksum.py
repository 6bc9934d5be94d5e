"""A fast checksum of weights, computed where they lie: it names what a sampler holds. SHA-256 stays an artifact's identity."""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

_CHUNK = 1 << 22
_SEED = 0x5EED


def weights_checksum(state: Mapping[str, Tensor]) -> str:
    """64 bits over names, shapes, types and every byte, the same on any device; a change of one weight always changes it.

    A multilinear hash modulo 2^64 (Carter and Wegman 1979): each 4-byte word times an odd 8-byte number of its place, added up.
    Integer sums do not depend on their order, so neither does the checksum. It finds errors, not forgeries.

    Args:
        state: Weights by name, all on one device.
    """
    names = sorted(state)
    sums = [_sum(state[name].detach()) for name in names]
    total = 0
    for name, value in zip(names, torch.stack(sums).tolist() if sums else [], strict=True):
        about = f"{name}{tuple(state[name].shape)}{state[name].dtype}".encode()
        for word in (int.from_bytes(about, "big") % (2**61 - 1), value):
            total = (total * 0x9E3779B97F4A7C15 + word + 1) & (2**64 - 1)
    return f"checksum-{total:016x}"


def _sum(tensor: Tensor) -> Tensor:
    """[], int64: of the tensor's bytes as words of 4, the last one filled up with zeros."""
    flat = tensor.contiguous().reshape(-1).view(torch.uint8)
    if rest := -len(flat) % 4:
        flat = torch.nn.functional.pad(flat, (0, rest))
    words = flat.view(torch.int32)
    factors = _factors(words.device)
    total = torch.zeros((), dtype=torch.int64, device=words.device)
    for chunk in torch.split(words, _CHUNK):
        total = total * 0x5851F42D4C957F2D + (chunk * factors[: len(chunk)]).sum()
    return total


@lru_cache(maxsize=8)
def _factors(device: torch.device) -> Tensor:
    drawn = np.random.default_rng(_SEED).integers(-(2**63), 2**63, _CHUNK, dtype=np.int64) | 1
    return torch.from_numpy(drawn).to(device)
