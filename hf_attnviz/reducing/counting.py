"""What sums over (query, key) pairs are divided by: rows and pairs that count, and the mass of each head on them.

A row counts once, when it is no padding and looks at something. Its pairs are the keys of its sequence, all of them or
those up to its own place: which of the two is right, the whole sequence tells in the end, so both are kept.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attnviz.axes import BATCH, HEAD
from hf_attnviz.reducing.ran import Places
from hf_attnviz.reducing.tile import NOTHING, Sums, Tile

AXES = {
    "rows": (BATCH,),
    "pairs": (BATCH,),
    "pairs_causal": (BATCH,),
    "mass": (BATCH, HEAD),
    "sink": (BATCH, HEAD),
}


@dataclass(frozen=True, eq=False)
class Counted:
    """The rows of a call that count, in float64.

    Attributes:
        rows: ``[batch, query]``, 1 for a row that counts, else 0.
        keys, keys_causal: ``[batch, query]``, how many keys a row may see, if causality does not matter, and if it
            does; 0 for rows that do not count.
        mass, sink: ``[batch, head, query]``, the sum of each row and its weight on the first key; 0 where rows do not
            count.
    """

    rows: Tensor
    keys: Tensor
    keys_causal: Tensor
    mass: Tensor
    sink: Tensor

    @classmethod
    def of(cls, places: Places, sums: Sums) -> "Counted":
        """Those of a call, of which the sums are known."""
        mass, sink = (one.double().cpu() for one in (sums.mass, sums.sink))
        counts = places.counted & (places.queries >= 0) & ~mass.isnan().all(1)
        rows = counts.double()
        keys, causal = (one.double() * rows for one in (keys_of(places), keys_before(places)))
        mass, sink = (one.nan_to_num(0) * rows[:, None] for one in (mass, sink))
        return cls(rows, keys, causal, mass, sink)

    def values(self) -> dict[str, Tensor]:
        """Their sums, by the names of :data:`AXES`."""
        return {
            "rows": self.rows.sum(1),
            "pairs": self.keys.sum(1),
            "pairs_causal": self.keys_causal.sum(1),
            "mass": self.mass.sum(2),
            "sink": self.sink.sum(2),
        }


def even_of(keys: Tensor) -> Tensor:
    """The weight of each of so many keys in an even row, as float32 has it; 0 where there are none."""
    return torch.where(keys > 0, 1 / keys, 0).float()


def keys_of(places: Places) -> Tensor:
    """How many keys each sequence has, those that a window has let go of too, for each row ``[batch, query]``."""
    last = torch.nn.functional.pad(places.keys, (1, 0), value=-1).amax(1)
    return (last + 1)[:, None].expand(places.queries.shape)


def keys_before(places: Places) -> Tensor:
    """How many keys each row may see if it sees none after its own place ``[batch, query]``; all where it stands on
    none."""
    every = keys_of(places)
    return torch.minimum(places.queries + 1, every) if places.standing else every


def ahead(tile: Tile) -> bool:
    """Whether a row of a tile of one sequence looks at a place after its own."""
    if tile.causal or not tile.places.standing:
        return False
    rows, at = tile.positions[0], tile.places.keys[tile.batch, tile.keys][0]
    if not len(rows) or not bool((rows >= 0).any()):
        return False
    later = at > int(rows[rows >= 0].min())  # columns that lie ahead of none of the rows need no looking at
    part = tile.weights[0][:, :, later.to(tile.weights.device)]
    far = (at[later] > rows[:, None]) & (rows >= 0)[:, None]
    return bool((part.amax(0) > NOTHING).cpu().logical_and(far).any()) if part.numel() else False
