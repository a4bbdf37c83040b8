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
        """Pick the wanted rows of the tile, in order; what another sequence of the batch wants is NaN."""
        here = self._here(tile.positions, tile.lengths)
        wanted = here.any(0)
        positions = torch.where(here, tile.positions, -1)
        if bool(here.all()):
            return KeptRows(tile.weights, positions)
        rows = tile.weights[:, :, wanted.to(tile.weights.device)]
        spare = ~here[:, wanted].to(rows.device)
        return KeptRows(rows.masked_fill_(spare[:, None, :, None], torch.nan), positions[:, wanted])

    def places(self, places: Places) -> torch.Tensor:
        """Which rows of a call any of its sequences wants ``[row]``."""
        return self._here(places.queries, places.lengths).any(0).nonzero()[:, 0]

    def _here(self, positions: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Which rows each sequence wants ``[batch, row]``."""
        wanted = torch.tensor(self.queries, device=positions.device)[:, None, None]
        wanted = torch.where(wanted < 0, wanted + lengths, wanted)
        return ((wanted == positions) & (positions >= 0)).any(0)
