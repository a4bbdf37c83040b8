"""How far each head of one run is from the same head of another, on the same tokens.

Sources: Lin (1991) for the Jensen–Shannon divergence, mean over rows as between heads in Clark et al., "What Does BERT
Look At?" (2019), section 6; Pearson (1895) over the pairs that the mask allows.
"""

import torch
from torch import Tensor

from hf_attnviz.errors import ShapeError
from hf_attnviz.functional.checks import check_axes, upcast
from hf_attnviz.functional.divergence import jensen_shannon
from hf_attnviz.functional.pairs import allowed_pairs
from hf_attnviz.functional.similarity import ULPS_OF_A_CONSTANT
from hf_attnviz.language import Text


def compare_maps(
    first: Tensor,
    second: Tensor,
    *,
    valid: Tensor | None = None,
    valid_queries: Tensor | None = None,
    positions: Tensor | None = None,
    causal: bool = False,
) -> dict[str, Tensor]:
    """Head by head, `[layer, batch, head, query, key]` twice → `[layer, head]` each, symmetric in the two.

    "js": Jensen–Shannon divergence in nats, mean over the rows that count, in [0, ln 2]. "pearson": Pearson's r over
    all allowed pairs, in [−1, 1]; NaN where either head does not vary beyond rounding. Masks and positions as in
    `head_statistics`; what lies on keys that do not count is ignored.

    Raises:
        ShapeError: the two differ in any size.
    """
    check_axes(first)
    check_axes(second)
    if first.shape != second.shape:
        raise ShapeError(
            Text(
                f"expected two stacks of the same sizes [layer, batch, head, query, key], got {tuple(first.shape)} and "
                f"{tuple(second.shape)}; only heads that have a counterpart can be compared, on the same tokens",
                f"应为大小相同的两组 [layer, batch, head, query, key]，得到 {tuple(first.shape)} 与 "
                f"{tuple(second.shape)}；只有能一一对应的头、在相同的词元上，才能比较",
            )
        )
    sizes = first.shape[1], *first.shape[-2:]
    masks = {"valid": valid, "valid_queries": valid_queries, "positions": positions}
    pairs = allowed_pairs(sizes, **masks, causal=causal, device=first.device)
    for maps in (first, second):
        for layer in maps:
            pairs.refuse_forbidden_weight(layer)
    one, other = (upcast(maps).masked_fill(~pairs.allowed[:, None], 0) for maps in (first, second))
    divergence = jensen_shannon(one, other).movedim(1, 2)[..., pairs.rows].mean(-1)
    cells = [maps.movedim(1, 2)[..., pairs.allowed] for maps in (one, other)]
    return {"js": divergence, "pearson": _pearson(*cells, eps=torch.finfo(first.dtype).eps)}


def _pearson(first: Tensor, second: Tensor, *, eps: float) -> Tensor:
    """`[..., pair]` twice → `[...]`."""
    if not first.shape[-1]:
        return first.new_full(first.shape[:-1], torch.nan)
    one, other = (cells - cells.mean(-1, keepdim=True) for cells in (first, second))
    varies = torch.ones(first.shape[:-1], dtype=torch.bool, device=first.device)
    for centred, cells in ((one, first), (other, second)):
        varies &= centred.abs().amax(-1) > ULPS_OF_A_CONSTANT * eps * cells.abs().amax(-1)
    product: Tensor = (one * other).sum(-1) / (one.norm(dim=-1) * other.norm(dim=-1))
    return product.clamp(-1, 1).masked_fill(~varies, torch.nan)
