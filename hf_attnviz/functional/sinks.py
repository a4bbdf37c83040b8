"""How much attention is parked on one key, mostly the first.

Source: Gu et al., "When Attention Sink Emerges in Language Models: An Empirical View" (2025), section 3.2:
α_k = mean over queries i ≥ k of A[i, k], and the share of heads with α_k > ε, ε = 0.3.
"""

import torch
from torch import Tensor

from hf_attnviz.errors import ArgumentError
from hf_attnviz.functional.checks import check_axes, check_share, upcast
from hf_attnviz.functional.pairs import allowed_pairs
from hf_attnviz.language import Text


def sink_mass(
    attention: Tensor,
    *,
    position: int = 0,
    valid: Tensor | None = None,
    valid_queries: Tensor | None = None,
    positions: Tensor | None = None,
    first_row: bool = True,
) -> Tensor:
    """α of each head of `attention` `[layer, batch, head, query, key]`: `[layer, batch, head]`, a share.

    position: which of the real keys, counted from 0, so 0 is the first token also behind padding. Rows that stand
    before it do not count; rows that stand nowhere (cross-attention) all count. Masks and positions as in
    `head_statistics`. first_row=False leaves out the first row that counts, which in a causal map can look nowhere
    else when position is 0: report both.

    NaN: the example has no such key, or no row that counts.

    >>> sink_mass(torch.eye(4).view(1, 1, 1, 4, 4)), sink_mass(torch.eye(4).view(1, 1, 1, 4, 4), first_row=False)
    (tensor([[[0.2500]]]), tensor([[[0.]]]))
    """
    check_axes(attention)
    _, batch, _, queries, keys = attention.shape
    if position < 0:
        raise ArgumentError(
            Text(
                f"expected position from 0, got {position}; count real keys from the first",
                f"position 应不小于 0，得到 {position}；从第一个真实的键数起",
            )
        )
    pairs = allowed_pairs(
        (batch, queries, keys),
        valid=valid,
        valid_queries=valid_queries,
        positions=positions,
        device=attention.device,
    )
    is_sink = pairs.keys & (pairs.keys.cumsum(-1) == position + 1)
    sink = is_sink.int().argmax(-1)
    after = (pairs.positions >= sink[:, None]) | (pairs.positions < 0)
    counted = pairs.rows & after & is_sink.any(-1, keepdim=True)
    if not first_row:
        counted &= counted.cumsum(-1) > 1
    weights = upcast(attention.gather(-1, sink[:, None, None, None].expand(*attention.shape[:-1], 1)).squeeze(-1))
    return weights.masked_fill(~counted[:, None], 0).sum(-1) / counted.sum(-1)[:, None]


def sink_fraction(
    attention: Tensor,
    *,
    position: int = 0,
    valid: Tensor | None = None,
    valid_queries: Tensor | None = None,
    positions: Tensor | None = None,
    first_row: bool = True,
    threshold: float = 0.3,
) -> Tensor:
    """The share of all heads with `sink_mass` above `threshold` (ε), one number an example: `[batch]`.

    The other arguments are those of `sink_mass`. NaN: some head of the example has no sink mass.
    """
    check_share(threshold, "threshold")
    mass = sink_mass(
        attention,
        position=position,
        valid=valid,
        valid_queries=valid_queries,
        positions=positions,
        first_row=first_row,
    )
    return (mass > threshold).to(mass.dtype).masked_fill(mass.isnan(), torch.nan).mean((0, 2))
