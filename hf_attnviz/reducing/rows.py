"""Rows of attention as they are: all of them, which is the map, or chosen ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hf_attnviz.errors import ArgumentError
from hf_attnviz.reducing.ran import Places
from hf_attnviz.reducing.tile import Tile


@dataclass(frozen=True, eq=False)
class KeptRows:
    """Rows of attention: ``weights`` ``[batch, head, row, key]`` and the ``positions`` ``[batch, row]`` of each."""

    weights: torch.Tensor
    positions: torch.Tensor


class _KeepsRows:
    """What reducers that keep rows share."""

    def result(self, state: KeptRows) -> KeptRows:
        """The rows as they are; a sequence that lacks a row has position -1 and NaN there."""
        return state


@dataclass(frozen=True)
class Maps(_KeepsRows):
    """Every row of every map.

    Args:
        dtype: the type to keep them in; None keeps the type in which they ran.
    """

    dtype: torch.dtype | None = None
    name: str = "maps"
    needs: frozenset[str] = frozenset({"maps"})

    def update(self, state: KeptRows | None, tile: Tile) -> KeptRows:
        """Append the tile's rows."""
        return KeptRows(tile.weights if self.dtype is None else tile.weights.to(self.dtype), tile.positions)


@dataclass(frozen=True)
class Rows(_KeepsRows):
    """Chosen rows only.

    Args:
        queries: positions in the sequence, padding left out; a negative one counts from the end of each forward pass,
            so that ``Rows([-1])`` keeps, while generating, the row that put out each new token.
    """

    queries: Sequence[int]
    name: str = "rows"
    needs: frozenset[str] = frozenset({"rows"})

    def __post_init__(self) -> None:
        if isinstance(self.queries, (str, int)) or not all(isinstance(q, int) for q in self.queries):
            raise ArgumentError(f"Rows({self.queries!r}): expected a list of query positions such as [0, -1]")
        chosen = tuple(dict.fromkeys(self.queries))
        if not chosen:
            raise ArgumentError("Rows needs at least one query position; got none")
        object.__setattr__(self, "queries", chosen)

    def update(self, state: KeptRows | None, tile: Tile) -> KeptRows:
        """Pick the wanted rows of the tile, for each sequence of the batch its own."""
        wanted, here = self._here(tile.positions, tile.lengths)
        found = here.any(-1)
        place = here.int().argmax(-1) if here.shape[-1] else torch.zeros_like(wanted)
        columns = found.any(0)  # rows that no sequence of the batch has in this tile are not kept at all
        found, place, wanted = found[:, columns], place[:, columns], wanted[:, columns]
        rows = torch.arange(tile.positions.shape[1], device=place.device)
        if place.shape[1] == len(rows) and bool(found.all()) and bool((place == rows).all()):
            return KeptRows(tile.weights, wanted)  # all rows of the tile, in order: nothing is to be copied
        place, found = place.to(tile.weights.device), found.to(tile.weights.device)
        index = place[:, None, :, None].expand(-1, tile.weights.shape[1], -1, tile.weights.shape[3])
        weights = tile.weights.gather(2, index).masked_fill(~found[:, None, :, None], float("nan"))
        return KeptRows(weights, torch.where(found.cpu(), wanted, -1))

    def places(self, places: Places) -> torch.Tensor:
        """Which rows of a call any of its sequences wants ``[row]``."""
        return self._here(places.queries, places.lengths)[1].any(1).any(0).nonzero()[:, 0]

    def _here(self, positions: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The places that each sequence wants ``[batch, wanted]``, and which row is which ``[batch, wanted, row]``."""
        wanted = torch.tensor(self.queries, device=positions.device).expand(len(lengths), -1)
        wanted = torch.where(wanted < 0, wanted + lengths[:, None], wanted)
        return wanted, (wanted[:, :, None] == positions[:, None, :]) & (wanted[:, :, None] >= 0)
