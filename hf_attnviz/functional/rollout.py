"""How much of each input token is mixed into each position after each layer, if attention were all that mixes.

Source: Abnar & Zuidema, "Quantifying Attention Flow in Transformers" (2020), section 3, equation 1. Steps: fuse the
heads of a layer into F; take the residual stream into account, Â = (1−r)·F + r·I; multiply, later layers on the left.
Dropping the smallest weights, and fusing by maximum or minimum, are Gildenblat's additions for vision transformers.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from hf_attnviz.errors import ArgumentError
from hf_attnviz.functional.checks import check_axes, check_mask, check_name, check_share, check_square, upcast
from hf_attnviz.functional.pairs import allowed_pairs

FUSIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda maps: maps.mean(-3),
    "max": lambda maps: maps.amax(-3),
    "min": lambda maps: maps.amin(-3),
}
NORMALISATIONS = ("after", "before")


def rollout(
    attention: Tensor,
    *,
    residual: float = 0.5,
    head_fusion: str = "mean",
    normalise: str = "after",
    discard: float = 0.0,
    start_layer: int = 0,
    valid: Tensor | None = None,
) -> Tensor:
    """Roll `attention` `[layer, batch, head, query, key]` out into `[layer - start_layer, batch, query, key]`.

    Entry `[l, b, i, j]` is the share of input token j in position i after layer `start_layer + l`; rows sum to one.
    What enters layer `start_layer` counts as input, so the first map returned is that layer's own Â.

    residual: the share r of the residual stream. head_fusion: "mean", "max" or "min" over heads.
    normalise: "after" divides the rows of (1−r)·F + r·I by their sums, "before" those of F alone; the two differ when
    the rows of F do not sum to one (fused by "max" or "min", or something discarded). A row without any weight stays
    zero.
    discard: with T tokens, the int(T²·discard) smallest entries of each fused map become zero; ties go in reading
    order, structural zeros count, and entry (0, 0), if it is among them, keeps its weight.
    valid: Bool `[batch, position]`; each example is rolled out over its real tokens alone. NaN marks padding.

    Raises ShapeError unless maps are square, UnknownNameError for a fusion or normalisation it does not know.

    >>> rollout(torch.full((2, 1, 1, 2, 2), 0.5))[:, 0, 0]
    tensor([[0.7500, 0.2500],
            [0.6250, 0.3750]])
    """
    check_axes(attention)
    check_square(attention, "rollout")
    check_name(head_fusion, "head_fusion", FUSIONS)
    check_name(normalise, "normalise", NORMALISATIONS)
    check_share(residual, "residual")
    check_share(discard, "discard")
    layers, batch, _, tokens, _ = attention.shape
    if not 0 <= start_layer < layers:
        raise ArgumentError(f"expected start_layer from 0 to {layers - 1}, got {start_layer}; count layers from 0")
    real = check_mask(valid, "valid", batch, tokens, attention.device)
    examples = []
    for example in range(batch):
        kept = real[example].nonzero().squeeze(-1)
        block = upcast(attention[start_layer:, example][..., kept[:, None], kept])
        mixing = _mixing(_discarded(FUSIONS[head_fusion](block), discard), residual, normalise)
        rolled = mixing.new_full((layers - start_layer, tokens, tokens), torch.nan)
        rolled[:, kept[:, None], kept] = _product(mixing)
        examples.append(rolled)
    return torch.stack(examples, dim=1)


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


def _discarded(fused: Tensor, share: float) -> Tensor:
    """`fused` `[layer, query, key]` without its smallest entries."""
    flat = fused.flatten(-2)
    smallest = flat.argsort(dim=-1, stable=True)[:, : int(flat.shape[-1] * share)]
    thinned = flat.scatter(-1, smallest, 0)
    thinned[:, :1] = flat[:, :1]
    return thinned.view_as(fused)


def _mixing(fused: Tensor, residual: float, normalise: str) -> Tensor:
    """Â of every layer: the fused map and the residual stream, rows normalised."""
    identity = torch.eye(fused.shape[-1], dtype=fused.dtype, device=fused.device)
    if normalise == "before":
        return (1 - residual) * _row_normalised(fused) + residual * identity
    return _row_normalised((1 - residual) * fused + residual * identity)


def _row_normalised(maps: Tensor) -> Tensor:
    sums = maps.sum(-1, keepdim=True)
    return maps / torch.where(sums == 0, 1, sums)


def _product(mixing: Tensor) -> Tensor:
    """R₀ = Â₀, R_l = Â_l R_{l−1}, all of them."""
    rolled = [mixing[0]]
    for layer in mixing[1:]:
        rolled.append(layer @ rolled[-1])
    return torch.stack(rolled)
