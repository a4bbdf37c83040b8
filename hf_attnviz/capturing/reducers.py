"""What is kept of each attention call: the reducers of ``keep``.

A reducer sees tiles of attention rows. It says what it needs of a tile, how a tile updates what it holds, how two
partial holdings merge, and what it gives in the end. Whole maps are the trivial reducer.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import torch

from hf_attnviz.capturing.kept_parts import KeptParts
from hf_attnviz.errors import ArgumentError, UnknownNameError, listed


@dataclass(frozen=True, eq=False)
class Tile:
    """Some rows of one attention call.

    Attributes:
        weights: ``[batch, head, query, key]``.
        positions: ``[batch, query]``: the place of each row in its own sequence, padding left out; -1 for padding.
        lengths: ``[batch]``: how long each sequence is after this call.
        vectors: ``query`` ``[batch, head, query, size]`` times the model's scaling, ``key`` and ``value``
            ``[batch, key_value_head, key, size]``, ``output`` ``[batch, head, query, size]``; those that are seen.
    """

    weights: torch.Tensor
    positions: torch.Tensor
    lengths: torch.Tensor
    vectors: Mapping[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class KeptRows:
    """Rows of attention: ``weights`` ``[batch, head, row, key]`` and the ``positions`` ``[batch, row]`` of each."""

    weights: torch.Tensor
    positions: torch.Tensor


State = TypeVar("State")


class Reducer(Protocol[State]):
    """Something that ``keep`` keeps."""

    @property
    def name(self) -> str:
        """The key under which a call keeps what this reducer gives."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """What it reads of a tile: ``"weights"``, ``"vectors"``; ``"block"``: it is completed when the block ends."""
        ...

    def update(self, state: State | None, tile: Tile) -> State:
        """The state after one more tile (None: before the first)."""
        ...

    def merge(self, first: State, second: State) -> State:
        """The state of two parts, the second holding the later rows."""
        ...

    def result(self, state: State) -> Any:
        """What the recording hands out."""
        ...


class _KeepsRows:
    """What reducers that keep rows share."""

    def merge(self, first: KeptRows, second: KeptRows) -> KeptRows:
        """Rows of both, in order."""
        weights = torch.cat([first.weights, second.weights], dim=2)
        return KeptRows(weights, torch.cat([first.positions, second.positions], dim=1))

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
    needs: frozenset[str] = frozenset({"weights"})

    def update(self, state: KeptRows | None, tile: Tile) -> KeptRows:
        """Append the tile's rows."""
        rows = KeptRows(tile.weights if self.dtype is None else tile.weights.to(self.dtype), tile.positions)
        return rows if state is None else self.merge(state, rows)


@dataclass(frozen=True)
class Rows(_KeepsRows):
    """Chosen rows only.

    Args:
        queries: positions in the sequence, padding left out; a negative one counts from the end of each forward pass,
            so that ``Rows([-1])`` keeps, while generating, the row that put out each new token.
    """

    queries: Sequence[int]
    name: str = "rows"
    needs: frozenset[str] = frozenset({"weights"})

    def __post_init__(self) -> None:
        if isinstance(self.queries, (str, int)) or not all(isinstance(q, int) for q in self.queries):
            raise ArgumentError(f"Rows({self.queries!r}): expected a list of query positions such as [0, -1]")
        chosen = tuple(dict.fromkeys(self.queries))
        if not chosen:
            raise ArgumentError("Rows needs at least one query position; got none")
        object.__setattr__(self, "queries", chosen)

    def update(self, state: KeptRows | None, tile: Tile) -> KeptRows:
        """Pick the wanted rows of the tile, for each sequence of the batch its own."""
        wanted = torch.tensor(self.queries, device=tile.positions.device).expand(len(tile.lengths), -1)
        wanted = torch.where(wanted < 0, wanted + tile.lengths[:, None], wanted)
        here = (wanted[:, :, None] == tile.positions[:, None, :]) & (wanted[:, :, None] >= 0)
        found, place = here.any(-1), here.int().argmax(-1)
        columns = found.any(0)  # rows that no sequence of the batch has in this tile are not kept at all
        found, place, wanted = found[:, columns], place[:, columns], wanted[:, columns]
        place, found = place.to(tile.weights.device), found.to(tile.weights.device)
        index = place[:, None, :, None].expand(-1, tile.weights.shape[1], -1, tile.weights.shape[3])
        weights = tile.weights.gather(2, index).masked_fill(~found[:, None, :, None], float("nan"))
        rows = KeptRows(weights, torch.where(found.cpu(), wanted, -1))
        return rows if state is None else self.merge(state, rows)


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
        new = new if tile.vectors else {}
        return new if state is None else self.merge(state, new)

    def merge(
        self, first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]
    ) -> Mapping[str, torch.Tensor]:
        """Queries of both, in order, over the same keys."""
        if not first:
            return second
        rows = {name: torch.cat([first[name], second[name]], dim=2) for name in ("query", "output") if name in first}
        return {**first, **rows, "positions": torch.cat([first["positions"], second["positions"]], dim=1)}

    def result(self, state: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """The vectors by name, and the ``positions`` of the queries; empty where a module does not show them."""
        return state


@dataclass(frozen=True)
class Contributions:
    """Of what the output of each layer is made: the value vectors, what the block makes of them, and the residual.

    It is read by running each block again, some ``heads · size / positions`` times in the first pass and once in each
    later one, and is proved by adding all parts up. It belongs to maps: ``keep=["maps", "contributions"]``.
    """

    name: str = "contributions"
    needs: frozenset[str] = frozenset({"vectors", "block"})

    def update(self, state: KeptParts | None, tile: Tile) -> KeptParts:
        """Take the values and the weights of a call; its block fills in the rest when it ends."""
        value = tile.vectors.get("value")
        kept = KeptParts(None if value is None else value.clone(), tile.weights, tile.positions)
        return kept if state is None else self.merge(state, kept)

    def merge(self, first: KeptParts, second: KeptParts) -> KeptParts:
        """Rows of both, in order, over the same keys."""
        weights = torch.cat([first.weights, second.weights], dim=2)
        return KeptParts(first.values, weights, torch.cat([first.positions, second.positions], dim=1))

    def result(self, state: KeptParts) -> KeptParts:
        """The values, to be completed when the block ends."""
        return state


def reduced(reducer: Reducer[Any], tiles: Iterable[Tile]) -> Any:
    """What a reducer gives after it has seen all the tiles of a call, in order."""
    state = None
    for tile in tiles:
        state = reducer.update(state, tile)
    return reducer.result(state)


BY_NAME: Final[dict[str, Reducer[Any]]] = {
    "maps": Maps(),
    "vectors": Vectors(),
    "contributions": Contributions(),
}


def reducers(keep: "str | Reducer[Any] | Sequence[str | Reducer[Any]]") -> tuple[Reducer[Any], ...]:
    """The reducers that ``keep`` names.

    Raises:
        UnknownNameError: a name that is not known.
        ArgumentError: none at all, or two that keep rows.
    """
    asked: list[str | Reducer[Any]] = list(keep) if isinstance(keep, Sequence) and not isinstance(keep, str) else [keep]
    found: list[Reducer[Any]] = []
    for one in asked:
        if one not in BY_NAME if isinstance(one, str) else not hasattr(one, "update"):
            raise UnknownNameError(
                f"keep={one!r} is not known; known: {listed(BY_NAME)}, or a reducer such as av.Rows([0])"
            )
        found.append(BY_NAME[one] if isinstance(one, str) else one)
    if not found:
        raise ArgumentError('keep names nothing to keep; for example keep="maps"')
    names = [reducer.name for reducer in found]
    if len(set(names)) < len(names) or {"maps", "rows"} <= set(names):
        raise ArgumentError(f"keep names the same thing twice (maps hold all rows): {listed(names)}")
    if "contributions" in names and "maps" not in names:
        raise ArgumentError('contributions are those of whole maps; keep both: keep=["maps", "contributions"]')
    return tuple(found)
