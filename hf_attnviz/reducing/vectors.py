"""The vectors that attention is made of, and what it mixes them to."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from hf_attnviz.reducing.outline import Outline
from hf_attnviz.reducing.tile import Tile


@dataclass(frozen=True)
class Vectors:
    """The query, key and value vectors, after rotary embedding, the query times the model's scaling; and the outputs of
    the heads, before the output projection."""

    name: str = "vectors"
    needs: frozenset[str] = frozenset({"vectors"})

    def update(self, state: Mapping[str, torch.Tensor] | None, tile: Tile) -> Mapping[str, torch.Tensor]:
        """Append the tile's queries; keys and values are those of the whole call."""
        # Clones: a static cache goes on writing into the very keys and values that it handed out.
        new = {name: vector.clone() for name, vector in tile.vectors.items()} | {"positions": tile.positions}
        return new if tile.vectors else {}

    def need(self, outline: Outline) -> int:
        """Bytes that a call of this outline will take: queries and outputs, keys and values."""
        rows = outline.heads * outline.queries + outline.batch * outline.groups * outline.keys
        return 2 * rows * outline.size * outline.itemsize

    def result(self, state: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """The vectors by name, and the ``positions`` of the queries; empty where a module does not show them."""
        return state
