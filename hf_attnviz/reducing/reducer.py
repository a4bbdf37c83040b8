"""What ``keep`` keeps of attention calls: the protocol of a reducer."""

from typing import Any, Protocol, TypeVar

from hf_attnviz.reducing.tile import Tile

State = TypeVar("State")


class Reducer(Protocol[State]):
    """Something that ``keep`` keeps."""

    @property
    def name(self) -> str:
        """The key under which a call keeps what this reducer gives."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """What it reads.

        ``"weights"``: tile by tile. ``"sums"``: :class:`~hf_attnviz.reducing.tile.Sums`, once a call. ``"rows"``: the
        tile of chosen rows, once a call. ``"maps"``: all weights of a call at once. ``"vectors"``: those alone, or
        beside maps. ``"block"``: it is completed when the block ends. ``"tokens"``: beside weights, what stands at the
        places of a sequence.
        """
        ...

    def update(self, state: State | None, tile: Tile) -> State:
        """The state after one more tile (None: before the first)."""
        ...

    def result(self, state: State) -> Any:
        """What the recording hands out."""
        ...
