"""Entropy, distance and sink of each row, and what each key receives: what most pictures of long inputs need."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attnviz.axes import BATCH, HEAD, KEY, QUERY
from hf_attnviz.errors import ShapeError
from hf_attnviz.reduced import Reduced
from hf_attnviz.reducing.ran import Places
from hf_attnviz.reducing.tile import Sums, Tile

_ROWS = (BATCH, HEAD, QUERY)
AXES = {"entropy": _ROWS, "distance": _ROWS, "sink": _ROWS, "received": (BATCH, HEAD, KEY)}


@dataclass(frozen=True)
class Statistics:
    """Four numbers a head, without the matrix, at nearly the cost of a plain forward.

    ``entropy`` (nats), ``distance`` (mean places between a row and what it looks at; NaN in cross-attention) and
    ``sink`` (weight on the first valid key), each ``[head, query]``, NaN for rows that look at nothing; ``received``
    ``[head, key]``, the sum of each column over the rows that are no padding.
    """

    name: str = "statistics"
    needs: frozenset[str] = frozenset({"sums"})

    def update(self, state: Sums | None, tile: Tile) -> Sums:
        """Take the sums of a call."""
        assert tile.given is not None
        return tile.given

    def result(self, state: Sums) -> Reduced:
        """The four, by name."""
        return Reduced({name: getattr(state, name) for name in AXES}, AXES)


def sums_of(weights: Tensor, places: Places, attending: Tensor | None = None) -> Sums:
    """The same sums of weights that stand whole in memory ``[batch, head, query, key]``: the slow way.

    attending: ``[batch or 1, head or 1, query]``, False for rows that may look at nothing; None: all may.

    Raises:
        ShapeError: a layout of the model's own.
    """
    if weights.dim() != 4:
        raise ShapeError(f"expected weights [batch, head, query, key], got {tuple(weights.shape)}")
    sums = Sums.empty(weights.shape, weights.device)
    real, counted, keys = (
        tensor.to(weights.device) for tensor in (places.queries >= 0, places.counted, places.keys >= 0)
    )
    for b in range(len(weights)):
        rows = real[b] if attending is None else real[b] & attending[b if len(attending) > 1 else 0]
        part = weights[b].float().masked_fill(~keys[b], 0)
        apart = (places.queries[b, :, None] - places.keys[b]).abs().to(part)
        attends = rows & (part.sum(-1) > 0)
        for name, values in {
            "entropy": -torch.special.xlogy(part, part).sum(-1),
            "distance": (part * apart).sum(-1) if places.standing else torch.full_like(part[..., 0], torch.nan),
            "sink": part[..., places.first[b]] if places.first[b] >= 0 else torch.zeros_like(part[..., 0]),
            "mass": part.sum(-1),
        }.items():
            getattr(sums, name)[b] = values.masked_fill(~attends, torch.nan)
        sums.received[b] = (part * (counted[b, :, None] & attends[..., None])).nan_to_num(0).sum(1)
    return sums
