"""Rows of attention as they are: all of them, which is the map, or chosen ones."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text
from hf_attnviz.packed import ROWS, PackedRows
from hf_attnviz.reducing.outline import Outline
from hf_attnviz.reducing.ran import Places
from hf_attnviz.reducing.tile import Tile


@dataclass(frozen=True, eq=False)
class KeptRows:
    """Rows of attention: ``weights`` ``[batch, head, row, key]`` and the ``positions`` ``[batch, row]`` of each."""

    weights: torch.Tensor
    positions: torch.Tensor


@dataclass(frozen=True, eq=False)
class PackedMaps:
    """The maps of a batch, packed: one a sequence; and the ``positions`` ``[batch, row]`` of their rows."""

    packed: tuple[PackedRows, ...]
    positions: torch.Tensor

    @property
    def weights(self) -> torch.Tensor:
        """``[batch, head, query, key]``, unpacked anew each time."""
        return torch.stack([one.unpacked() for one in self.packed])


@dataclass(eq=False)
class Packing:
    """Maps on their way to be packed: of each sequence the parts so far, in the order of their rows."""

    shape: torch.Size
    positions: torch.Tensor
    dtype: torch.dtype
    device: torch.device
    parts: dict[int, list[PackedRows]] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)

    def add(self, tile: Tile) -> None:
        """The rows of a tile; rows between it and the last one are nobody's, and weigh nothing."""
        assert isinstance(tile.rows, slice)
        first, start = tile.rows.start or 0, tile.keys.start
        for weights, b in zip(tile.weights, range(*tile.batch.indices(self.shape[0])), strict=True):
            self._until(b, first)
            if start is None:
                part = replace(PackedRows.of(weights), dtype=self.dtype)
            else:  # a tile's keys are those that its rows may see
                part = PackedRows((weights.to(torch.float16),), (start,), self.shape[-1], self.dtype)
            self.parts[b].append(part)
            self.rows[b] = first + weights.shape[-2]

    def done(self) -> PackedMaps:
        """The maps, whole."""
        for b in range(self.shape[0]):
            self._until(b, self.shape[-2])
        return PackedMaps(tuple(PackedRows.joined(self.parts[b]) for b in range(self.shape[0])), self.positions)

    def _until(self, b: int, row: int) -> None:
        parts, missing = self.parts.setdefault(b, []), row - self.rows.get(b, 0)
        if missing:
            empty = torch.empty((*self.shape[1:-2], missing, 0), dtype=torch.float16, device=self.device)
            parts.append(PackedRows((empty,), (0,), self.shape[-1], self.dtype))


@dataclass(frozen=True)
class Maps:
    """Every row of every map.

    Args:
        dtype: the type to keep them in; None keeps the type in which they ran.
        packed: keep them in float16, and of each block of 128 rows only the keys that it may see: a causal map takes a
            quarter of its memory in float32, and is never built whole. ``weights`` are unpacked when they are read,
            into ``dtype`` (None: float32 where they came from a kernel's tiles, else the type in which they ran).

    Raises:
        ArgumentError: a type that is none of floating-point numbers.
    """

    dtype: torch.dtype | None = None
    packed: bool = False
    name: str = "maps"
    needs: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        if self.dtype is not None and not (isinstance(self.dtype, torch.dtype) and self.dtype.is_floating_point):
            raise ArgumentError(
                Text(
                    f"Maps(dtype={self.dtype!r}): expected a floating-point type such as torch.float16",
                    f"Maps(dtype={self.dtype!r})：应为浮点类型，例如 torch.float16",
                )
            )
        object.__setattr__(self, "needs", frozenset({"weights" if self.packed else "maps"}))

    def update(self, state: KeptRows | Packing | None, tile: Tile) -> KeptRows | Packing:
        """Take the rows of a tile: all of a call's at once, or, packed, those of one tile after another."""
        if not self.packed:
            return KeptRows(tile.weights if self.dtype is None else tile.weights.to(self.dtype), tile.positions)
        if not isinstance(state, Packing):
            dtype, device = self.dtype or tile.weights.dtype, tile.weights.device
            state = Packing(tile.shape, tile.places.queries, dtype, device)
        state.add(tile)
        return state

    def need(self, outline: Outline) -> int:
        """Bytes that a call of this outline will take."""
        if not self.packed:
            return outline.weights * (outline.itemsize if self.dtype is None else self.dtype.itemsize)
        first, total = outline.keys - outline.queries, 0
        for start in range(0, outline.queries, ROWS):
            stop = min(start + ROWS, outline.queries)
            total += (stop - start) * (max(0, first) + stop if outline.causal else outline.keys)
        return 2 * outline.heads * total

    def result(self, state: KeptRows | Packing) -> KeptRows | PackedMaps:
        """The rows as they are."""
        return state.done() if isinstance(state, Packing) else state


@dataclass(frozen=True)
class Rows:
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
            raise ArgumentError(
                Text(
                    f"Rows({self.queries!r}): expected a list of query positions such as [0, -1]",
                    f"Rows({self.queries!r})：应为查询位置的列表，例如 [0, -1]",
                )
            )
        chosen = tuple(dict.fromkeys(self.queries))
        if not chosen:
            raise ArgumentError(
                Text("Rows needs at least one query position; got none", "Rows 应至少有一个查询位置；得到零个")
            )
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

    def need(self, outline: Outline) -> int:
        """Bytes that a call of this outline will take."""
        read, last = outline.past, outline.past + outline.queries
        if outline.apart and -1 in self.queries:
            rows = outline.queries  # each is the last one of its pass
        else:
            rows = sum(read <= place < last for place in {row if row >= 0 else last + row for row in self.queries})
        return outline.heads * rows * outline.keys * 4

    def result(self, state: KeptRows) -> KeptRows:
        """The rows as they are; a sequence that lacks a row has position -1 and NaN there."""
        return state

    def places(self, places: Places) -> torch.Tensor:
        """Which rows of a call any of its sequences wants ``[row]``."""
        return self._here(places.queries, places.lengths).any(0).nonzero()[:, 0]

    def _here(self, positions: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Which rows each sequence wants ``[batch, row]``."""
        wanted = torch.tensor(self.queries, device=positions.device)[:, None, None]
        wanted = torch.where(wanted < 0, wanted + lengths, wanted)
        return ((wanted == positions) & (positions >= 0)).any(0)
