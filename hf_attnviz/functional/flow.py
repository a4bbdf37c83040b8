"""How much of each input token can reach a position through the layers, if attention were pipes that hold so much.

Source: Abnar & Zuidema, "Quantifying Attention Flow in Transformers" (2020), section 3 (attention flow): the maximum
flow from a position above the top layer to an input token, each layer's edges holding Â = (1−r)·mean over heads + r·I.
Steps: keep only the edges on a way from that position to that token; capacities as whole numbers; one problem a pair.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow
from torch import Tensor

from hf_attnviz.errors import ArgumentError
from hf_attnviz.functional.checks import check_axes, check_share, check_square, upcast
from hf_attnviz.language import Text
from hf_attnviz.progress import shown

UNIT = 2**30  # what a capacity of one is in whole numbers: the largest power that int32 sums can hold
_WHAT = Text("attention flow", "注意力流")


def flow(
    attention: Tensor, *, residual: float = 0.5, normalise: bool = False, queries: Sequence[int] | None = None
) -> Tensor:
    """Attention flow of `attention` `[layer, head, query, key]` of one example: `[query, key]`, from 0 to 1.

    Entry `[i, j]` is the maximum flow from position `queries[i]` above the last layer down to input token j. Each token
    is asked for by itself, so rows sum to more than one; normalise divides them by their sums. residual: the share r of
    the residual stream. queries: the rows wanted (negative ones count from the end), default all.

    Exact to about 1e-9 times the root of the number of edges. Costs a maximum-flow problem a pair: a millisecond each
    at 6 layers of 32 tokens, ten at 12 layers of 128; long work announces itself. In a causal stack token 0 fills up
    to 1 with depth, as it does under uniform attention: hold it against `flow(uniform_like(…))`.

    Raises ShapeError unless maps are square, ArgumentError for weights that are no weights (NaN, negative) or a row
    that is not there.

    >>> two = torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[1.0, 0.0], [0.2, 0.8]]])[:, None]
    >>> flow(two)
    tensor([[1.0000, 0.0000],
            [0.3500, 0.7500]])
    """
    return flows([attention], residual=residual, normalise=normalise, queries=queries)[0]


def flows(
    several: Sequence[Tensor],
    *,
    residual: float = 0.5,
    normalise: bool = False,
    queries: Sequence[int] | None = None,
) -> list[Tensor]:
    """`flow` of several stacks of one size as one piece of work, so that its length is told as a whole."""
    check_share(residual, "residual")
    if not several:
        raise ArgumentError(Text("expected at least one stack of maps, got none", "应至少有一组图，得到零组"))
    capacities, units = zip(*(_capacities(attention, residual) for attention in several), strict=True)
    tokens = capacities[0].shape[-1]
    rows = [_row(row, tokens) for row in (range(tokens) if queries is None else queries)]
    found = np.zeros((len(several), len(rows), tokens))
    causal = not any(np.triu(one, 1).any() for one in capacities)
    pairs = [pair for pair in np.ndindex(*found.shape) if not causal or pair[2] <= rows[pair[1]]]
    np.random.default_rng(0).shuffle(pairs)  # some are quicker than others: an estimate should meet both
    for which, n, key in shown(pairs, len(pairs), _WHAT):
        query, ways = rows[n], slice(None)
        if causal:  # all ways lie between the two
            query, ways = rows[n] - key, slice(key, rows[n] + 1)
        found[which, n, key] = _largest(capacities[which][:, ways, ways], query, 0 if causal else key) / units[which]
    results = [torch.from_numpy(one).to(upcast(given[:0])) for one, given in zip(found, several, strict=True)]
    return [one / one.sum(-1, keepdim=True) if normalise else one for one in results]


def _capacities(attention: Tensor, residual: float) -> tuple[NDArray[np.int32], float]:
    """Â of every layer in whole numbers, `[layer, query, key]`, and what a capacity of one is in them."""
    check_axes(attention, "layer head query key")
    check_square(attention, Text("flow", "注意力流"))
    fused = upcast(attention).mean(1)
    if not bool(((fused >= 0) & fused.isfinite()).all()):
        raise ArgumentError(
            Text(
                "expected finite weights from 0 up, got NaN, infinity or less than 0; leave padding out before flow",
                "权重应为不小于 0 的有限数，得到 NaN、无穷大或负数；求 flow 之前请先去掉填充",
            )
        )
    identity = torch.eye(fused.shape[-1], dtype=fused.dtype, device=fused.device)
    mixing = ((1 - residual) * fused + residual * identity).detach().cpu().double().numpy()
    unit = UNIT / max(1.0, mixing.sum(-1).max())
    return np.rint(mixing * unit).astype(np.int32), unit


def _row(row: int, tokens: int) -> int:
    if not -tokens <= row < tokens:
        raise ArgumentError(
            Text(
                f"expected queries from {-tokens} to {tokens - 1}, got {row}; count rows from 0",
                f"查询应为 {-tokens} 到 {tokens - 1}，得到 {row}；行从 0 数起",
            )
        )
    return row % tokens


def _largest(capacities: NDArray[np.int32], query: int, key: int) -> int:
    """The maximum flow through `capacities` `[layer, query, key]` from the top's `query` down to the bottom's `key`."""
    layers, tokens, _ = capacities.shape
    if layers == 1:
        return int(capacities[0, query, key])
    first, last = capacities[-1, query], capacities[0, :, key]
    if layers == 2:
        return int(np.minimum(first, last).astype(np.int64).sum())  # parallel pipes, two in a row each
    # node 0 is the query, then the tokens between layers from the top down, the last node is the key
    inner = capacities[-2:0:-1]
    depth, above, below = np.nonzero(inner)
    places = np.arange(tokens)
    sink = 1 + (layers - 1) * tokens
    start = np.concatenate([0 * places, 1 + depth * tokens + above, sink - tokens + places])
    end = np.concatenate([1 + places, 1 + (depth + 1) * tokens + below, np.full(tokens, sink)])
    sizes = np.concatenate([first, inner[depth, above, below], last])
    used = sizes > 0
    graph = csr_array((sizes[used], (start[used], end[used])), shape=(sink + 1, sink + 1), dtype=np.int32)
    return int(maximum_flow(graph, 0, sink).flow_value)
