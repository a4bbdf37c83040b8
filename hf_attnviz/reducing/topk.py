"""The k keys that each row looks at most."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hf_attnviz.axes import BATCH, HEAD, QUERY, RANK
from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text
from hf_attnviz.reduced import Reduced
from hf_attnviz.reducing.outline import Outline
from hf_attnviz.reducing.passes import on_tiles
from hf_attnviz.reducing.tile import NOTHING, Tile

_SPAN = 32  # keys that are first asked for their largest weight alone

State = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class TopK:
    """The k largest weights of each row, and their keys.

    ``weights`` ``[head, query, rank]``, the largest first, and ``keys``, the key of each; where a row has fewer keys
    than k: 0 and key -1. Of equal weights any may come.

    Args:
        k: how many keys.
    """

    k: int = 8
    name: str = "topk"
    needs: frozenset[str] = frozenset({"weights"})

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise ArgumentError(
                Text(
                    f"TopK({self.k!r}): expected how many keys of each row, 1 or more",
                    f"TopK({self.k!r})：应为每行几个键，1 或更多",
                )
            )

    def update(self, state: State | None, tile: Tile) -> State:
        """Find the largest of each row of a tile."""
        if state is None:
            shape = (*tile.shape[:3], self.k)
            state = tile.weights.new_zeros(shape), tile.weights.new_full(shape, -1, dtype=torch.int32)
        values, places = (one[tile.batch, :, tile.rows] for one in state)
        first, tools = tile.keys.start or 0, on_tiles(tile.weights.device)
        if tools is not None:
            tools.largest(tile.weights[0].numpy(), first, np.float32(NOTHING), values[0].numpy(), places[0].numpy())
            return state
        found, at = _largest(tile.weights, self.k)
        some = found > NOTHING
        values[..., : found.shape[-1]] = found.masked_fill(~some, 0)
        places[..., : found.shape[-1]] = torch.where(some, at + first, -1)
        return state

    def need(self, outline: Outline) -> int:
        """Bytes that a call of this outline will take."""
        return 8 * outline.heads * outline.queries * self.k

    def result(self, state: State) -> Reduced:
        """The weights and the keys."""
        axes = (BATCH, HEAD, QUERY, RANK)
        values = {"weights": state[0], "keys": state[1]}
        return Reduced(values, {"weights": axes, "keys": axes}, holds={"keys": "key"})


def _largest(weights: Tensor, k: int) -> State:
    """The k largest of each row and where they stand: among the k spans with the largest maxima, so few are sorted."""
    keys = weights.shape[-1]
    spans = keys // _SPAN
    if spans <= 2 * k:
        found = weights.topk(min(k, keys), dim=-1)
        return found.values, found.indices
    spanned = weights[..., : spans * _SPAN].view(*weights.shape[:-1], spans, _SPAN)
    best = spanned.amax(-1).topk(k, dim=-1).indices
    places = (best[..., None] * _SPAN + torch.arange(_SPAN, device=weights.device)).flatten(-2)
    rest = torch.arange(spans * _SPAN, keys, device=weights.device).expand(*weights.shape[:-1], -1)
    places = torch.cat([places, rest], -1)
    found = weights.gather(-1, places).topk(k, dim=-1)
    return found.values, places.gather(-1, found.indices)
