"""What each key gets from rows that have no preference: the null of ``received``.

No source. A causal row at place p spreads one over the real keys up to p, so key k gets Σ 1/c(p) over the rows with
p ≥ k, where c(p) counts those keys: early keys get much for no reason of any model's.
"""

import torch
from torch import Tensor

from hf_attnviz.functional.pairs import ends


def uniform_received(
    *,
    valid: Tensor,
    valid_queries: Tensor | None = None,
    positions: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """The sum over the real rows of what uniform attention gives each key, `[batch, key]` in float64; 0 for padding.

    Masks as in `head_statistics`; valid `[batch, key]` must be given.

    >>> uniform_received(valid=torch.ones(1, 3, dtype=torch.bool), causal=True).tolist()
    [[1.8333333333333333, 0.8333333333333333, 0.3333333333333333]]
    """
    batch, keys = valid.shape
    queries = keys if valid_queries is None else valid_queries.shape[-1]
    masks = {"valid": valid, "valid_queries": valid_queries, "positions": positions}
    real, real_keys, stand = ends((batch, queries, keys), **masks, causal=causal, device=valid.device)
    upto = real_keys.cumsum(-1)
    at = stand.clamp_min(0) if causal else torch.full_like(stand, keys - 1)
    counts = upto[:, at]
    given = torch.where(real & (counts > 0), 1 / counts.double().clamp_min(1), 0.0)
    ended = torch.zeros(batch, keys, dtype=torch.float64, device=valid.device)
    ended = ended.index_add(1, at, given)  # what each row gives, at the last key that it may see
    return ended.flip(-1).cumsum(-1).flip(-1) * real_keys
