"""Stateless randomness: 64-bit hashes of integers, whole arrays at a time.

Everything random in the data (order, masks) is such a hash of (seed, epoch, index), so that nothing is stored
and nothing depends on the number of ranks, workers or restarts.
"""

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # splitmix64's increment
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)
_SHIFT_1, _SHIFT_2, _SHIFT_3 = np.uint64(30), np.uint64(27), np.uint64(31)
_HALF = np.uint64(32)


def mix64(values: np.ndarray) -> np.ndarray:
    """Scramble an array of uint64: splitmix64's finaliser (Steele et al. 2014), a bijection.

    values: uint64 array of at least one dimension (numpy warns of overflow in scalars), not modified.
    """
    mixed = values ^ (values >> _SHIFT_1)
    mixed *= _MULTIPLIER_1
    mixed ^= mixed >> _SHIFT_2
    mixed *= _MULTIPLIER_2
    mixed ^= mixed >> _SHIFT_3
    return mixed


def hash_of(*parts) -> np.ndarray:
    """One uint64 hash of several whole numbers, or of arrays of them element by element.

    The order of the parts counts. Returns a uint64 array of at least one dimension.
    """
    key = np.zeros(1, np.uint64)
    for part in parts:
        key = mix64(key * GOLDEN + (_as_uint64(part) + GOLDEN))
    return key


def below(hashes: np.ndarray, limit: int | np.ndarray) -> np.ndarray:
    """Map uint64 hashes to whole numbers (uint64) in [0, limit), limit < 2^32, or one of each: the upper half, scaled."""
    return ((hashes >> _HALF) * np.asarray(limit).astype(np.uint64)) >> _HALF


def uniform(hashes: np.ndarray) -> np.ndarray:
    """Map uint64 hashes to float64 in [0, 1)."""
    return (hashes >> np.uint64(11)) * 2.0**-53


def _as_uint64(part) -> np.ndarray:
    if isinstance(part, int):
        part %= 2**64
        return np.array([part], np.uint64)
    return np.atleast_1d(np.asarray(part)).astype(np.uint64)
