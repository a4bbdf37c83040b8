"""How much of each key is in each query's vector: by how much nearer to the whole a part brings us.

Source: Ferrando et al., "Measuring the Mixing of Contextual Information in the Transformer" (2022), equations 9 to 11;
for blocks that norm before they attend, and for cross-attention, the same authors' papers of 2022 and 2023. Steps:
T_i(x_j) is what key j adds to query i, its own residual with its own key, behind the norm if the block has one there;
c_ij = max(0, ‖y_i‖₁ − ‖y_i − T_i(x_j)‖₁) with y_i the whole; rows are divided by their sums. Layers are multiplied,
and no identity is added: the residual is in T already.
"""

import torch
from torch import Tensor

from hf_attnviz.decomposition import Decomposition
from hf_attnviz.functional.checks import upcast
from hf_attnviz.functional.parts import LayerNorm, decomposed, own_parts, projected, rows_of
from hf_attnviz.functional.rollout import product
from hf_attnviz.functional.value_norms import stages


def alti(
    attention: Tensor,
    hidden: Tensor,
    w_v: Tensor,
    b_v: Tensor | None,
    w_o: Tensor,
    *,
    b_o: Tensor | None = None,
    residual: Tensor | None = None,
    layer_norm: LayerNorm | None = None,
    rms: bool = False,
    positions: Tensor | None = None,
) -> Tensor:
    """The contributions of one layer, `[batch, query, key]`, rows summing to one. Arguments: `value_norms`.

    A query that stands on no key (cross-attention) has its residual as one more contributor: what its row lacks to
    one is the residual's share. A row in which nothing contributes is NaN.

    >>> one = torch.eye(2)[None]
    >>> attention = torch.tensor([[[[0.5, 0.5], [1.0, 0.0]]]])
    >>> alti(attention, one, one[0], None, one[0], residual=one)[0]
    tensor([[0.7500, 0.2500],
            [0.5000, 0.5000]])
    """
    parts = decomposed(attention, hidden, w_v, b_v, w_o, b_o, residual, layer_norm, rms)
    each = [contributions_of(weights, one, positions=positions) for weights, one in zip(attention, parts, strict=True)]
    return torch.stack(each)


def contributions_of(attention: Tensor, parts: Decomposition, *, positions: Tensor | None = None) -> Tensor:
    """`alti` for one example whose parts are at hand: attention `[head, query, key]` to `[query, key]`."""
    dtype = upcast(attention).dtype
    weights, parts = upcast(attention), parts.to(dtype)
    rows = rows_of(positions, attention.shape[1], attention.shape[2], attention.device)
    stage, whole = stages(parts)[-1], parts.output(weights)
    found = weights.new_empty(weights.shape[1:])
    for block, vectors in projected(weights, parts):
        moved = torch.bmm(weights[..., block].permute(2, 1, 0), stage.direction(vectors))  # [key, query, width]
        for norm in stage.norms:
            moved /= norm.scale[:, None]
        found[:, block] = _nearer(whole, moved).T
    own, on_key = stage.part(own_parts(weights, parts, rows), own=True), rows >= 0
    nearer = _nearer(whole, own)
    found = found.index_put((on_key.nonzero()[:, 0], rows[on_key]), nearer[on_key])
    apart = torch.zeros_like(nearer) if stage.residual is None else nearer.masked_fill(on_key, 0)
    return found / (found.sum(-1) + apart)[:, None]  # 0 / 0 is NaN, as it should be


def alti_rollout(contributions: Tensor) -> Tensor:
    """Decomposition followed down to the input: `[layer, batch, query, key]` to the same, R₀ = C₀, R_l = C_l·R_{l−1}.

    A row that is NaN makes NaN of the rows that take something of it, and of no others.

    >>> first, second = torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> alti_rollout(torch.stack([first, second])[:, None])[1, 0]
    tensor([[1.0000, 0.0000],
            [0.5000, 0.5000]])
    """
    return product(upcast(contributions))


def _nearer(whole: Tensor, parts: Tensor) -> Tensor:
    """max(0, ‖y‖₁ − ‖y − T‖₁) for parts `[..., query, width]` of the whole `[query, width]`."""
    return (whole.abs().sum(-1) - (whole - parts).abs().sum(-1)).clamp(min=0)
