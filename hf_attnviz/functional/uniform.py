"""The head without preferences: what every score is to be held against.

No source; it is the null of every statistic: a row even over the keys that it may see. `uniform_attention` is told the
mask, `uniform_like` reads it off attention as it ran (causal, a sliding window, blocks, whatever the model does).
"""

import torch
from torch import Tensor

from hf_attnviz.functional.checks import check_axes, check_mask, upcast
from hf_attnviz.functional.pairs import allowed_pairs


def uniform_like(attention: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Uniform attention under the mask of `attention` `[layer, batch, head, query, key]`: the same shape, one head.

    A row may see the keys to which at least one head of its layer gives weight; so a key that every head of a layer
    happens to give exactly nothing counts as masked. A row without any weight stays zero. valid: Bool `[batch, key]`,
    the real keys; weight on others is no weight.

    >>> window = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.0, 0.2, 0.8]]).view(1, 1, 1, 3, 3)
    >>> uniform_like(window)[0, 0, 0]
    tensor([[1.0000, 0.0000, 0.0000],
            [0.5000, 0.5000, 0.0000],
            [0.0000, 0.5000, 0.5000]])
    """
    check_axes(attention)
    _, batch, _, _, keys = attention.shape
    real = check_mask(valid, "valid", batch, keys, attention.device)
    seen = torch.stack([(layer != 0).any(1, keepdim=True) for layer in attention]) & real[:, None, None, :]
    even = seen.to(upcast(attention[:0]).dtype)
    return even / even.sum(-1, keepdim=True).clamp_min(1)


def uniform_attention(
    queries: int,
    keys: int,
    *,
    causal: bool = False,
    valid: Tensor | None = None,
    valid_queries: Tensor | None = None,
    positions: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The attention of a head that has no preference: each row even over the keys it may see, `[batch, query, key]`.

    What any statistic gives on it is that statistic's baseline. Rolled out under a causal mask it drifts to the first
    token with depth, for no reason of any model's: draw it beside every rollout. Masks as in `head_statistics`; batch
    is 1 without them. NaN fills rows that may see nothing.

    >>> from hf_attnviz.functional import rollout
    >>> uniform = uniform_attention(32, 32, causal=True)
    >>> depths = rollout(uniform.expand(24, 1, 1, 32, 32))[:, 0, -1, 0]
    >>> [round(float(depths[depth - 1]), 3) for depth in (1, 6, 12, 24)]
    [0.016, 0.301, 0.714, 0.98]
    """
    given = valid if valid is not None else valid_queries
    batch, device = (1, None) if given is None else (given.shape[0], given.device)
    pairs = allowed_pairs(
        (batch, queries, keys),
        valid=valid,
        valid_queries=valid_queries,
        positions=positions,
        causal=causal,
        device=device,
    )
    allowed = pairs.allowed.to(dtype)
    return allowed / allowed.sum(-1, keepdim=True)
