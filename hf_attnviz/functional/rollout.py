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
from hf_attnviz.language import Text

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
    the rows of F do not sum to one (fused by "max" or "min", or something discarded). A row of F without any weight
    leaves the residual alone, which is then the whole; with residual=0 nothing is left and the row is NaN.
    discard: with T tokens, the int(T²·discard) smallest entries of each fused map become zero; ties go in reading
    order, structural zeros count, and entry (0, 0), if it is among them, keeps its weight.
    valid: Bool `[batch, position]`; each example is rolled out over its real tokens alone.

    NaN: padding; a row whose weights are NaN, infinite or (see above) all gone, and those that take something of it.

    Raises ShapeError unless maps are square, UnknownNameError for a fusion or normalisation it does not know.

    >>> rollout(torch.full((2, 1, 1, 2, 2), 0.5))[:, 0, 0]
    tensor([[0.7500, 0.2500],
            [0.6250, 0.3750]])
    """
    check_axes(attention)
    check_square(attention, Text("rollout", "注意力 Rollout "))
    check_name(head_fusion, "head_fusion", FUSIONS)
    check_name(normalise, "normalise", NORMALISATIONS)
    check_share(residual, "residual")
    check_share(discard, "discard")
    layers, batch, _, tokens, _ = attention.shape
    if not 0 <= start_layer < layers:
        raise ArgumentError(
            Text(
                f"expected start_layer from 0 to {layers - 1}, got {start_layer}; count layers from 0",
                f"start_layer 应为 0 到 {layers - 1}，得到 {start_layer}；层从 0 数起",
            )
        )
    real = check_mask(valid, "valid", batch, tokens, attention.device)
    examples = []
    for example in range(batch):
        kept = real[example].nonzero().squeeze(-1)
        block = upcast(attention[start_layer:, example][..., kept[:, None], kept])
        mixing = _mixing(_discarded(FUSIONS[head_fusion](block), discard), residual, normalise)
        rolled = mixing.new_full((layers - start_layer, tokens, tokens), torch.nan)
        rolled[:, kept[:, None], kept] = product(mixing)
        examples.append(rolled)
    return torch.stack(examples, dim=1)


def uniform_rollout(first: Tensor, last: Tensor, sources: Tensor, *, residual: float = 0.5) -> Tensor:
    """Rollout of rows that are even over one stretch of keys each, for groups of sources: `[layer, query, group]`.

    The baseline of a rollout without its matrix: what `rollout` of such attention gives, summed over the columns of
    each group, by running sums. first, last: int `[layer, query]`, the keys between which a row may look, both
    included; -1: not one stretch. sources: `[key, group]`, 1 where a key is of a group. Float64.

    NaN: a row whose stretch is not known, and those that take of it.

    >>> ends = torch.arange(32).expand(24, 32)
    >>> depths = uniform_rollout(torch.zeros_like(ends), ends, torch.eye(32))[:, -1, 0]
    >>> [round(float(depths[depth - 1]), 3) for depth in (1, 6, 12, 24)]
    [0.016, 0.301, 0.714, 0.98]
    """
    rolled, mixed = [], sources.double()
    for start, end in zip(first.long(), last.long(), strict=True):
        lost = mixed.isnan().any(-1)
        counted = torch.cat([mixed.masked_fill(lost[:, None], 0), lost[:, None].double()], -1)
        sums = torch.cat([torch.zeros_like(counted[:1]), counted.cumsum(0)])
        even = (sums[end + 1] - sums[start.clamp(min=0)]) / (end - start + 1)[:, None]
        mixed = (1 - residual) * even[:, :-1] + residual * mixed
        unknown = (start < 0) | ((1 - residual) * even[:, -1] > 0)
        mixed = mixed.masked_fill(unknown[:, None], torch.nan)
        rolled.append(mixed)
    return torch.stack(rolled)


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
        sums = fused.sum(-1, keepdim=True)
        fused = fused / sums.where(sums != 0, 1)
    mixed = (1 - residual) * fused + residual * identity
    sums = mixed.sum(-1, keepdim=True)
    return mixed / sums.masked_fill(~sums.isfinite(), torch.nan)  # 0 / 0 is NaN, as it should be


def product(layers: Tensor) -> Tensor:
    """R₀ = Â₀, R_l = Â_l R_{l−1}, all of them: `[layer, ..., query, key]` to the same.

    A row that holds NaN makes NaN of the rows that take something of it, and of no others.
    """
    rolled = [layers[0].masked_fill(layers[0].isnan().any(-1, keepdim=True), torch.nan)]
    for layer in layers[1:]:
        undefined = rolled[-1].isnan().any(-1, keepdim=True)
        followed = layer @ rolled[-1].masked_fill(undefined, 0)
        touched = (layer > 0).to(layer.dtype) @ undefined.to(layer.dtype) > 0
        rolled.append(followed.masked_fill(touched, torch.nan))
    return torch.stack(rolled)
