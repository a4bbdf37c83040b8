"""The rows of a generation as they come: what each says by itself, and how far it is from the row before."""

import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad

from hf_attnviz.axes import BATCH, HEAD, KEY, QUERY
from hf_attnviz.functional.evolution import drift, of_row
from hf_attnviz.reduced import Reduced
from hf_attnviz.reducing.carried import Carried, Luggage
from hf_attnviz.reducing.ran import Places
from hf_attnviz.reducing.tile import Tile

_ROWS = (BATCH, HEAD, QUERY)
_ARGMAX = "argmax"


@dataclass(frozen=True)
class Evolution:
    """Numbers of each row that put out a token, made when it is there; of a row before, only the last is remembered.

    Each ``[head, query]``, by the names of :func:`hf_attnviz.functional.evolution`: lookback_ratio (Chuang et al.,
    "Lookback Lens", 2024), prompt_mass, entropy, first_token, self_token, drift, argmax (the key, -1: none) … In
    cross-attention those that need neither a prompt nor the row's own place. NaN for the rows of a prompt but its last
    (or the last of each chunk of it), which are not worked out, and for the drift of that one. With drafts, some of
    whose rows are rejected, it is refused.
    """

    name: str = "evolution"
    needs: frozenset[str] = frozenset({"rows", "before"})

    @property
    def queries(self) -> Sequence[int]:
        """Which rows of each forward are read, counted from its end."""
        return (-1,)

    def places(self, places: Places) -> Tensor:
        """The rows of a call that put out a token in any of its sequences ``[row]``."""
        return _putting_out(places).any(0).nonzero()[:, 0]

    def update(self, state: "Carried | Rows | None", tile: Tile) -> "Rows":
        """The numbers of the rows of a tile."""
        if not isinstance(state, Rows):
            state = Rows.of(tile, None if state is None else state.before)
        rows = torch.arange(tile.shape[2])[tile.rows]
        wanted, ends = _putting_out(tile.places), tile.places.keys.amax(1).tolist()
        for n in wanted[:, rows].any(0).nonzero()[:, 0].tolist():
            row = int(rows[n])
            alike: dict[tuple[int, int, int], list[int]] = defaultdict(list)
            for b in wanted[:, row].nonzero()[:, 0].tolist():
                place = int(tile.places.queries[b, row])
                keys = place + 1 if tile.places.standing else ends[b] + 1
                alike[place, int(tile.places.prompts[b]), keys].append(b)
            for (place, prompt, keys), sequences in alike.items():
                state.add(sequences, row, tile.weights[sequences, :, n], place, prompt, keys)
        return state

    def carry(self, state: "Rows") -> Luggage:
        """The last row of each sequence, and its place."""
        return {"row": state.last, "place": state.place}

    def result(self, state: "Rows") -> Reduced:
        """The numbers of all rows."""
        return Reduced(state.values, dict.fromkeys(state.values, _ROWS), {_ARGMAX: KEY})


def _putting_out(places: Places) -> Tensor:
    """The rows that put out a token: a prompt's last and all after it ``[batch, row]``."""
    return places.counted & (places.queries >= places.prompts[:, None] - 1)


@functools.cache
def _names(standing: bool) -> tuple[str, ...]:
    return (*of_row(torch.ones(1), 1 if standing else None), "drift")


@dataclass(eq=False)
class Rows:
    """The rows of one call under way.

    Attributes:
        last: ``[batch, head, place]``, the newest row of each sequence, filled up with zeros.
        place: ``[batch]``, where that row stands; -2: there is none.
        values: ``[batch, head, query]`` by name.
    """

    places: Places
    shape: torch.Size
    last: Tensor
    place: Tensor
    values: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, tile: Tile, before: Luggage | None) -> "Rows":
        """Before the first row of a call."""
        batch, heads = tile.shape[:2]
        width = int(tile.places.keys.max()) + 1
        if before is None:
            last = torch.zeros(batch, heads, width, device=tile.weights.device)
            place = torch.full((batch,), -2)
        else:
            row, place = before["row"], before["place"].clone()
            last = pad(row, (0, max(0, width - row.shape[-1])))
        found = cls(tile.places, tile.shape, last.clone(), place)
        found.values.update({name: found._nothing(name) for name in _names(tile.places.standing)})
        return found

    def add(self, sequences: list[int], row: int, weights: Tensor, place: int, prompt: int, keys: int) -> None:
        """One row of sequences in which it stands at one place, over as many keys ``[sequence, head, key]``."""
        standing = self.places.standing
        placed = self._placed(sequences, weights)[..., :keys]
        numbers = {name: one[0] for name, one in of_row(placed[None], prompt if standing else None).items()}
        numbers["drift"] = torch.full_like(numbers["entropy"], torch.nan)
        known = (self.place[sequences] == place - 1) & (place >= prompt)
        if bool(known.any()):
            older = self.last[sequences][..., :keys]
            drifted = drift(older, placed)
            numbers["drift"] = torch.where(known[:, None].to(drifted.device), drifted, torch.nan)
        for name, one in numbers.items():
            self.values[name][sequences, :, row] = self._column(sequences, one) if name == _ARGMAX else one
        self.last[sequences] = pad(placed, (0, self.last.shape[-1] - placed.shape[-1]))
        self.place[sequences] = place

    def _nothing(self, name: str) -> Tensor:
        device, whole = self.last.device, self.shape[:3]
        if name == _ARGMAX:
            return torch.full(whole, -1, dtype=torch.int32, device=device)
        return torch.full(whole, torch.nan, device=device)

    def _placed(self, sequences: list[int], weights: Tensor) -> Tensor:
        """``[sequence, head, key]`` by place, in float32 or better."""
        at = self.places.keys[sequences]
        weights = weights.float()
        if torch.equal(at, torch.arange(at.shape[1]).expand_as(at)):
            return weights
        weights = weights.masked_fill((at < 0)[:, None].to(weights.device), 0)
        index = at.clamp(min=0)[:, None].expand(-1, weights.shape[1], -1).to(weights.device)
        return weights.new_zeros(*weights.shape[:2], int(at.max()) + 1).scatter_add_(2, index, weights)

    def _column(self, sequences: list[int], places: Tensor) -> Tensor:
        """In which columns of the call places of keys stand ``[sequence, head]``; -1 stays."""
        at = self.places.keys[sequences].to(places.device)
        column = (at[:, None] == places[..., None]).to(torch.uint8).argmax(-1)
        return torch.where(places < 0, -1, column).int()
