"""What correlations between the heads of all layers are made of, in a size that no length of the text changes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attnviz.axes import BATCH, HEAD, OTHER_SKETCH, SKETCH
from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text
from hf_attnviz.reduced import Reduced
from hf_attnviz.reducing.counting import AXES, Counted, even_of
from hf_attnviz.reducing.ran import Places
from hf_attnviz.reducing.signs import signs
from hf_attnviz.reducing.tile import Tile

_PLAIN = (BATCH, SKETCH, OTHER_SKETCH)
_SKETCHES = {"sketch": (BATCH, HEAD, SKETCH, OTHER_SKETCH)} | dict.fromkeys(
    ("ones", "ones_causal", "even", "even_causal"), _PLAIN
)
_LEAST = 8  # columns of signs from which an error can be told


@dataclass(frozen=True)
class Sketch:
    """How alike all heads of all layers are, with the error of the estimate.

    ``sketch`` Uᵀ P W ``[head, sketch, other_sketch]`` of each head's map P, with U and W random signs for the places of
    queries and of keys; the same of 1 on each pair that counts and of 1/n in each row, ``[sketch, other_sketch]``, for
    all n keys (``ones``, ``even``) and for those up to the row's own place (``ones_causal``, ``even_causal``); and the
    sums of :class:`~hf_attnviz.reducing.gram.Gram`. All are sums. The mean of the products of two heads'
    sketches is the sum of the products of their weights, without bias; :func:`hf_attnviz.head_correlation` makes
    correlations of them, and tells from the spread of these products how far off they may be.

    A head takes 4·size² bytes; while tokens are generated, every step keeps so much.

    Args:
        size: how many columns of signs on each side, 8 or more.
        seed: of the signs.
    """

    size: int = 64
    seed: int = 0
    name: str = "sketch"
    needs: frozenset[str] = frozenset({"weights", "sums"})

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < _LEAST:
            raise ArgumentError(
                Text(
                    f"Sketch({self.size!r}): expected how many columns of signs, {_LEAST} or more",
                    f"Sketch({self.size!r})：应为符号的列数，不少于 {_LEAST}",
                )
            )
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not -(2**63) <= self.seed < 2**63:
            raise ArgumentError(
                Text(
                    f"Sketch(seed={self.seed!r}): expected a whole number of 64 bits",
                    f"Sketch(seed={self.seed!r})：应为 64 位整数",
                )
            )

    def update(self, state: "Tensor | None", tile: Tile) -> "Tensor | Reduced":
        """Add the sketch of a tile; at the end of a call, those of what it is centred by."""
        if state is None:
            batch, heads, _, _ = tile.shape
            device = tile.weights.device if tile.given is None else tile.given.mass.device
            state = torch.zeros(batch, heads, self.size, self.size, device=device)
        if tile.given is not None:
            return self._told(state, tile.places, Counted.of(tile.places, tile.given))
        counts = tile.counted[0] & (tile.positions[0] >= 0)
        left = self._signs(torch.where(counts, tile.positions[0], -1), 0).to(state.device)
        right = self._signs(tile.places.keys[tile.batch, tile.keys][0], 1).to(state.device)
        state[tile.batch] += left.T @ (tile.weights[0] @ right)
        return state

    def result(self, state: Reduced) -> Reduced:
        """The sketches, by name."""
        return state

    def _signs(self, places: Tensor, side: int) -> Tensor:
        return signs(places, size=self.size, seed=self.seed, side=side)

    def _told(self, state: Tensor, places: Places, counted: Counted) -> Reduced:
        rows = self._signs(torch.where(counted.rows > 0, places.queries, -1), 0)
        keys = counted.keys.long(), counted.keys_causal.long()
        most = int(keys[0].max()) if keys[0].numel() else 0
        first = self._signs(torch.arange(most), 1).cumsum(0)  # of the first so many keys, together
        first = torch.cat([torch.zeros(1, self.size), first])
        values = {"sketch": state.cpu()}
        for name, count in zip(("", "_causal"), keys, strict=True):
            seen = first[count]
            values["ones" + name] = rows.mT @ seen
            values["even" + name] = rows.mT @ (seen * even_of(count)[..., None])
        return Reduced(values | counted.values(), _SKETCHES | AXES)
