"""Which heads do the same: every head against every other, over the same rows of the same texts.

Source: Clark et al., "What Does BERT Look At?" (2019), section 6 (Jensen–Shannon between heads, to cluster them); the
coefficients and divergences themselves stand in `correlation` and `divergence`. Steps: flatten each head over the pairs
that count, all examples pooled; compare all heads; divergences become means over rows.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from hf_attnviz.errors import ArgumentError
from hf_attnviz.functional.checks import check_name, upcast
from hf_attnviz.functional.correlation import cosine, pearson, spearman
from hf_attnviz.functional.divergence import pairwise_hellinger, pairwise_jeffreys, pairwise_jensen_shannon
from hf_attnviz.functional.pairs import Pairs, pairs_of
from hf_attnviz.language import Text

CORRELATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "pearson": pearson,
    "spearman": spearman,
    "cosine": cosine,
}
DIVERGENCES: dict[str, Callable[[Tensor], Tensor]] = {
    "js": pairwise_jensen_shannon,
    "js_clark": pairwise_jensen_shannon,
    "hellinger": pairwise_hellinger,
    "jeffreys": pairwise_jeffreys,
}
CLARK_SMOOTHING = 0.001
ULPS_OF_A_CONSTANT = 4  # rounding steps by which the weights of a head without preference may differ


def head_similarity(
    attention: Tensor,
    *,
    method: str,
    valid: Tensor | None = None,
    valid_queries: Tensor | None = None,
    positions: Tensor | None = None,
    causal: bool = False,
    allowed_only: bool = True,
    centred: bool = False,
) -> Tensor:
    """Compare all heads of `attention` `[layer, batch, head, query, key]`: `[layer·head, layer·head]`, symmetric.

    Head h of layer l is row l·H + h. Likeness, 1 on the diagonal: "pearson", "spearman" (ties share their average
    rank), "cosine", over all allowed pairs of all examples. Difference, 0 on the diagonal:

    - "js": Jensen–Shannon divergence in nats, mean over rows, in [0, ln 2];
    - "js_clark": the same as Clark et al. computed it, on 0.999·a + 0.001/T with T the real keys of the example, and
      summed over rows and examples, so it grows with the text;
    - "hellinger": squared Hellinger distance ½Σ(√p − √q)², mean over rows, in [0, 1];
    - "jeffreys": Jeffreys' divergence in nats, mean over rows; infinite where a head gives exactly nothing to a key
      that the other looks at.

    Take the root of a divergence before drawing distances from it: the roots of "js" and "hellinger" are metrics.

    allowed_only: leave out what the causal mask forbids. With False these zeros count as agreement, and raise every
    correlation; divergences are the same either way. centred: subtract 1/n from each row of n allowed keys first (and 0
    beyond them), since even on allowed pairs all causal heads share the trend that long rows have small weights;
    correlations only. Masks and positions as in `head_statistics`.

    NaN: a head whose weights do not vary beyond rounding has no correlation ("cosine": one that is zero); a head that
    holds NaN has nothing, nor has any head when no row is left. Raises UnknownNameError for a method it does not know.
    """
    pairs = pairs_of(attention, valid=valid, valid_queries=valid_queries, positions=positions, causal=causal)
    check_name(method, "method", [*CORRELATIONS, *DIVERGENCES])
    if centred and method in DIVERGENCES:
        raise ArgumentError(
            Text(
                f"expected centred=False with method={method!r}, got True; centre correlations only",
                f"method={method!r} 时 centred 应为 False，得到 True；只有相关系数可以中心化",
            )
        )
    counted = pairs.allowed if allowed_only else pairs.block & pairs.rows[:, :, None]
    heads = torch.cat([_flattened(upcast(layer), pairs, counted) for layer in attention])
    if method in DIVERGENCES:
        return _divergence(heads, method, pairs, counted)
    rounding = ULPS_OF_A_CONSTANT * torch.finfo(attention.dtype).eps * _scale(heads)
    if centred:
        allowed = pairs.allowed.to(heads.dtype)
        heads = heads - (allowed / allowed.sum(-1, keepdim=True))[counted]
    return CORRELATIONS[method](heads, rounding)


def _flattened(weights: Tensor, pairs: Pairs, counted: Tensor) -> Tensor:
    """`[batch, head, query, key]` → `[head, pair]`, all examples end to end."""
    pairs.refuse_forbidden_weight(weights)
    return weights.movedim(1, 0)[:, counted]


def _divergence(heads: Tensor, method: str, pairs: Pairs, counted: Tensor) -> Tensor:
    rows = pairs.rows.sum()
    if method == "js_clark":
        real_keys = pairs.keys.sum(-1).to(heads.dtype)[:, None, None].expand(counted.shape)[counted]
        heads = (1 - CLARK_SMOOTHING) * heads + CLARK_SMOOTHING / real_keys
        rows = rows.clamp_max(1)  # a sum, except that no row at all is still 0/0
    return DIVERGENCES[method](heads) / rows


def _scale(heads: Tensor) -> Tensor:
    """The largest weight of each head, `[head]`: what its rounding errors are relative to."""
    return heads.abs().amax(-1) if heads.shape[-1] else heads.new_zeros(len(heads))
