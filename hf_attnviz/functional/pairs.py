"""Which (query, key) pairs count: both ends are real tokens, and no key lies behind its query in a causal map."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attnviz.errors import ArgumentError, ShapeError
from hf_attnviz.functional.checks import check_axes, check_mask
from hf_attnviz.language import Text

NOWHERE = -1  # the position of a query row that stands on none of the keys
FORBIDDEN_WEIGHT = 1e-3  # more than rounding can put behind a causal mask


@dataclass(frozen=True)
class Pairs:
    """The pairs that count, example by example.

    `block` `[batch, query, key]`: both ends are real tokens. `allowed`, same shape: of these, the ones the causal mask
    leaves. `rows` `[batch, query]`: the rows that may look at something. `keys` `[batch, key]`: the real keys.
    `positions` `[query]`: the key on which each row stands, -1 for nowhere (cross-attention).
    """

    block: Tensor
    allowed: Tensor
    rows: Tensor
    keys: Tensor
    positions: Tensor
    causal: bool

    def refuse_forbidden_weight(self, weights: Tensor) -> None:
        """Raise where `weights` `[batch, head, query, key]` said to be causal look ahead."""
        if not self.causal:
            return
        ahead = (self.block & ~self.allowed)[:, None]
        most = float(weights.detach().masked_fill(~ahead, 0).amax()) if weights.numel() else 0.0
        if most > FORBIDDEN_WEIGHT:
            raise ArgumentError(
                Text(
                    f"expected no weight behind the causal mask, got a weight of {most:.3g} on a key after its query; "
                    "pass causal=False, or positions that say on which key each query row stands",
                    f"因果掩码之外不应有权重，在查询之后的键上却有 {most:.3g}；"
                    "请用 causal=False，或用 positions 说明每个查询行对应哪个键",
                )
            )


def pairs_of(
    attention: Tensor,
    *,
    valid: Tensor | None = None,
    valid_queries: Tensor | None = None,
    positions: Tensor | None = None,
    causal: bool = False,
) -> Pairs:
    """The pairs of `attention` `[layer, batch, head, query, key]`, which is checked to be just that."""
    check_axes(attention)
    _, batch, _, queries, keys = attention.shape
    return allowed_pairs(
        (batch, queries, keys),
        valid=valid,
        valid_queries=valid_queries,
        positions=positions,
        causal=causal,
        device=attention.device,
    )


def allowed_pairs(
    sizes: tuple[int, int, int],
    *,
    valid: Tensor | None = None,
    valid_queries: Tensor | None = None,
    positions: Tensor | None = None,
    causal: bool = False,
    device: torch.device | None = None,
) -> Pairs:
    """Lay down the pairs of maps of `sizes` (batch, query, key).

    `valid` `[batch, key]` speaks for the queries too when the map is square; otherwise `valid_queries`
    `[batch, query]` does. `positions` defaults to 0, 1, 2 … in a square map and to "nowhere" in any other.
    """
    device = device or torch.device("cpu")
    masks = {"valid": valid, "valid_queries": valid_queries, "positions": positions}
    real_queries, real_keys, stand = ends(sizes, **masks, causal=causal, device=device)
    block = real_queries[:, :, None] & real_keys[:, None, :]
    allowed = block & (torch.arange(sizes[-1], device=device) <= stand[:, None]) if causal else block
    return Pairs(block, allowed, allowed.any(-1), real_keys, stand, causal)


def ends(
    sizes: tuple[int, int, int],
    *,
    valid: Tensor | None,
    valid_queries: Tensor | None,
    positions: Tensor | None,
    causal: bool,
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor]:
    """The real queries `[batch, query]`, the real keys `[batch, key]`, and where the queries stand `[query]`, with the
    defaults of `allowed_pairs`."""
    batch, queries, keys = sizes
    real_keys = check_mask(valid, "valid", batch, keys, device)
    if valid_queries is None and queries == keys:
        real_queries = real_keys
    else:
        real_queries = check_mask(valid_queries, "valid_queries", batch, queries, device)
    return real_queries, real_keys, _positions(positions, queries, keys, causal, device)


def _positions(positions: Tensor | None, queries: int, keys: int, causal: bool, device: torch.device) -> Tensor:
    if positions is None and queries == keys:
        return torch.arange(queries, device=device)
    if positions is None:
        positions = torch.full((queries,), NOWHERE)
    if positions.is_floating_point() or positions.dtype == torch.bool:
        raise ShapeError(
            Text(
                f"expected positions of an integer dtype, got {positions.dtype}; call .long()",
                f"positions 应为整数类型，得到 {positions.dtype}；请调用 .long()",
            )
        )
    if tuple(positions.shape) != (queries,):
        raise ShapeError(
            Text(
                f"expected positions of shape {(queries,)}, got {tuple(positions.shape)}; give one key a query row",
                f"positions 的形状应为 {(queries,)}，得到 {tuple(positions.shape)}；请为每个查询行给出一个键",
            )
        )
    outside = (positions < NOWHERE) | (positions >= keys)
    if outside.any():
        raise ArgumentError(
            Text(
                f"expected positions from {NOWHERE} (nowhere) to {keys - 1}, got {int(positions[outside][0])}; "
                "count keys from 0",
                f"positions 应为 {NOWHERE}（无处）到 {keys - 1}，得到 {int(positions[outside][0])}；键从 0 数起",
            )
        )
    if causal and (positions == NOWHERE).any():
        raise ArgumentError(
            Text(
                f"expected positions for a causal map of {queries} queries and {keys} keys, got rows that stand "
                "nowhere; pass positions, the key on which each query row stands, or causal=False for cross-attention",
                f"{queries} 个查询、{keys} 个键的因果图需要 positions，有些行却无处可对应；"
                "请传入 positions，即每个查询行对应的键；交叉注意力请用 causal=False",
            )
        )
    return positions.to(device)
