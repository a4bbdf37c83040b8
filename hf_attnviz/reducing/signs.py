"""Random signs that depend on a place alone: the same in every layer, batch, decoding step and process."""

import functools

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_BITS = 64
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIXING = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def signs(places: Tensor, *, size: int, seed: int, side: int) -> Tensor:
    """+1 or −1, ``[…, size]`` in float32, for each of ``places`` ``[…]``; zeros where a place is negative.

    Args:
        seed, side: whatever they are, other ones give other signs.
    """
    known = _table(1 << max(8, int(places.max()).bit_length() if places.numel() else 0), size, seed, side)
    return torch.where((places >= 0)[..., None], known[places.clamp_min(0)], 0.0)


@functools.lru_cache(maxsize=4)
def _table(places: int, size: int, seed: int, side: int) -> Tensor:
    """The signs of the first places ``[place, size]``: the bits of the numbers that splitmix64 deals (Steele, Lea &
    Flood, "Fast Splittable Pseudorandom Number Generators", 2014), each place its own."""
    words = -(-size // _BITS)
    sides = np.array([side], np.uint64)
    start = _mixed(_mixed(np.array([seed], np.int64).view(np.uint64)) + sides)  # far apart for each
    counted: npt.NDArray[np.uint64] = np.arange(places * words, dtype=np.uint64) + start
    dealt = _mixed(counted).reshape(places, words, 1)
    bits = (dealt >> np.arange(_BITS, dtype=np.uint64)) & np.uint64(1)
    found = bits.reshape(places, words * _BITS)[:, :size].astype(np.float32)
    return torch.from_numpy(found * 2 - 1)


def _mixed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    found = (numbers + np.uint64(1)) * _GOLDEN
    for shift, factor in _MIXING:
        found = (found ^ (found >> np.uint64(shift))) * np.uint64(factor)
    return found ^ (found >> np.uint64(31))
