"""Counter-based random numbers: every draw is a pure function of its integer keys.

A draw never depends on batch, order or thread, so an interrupted run resumes to the same numbers and two arms of an
experiment see common random numbers. The mixing function is SplitMix64 (Steele, Lea & Flood, OOPSLA 2014) applied key
by key.
"""

import numpy as np
import numpy.typing as npt

UintArray = npt.NDArray[np.uint64]
FloatArray = npt.NDArray[np.float64]
Key = int | np.integer | npt.NDArray[np.integer]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def _splitmix(state: UintArray) -> UintArray:
    state = state + _GAMMA
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    return state ^ (state >> np.uint64(31))


def keyed_bits(*keys: Key) -> UintArray:
    """64 random bits for every element of the broadcast `keys` (integers, taken modulo 2**64)."""
    with np.errstate(over="ignore"):
        state = np.zeros(1, np.uint64)
        for key in keys:
            part = np.asarray(key)
            part = part.astype(np.uint64) if part.ndim else np.asarray(int(part) & (2**64 - 1), np.uint64)
            state = _splitmix(state ^ part)
    return state if any(np.ndim(key) for key in keys) else state.reshape(())


def keyed_uniform(*keys: Key) -> FloatArray:
    """Uniform numbers in [0, 1) of the broadcast shape of `keys`, one per key tuple."""
    return (keyed_bits(*keys) >> np.uint64(11)).astype(np.float64) / 2.0**53


def text_key(text: str) -> int:
    """A stable 64-bit key of `text` (FNV-1a), to feed names into `keyed_bits`."""
    state = 0xCBF29CE484222325
    for byte in text.encode("utf-8", "surrogatepass"):
        state = ((state ^ byte) * 0x100000001B3) % 2**64
    return state
