"""How alike two heads weigh the same pairs: one definition of each coefficient, for all heads at once.

Sources: Pearson (1895); Spearman, "The Proof and Measurement of Association between Two Things" (1904), ties sharing
their average rank. Heads come flattened, `[head, pair]`; each coefficient is one matrix product, `[head, other_head]`.
A head that does not vary has no correlation with anything, not even itself: NaN, never 0.
"""

from collections.abc import Callable

import torch
from torch import Tensor

PAIRS_AT_ONCE = 2**16  # bounds the copy in float64


def products(heads: Tensor, *, first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> Tensor:
    """Σ over pairs of first(heads) × second(heads), `[head, pair]` → `[head, other_head]`, in float64: over the million
    pairs of a long text float32 loses the fourth digit, and all of what sets heads apart that are nearly alike."""
    found = heads.new_zeros(len(heads), len(heads), dtype=torch.float64)
    for part in torch.split(heads, PAIRS_AT_ONCE, -1):
        found += first(part.double()) @ second(part.double()).T
    return found


def pearson(heads: Tensor, rounding: Tensor) -> Tensor:
    """Pearson's r, in [−1, 1]. `rounding` `[head]`: how far a constant head may stray from its mean."""
    centred = heads - heads.mean(-1, keepdim=True)
    return _cosines(centred, _varies(centred, rounding))


def spearman(heads: Tensor, rounding: Tensor) -> Tensor:
    """Spearman's ρ, in [−1, 1]: Pearson's r of the average ranks. `rounding` as for Pearson's r."""
    centred = heads - heads.mean(-1, keepdim=True)
    ranks = torch.stack([average_ranks(head) for head in heads])
    return _cosines(ranks - (heads.shape[-1] + 1) / 2, _varies(centred, rounding))


def cosine(heads: Tensor, rounding: Tensor) -> Tensor:
    """Cosine of the angle between heads, in [−1, 1]; NaN for a head that is zero within `rounding` `[head]`."""
    return _cosines(heads, _varies(heads, rounding))


def average_ranks(values: Tensor) -> Tensor:
    """Ranks from 1 of `values` `[pair]`, equal values sharing the mean of the ranks they fill.

    >>> average_ranks(torch.tensor([0.3, 0.1, 0.3, 0.9]))
    tensor([2.5000, 1.0000, 2.5000, 4.0000])
    """
    _, group, sizes = torch.unique(values, return_inverse=True, return_counts=True)
    last = sizes.cumsum(0).to(values.dtype)
    ranks: Tensor = (last - (sizes - 1) / 2)[group]
    return ranks


def _varies(heads: Tensor, rounding: Tensor) -> Tensor:
    """Whether a head leaves zero by more than rounding, `[head]`; False where it holds NaN or nothing."""
    return heads.abs().amax(-1) > rounding if heads.shape[-1] else torch.zeros_like(rounding, dtype=torch.bool)


def _cosines(heads: Tensor, defined: Tensor) -> Tensor:
    product = products(heads, first=torch.positive, second=torch.positive)
    norms = product.diagonal().sqrt().masked_fill(~defined, 1)
    scaled = product / norms / norms[:, None]
    cosines = ((scaled + scaled.T) / 2).clamp(-1, 1).to(heads.dtype)
    return cosines.fill_diagonal_(1).masked_fill(~(defined[:, None] & defined), torch.nan)
