"""What ``keep`` keeps of attention calls: the protocol of a reducer."""

from typing import Any, Protocol, TypeVar

from torch import Tensor

from hf_attnviz.reducing.ran import Places
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
        places of a sequence. ``"below"``, ``"before"``: what it has carried from the layer below, or from the pass
        before (:mod:`hf_attnviz.reducing.carried`).
        """
        ...

    def update(self, state: State | None, tile: Tile) -> State:
        """The state after one more tile (None: before the first)."""
        ...

    def result(self, state: State) -> Any:
        """What the recording hands out."""
        ...


class Choosing(Reducer[State], Protocol[State]):
    """A reducer that needs ``"rows"``."""

    def places(self, places: Places) -> Tensor:
        """Which rows of a call any of its sequences wants ``[row]``."""
        ...
