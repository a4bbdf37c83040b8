"""A tile: some rows of one attention call over the keys that they may see, and what the fused pass made of a call."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from hf_attnviz.reducing.ran import Places

ROWS = 128  # rows of a tile: with 4,096 keys and one head its scores fit into the L2 cache of one core
NOTHING = 1e-36  # no larger a weight is any: the pass never goes below e^-87, also where a mask forbids


_BY_ROW = ("entropy", "distance", "sink", "mass")


@dataclass(frozen=True, eq=False)
class Sums:
    """What one pass over the scores gives, whatever is kept.

    Attributes:
        entropy: ``[batch, head, query]``, nats.
        distance: ``[batch, head, query]``, the mean number of places between a row and what it looks at.
        sink: ``[batch, head, query]``, the weight on the first valid key.
        mass: ``[batch, head, query]``, the sum of the row: 1, or the row is not understood.
        received: ``[batch, head, key]``, what each key is given by the rows that count.
    """

    entropy: Tensor
    distance: Tensor
    sink: Tensor
    mass: Tensor
    received: Tensor

    @classmethod
    def empty(cls, shape: torch.Size, device: torch.device | None = None) -> "Sums":
        """Zeros for a call of ``[batch, head, query, key]``."""
        batch, heads, queries, keys = shape
        rows = {name: torch.zeros(batch, heads, queries, device=device) for name in _BY_ROW}
        return cls(**rows, received=torch.zeros(batch, heads, keys, device=device))


def spanned(allowed: Tensor, start: int) -> Tensor:
    """The first and the last True column of ``[batch, row, key]``, counted from ``start``; -1 where others lie between
    them, or there is none."""
    some = allowed.to(torch.uint8)
    first, count = some.argmax(-1), allowed.sum(-1)
    last = allowed.shape[-1] - 1 - some.flip(-1).argmax(-1)
    whole = (count > 0) & (last - first + 1 == count)
    return torch.stack([first, last], -1).add_(start).masked_fill_(~whole[..., None], -1)


@dataclass(frozen=True, eq=False)
class Tile:
    """Some rows of one attention call.

    Attributes:
        weights: ``[batch, head, row, key]``: of the sequences ``batch``, the rows ``rows``, the keys ``keys``; whatever
            they may not see is left out of ``keys``, or no more than :data:`NOTHING`; so are all weights of padding, of
            rows that look at nothing, and on padding. Empty where no reducer needs weights.
        places: where all rows and columns of the call stand.
        shape: that of the whole call's weights.
        batch, rows, keys: which part of it this is; ``rows`` may be chosen ones ``[row]``.
        vectors: ``query`` ``[batch, head, query, size]`` times the model's scaling, ``key`` and ``value``
            ``[batch, key_value_head, key, size]``, ``output`` ``[batch, head, query, size]``; those that are seen.
        given: the sums over the whole call; with the last tile of it only.
        causal: whether no row of the call looks ahead; None where only the weights tell.
        told: gives :attr:`spans` where a mask tells them; None where only the weights tell.
    """

    weights: Tensor
    places: Places
    shape: torch.Size
    batch: slice = field(default_factory=lambda: slice(None))
    rows: slice | Tensor = field(default_factory=lambda: slice(None))
    keys: slice = field(default_factory=lambda: slice(None))
    vectors: Mapping[str, Tensor] = field(default_factory=dict)
    given: Sums | None = None
    causal: bool | None = None
    told: Callable[[], Tensor] | None = None

    @cached_property
    def spans(self) -> Tensor:
        """The first and the last column of the call that each row may see ``[batch, row, 2]``; -1 where it may see
        none, or not all between them. Of weights alone: the columns to which any head gives anything."""
        if self.told is not None:
            return self.told()
        return spanned((self.weights != 0).any(1), self.keys.start or 0)

    @cached_property
    def positions(self) -> Tensor:
        """The place of each row ``[batch, row]``; -1 for padding."""
        return self.places.queries[self.batch, self.rows]

    @cached_property
    def counted(self) -> Tensor:
        """Which rows sums count ``[batch, row]``."""
        return self.places.counted[self.batch, self.rows]

    @property
    def lengths(self) -> Tensor:
        """How long each sequence was after the pass of each row ``[batch, row]``."""
        return self.places.lengths[self.batch, self.rows]
