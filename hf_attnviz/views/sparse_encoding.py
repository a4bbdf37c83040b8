"""A whole head in few bytes, with a bound on every weight: what stands out is stored, the rest is a mean.

Of each row the keys from its first weight that is not 0 to its last are its span; beyond, weights are 0. Inside it a
weight is stored in one byte (the rounded square root) where the mean of the weights not stored, over a stretch of
:data:`STRETCH` keys of that row, would be further off than the bound; else that mean stands for it. So a uniform row
stays uniform, and rows still sum to about one. A head's bytes, in this order:

    starts, stops   2 × query   uint16, each row's span, differences down the rows; a row of NaN starts at NO_ROW
    means           stretch × query   uint8
    stored          key × query   one bit a weight, key by key
    codes           one uint8 for each weight that is stored, in the same order
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from hf_attnviz.views.encoding import masked_codes, root_codes

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

STRETCH: Final = 64
NO_ROW: Final = 65_535
BLOCKS: Final = 64  # of a thumbnail, at most, along each side
_ROUNDING: Final = 1e-6  # of float32, so that the bound holds in every arithmetic


def sparse_head(weights: Floats, bound: float) -> bytes:
    """One head ``[query, key]``, every weight within ``bound`` or, where it is stored, within half a byte's step.

    A bound of 0 stores every weight.
    """
    undefined = np.asarray(np.isnan(weights).any(axis=1, keepdims=True))
    known = np.where(undefined, np.float32(0), weights)
    starts, stops = _spans(known)
    places = np.arange(weights.shape[1], dtype=np.uint16)
    inside = (places >= starts[:, None]) & (places < stops[:, None])
    means, stored = _split(known, inside, max(bound - _ROUNDING, 0.0))
    starts[undefined[:, 0]] = NO_ROW
    by_key = np.ascontiguousarray(stored.T)
    codes = root_codes(known).T[by_key]
    spans = np.diff(np.stack([starts, stops]), prepend=np.uint16(0), axis=1)  # modulo 65,536
    return b"".join(one.tobytes() for one in (spans.astype("<u2"), means.T, np.packbits(by_key), codes))


def exact_head(weights: Floats) -> bytes:
    """One head ``[query, key]`` as 16-bit floats, key by key: all high bytes, then all low ones (they pack better)."""
    halves = np.ascontiguousarray(weights.T.astype("<f2")).view(np.uint8).reshape(-1, 2)
    return halves[:, 1].tobytes() + halves[:, 0].tobytes()


def thumbnail(weights: Floats) -> Bytes:
    """One head ``[query, key]`` made coarse, at most :data:`BLOCKS` along each side.

    A number is the share of a row's weight that goes to a block of keys, mean over the defined rows of a block of rows,
    so that rows still sum to what they summed to; its code is that of :func:`masked_codes`, undefined without a row.
    """
    rows, keys = (np.arange(0, size, block_size(size)) for size in weights.shape)
    undefined = np.isnan(weights).any(axis=1, keepdims=True)
    known = np.where(undefined, np.float32(0), weights)
    shares = np.add.reduceat(np.add.reduceat(known, keys, axis=1), rows, axis=0)
    counts = np.add.reduceat((~undefined).astype(np.int64), rows)
    return masked_codes(np.where(counts > 0, shares / np.maximum(counts, 1), np.nan))


def block_size(size: int) -> int:
    """How many rows, or keys, one cell of a thumbnail stands for."""
    return -(-size // BLOCKS)


def _spans(weights: Floats) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
    """Where the weights of each row that are not 0 begin, and one behind where they end."""
    there = weights != 0
    starts, behind = there.argmax(1), weights.shape[1] - there[:, ::-1].argmax(1)
    some = there[np.arange(len(there)), starts]
    return np.where(some, starts, 0).astype(np.uint16), np.where(some, behind, 0).astype(np.uint16)


def _split(weights: Floats, inside: npt.NDArray[np.bool_], bound: float) -> tuple[Bytes, npt.NDArray[np.bool_]]:
    """The means of each row's stretches ``[query, stretch]``, and which weights they do not stand for."""
    count = weights.shape[1]
    room = ((0, 0), (0, -count % STRETCH))
    stored = weights > 2 * bound
    for _ in range(2):  # means depend on what is stored, and what is stored on them; the bound holds after any turn
        rest = np.pad(inside & ~stored, room).reshape(len(weights), -1, STRETCH)
        numbers = np.pad(weights, room).reshape(rest.shape)
        sums = np.einsum("qsk,qsk->qs", numbers, rest, dtype=np.float32)
        means = root_codes(sums / np.maximum(np.count_nonzero(rest, axis=2), 1))
        shown = np.repeat((means / np.float32(255)) ** 2, STRETCH, axis=1)[:, :count]
        stored = inside & (np.abs(weights - shown) > bound)
    return means, stored
