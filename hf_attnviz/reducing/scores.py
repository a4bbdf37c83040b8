"""What each row gives its neighbours, itself, and what stood at or after earlier copies of its token."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attnviz.axes import BATCH, HEAD, QUERY
from hf_attnviz.reduced import Reduced
from hf_attnviz.reducing.tile import NOTHING, Sums, Tile

_OFFSETS = {"previous_token": -1, "self_token": 0, "next_token": 1}
_COPIES = {"duplicate_token": 0, "induction": 1}  # by how much the key stands after the copy
_NAMES = (*_OFFSETS, *_COPIES)


@dataclass(frozen=True)
class Scores:
    """Five weights of each row, each ``[head, query]``.

    ``previous_token``, ``self_token`` and ``next_token``: on the key before the row's own, on it, and after it;
    ``duplicate_token``: on all earlier copies of the row's token; ``induction``: on all keys that follow one of them
    (:func:`hf_attnviz.functional.induction_score`, "all_copies").

    NaN: there is no such key (the first row has none before it; a row with no copy); a row that looks at nothing;
    ``next_token`` of a pass in which no row gives its next key anything, for a mask forbids it; the last two where the
    token ids of a sequence are not known, as for patches of pictures; all in cross-attention, whose rows stand on none
    of the keys. Keys that a window has let go of have no weight, and 0 is theirs. :func:`hf_attnviz.head_roles` makes
    means of them.
    """

    name: str = "scores"
    needs: frozenset[str] = frozenset({"weights", "sums", "tokens"})

    def update(self, state: Tensor | None, tile: Tile) -> "Tensor | Reduced":
        """Pick the weights of a tile's rows; at the end of a call, tell which of them mean nothing."""
        if state is None:
            device = tile.weights.device if tile.given is None else tile.given.mass.device
            state = torch.full((len(_NAMES), *tile.shape[:3]), torch.nan, device=device)
        if tile.given is not None:
            return _told(state, tile, tile.given)
        if tile.places.standing:
            here = state[:, tile.batch, :, tile.rows]
            for n, name in enumerate(_NAMES):
                rows, at = _beside(tile, _OFFSETS[name]) if name in _OFFSETS else _copied(tile, _COPIES[name])
                here[n, 0] = _on(tile, rows, at)
        return state

    def result(self, state: Reduced) -> Reduced:
        """The five, by name."""
        return state


def _beside(tile: Tile, offset: int) -> tuple[Tensor, Tensor]:
    """The rows that have a key so far from their own, and its place."""
    stands = tile.positions[0]
    there = (stands >= 0) & (stands + offset >= 0) & (stands + offset < tile.lengths[0])
    rows = there.nonzero()[:, 0]
    return rows, stands[rows] + offset


def _copied(tile: Tile, after: int) -> tuple[Tensor, Tensor]:
    """The rows with earlier copies of their token, one entry for each copy, and the place so far after it."""
    stands = tile.positions[0]
    if tile.places.tokens is None or not len(stands) or int(stands.max()) < 0:
        return stands.new_empty(0), stands.new_empty(0)
    known = tile.places.tokens[tile.batch.start]
    tokens = known[stands.clamp_min(0)]
    before = torch.arange(int(stands.max()))
    same = (tokens[:, None] == known[: len(before)]) & (before < stands[:, None]) & (tokens >= 0)[:, None]
    rows, places = same.nonzero(as_tuple=True)
    return rows, places + after


def _on(tile: Tile, rows: Tensor, places: Tensor) -> Tensor:
    """The weight of each row on the places named beside it, ``[head, row]``; NaN for rows that are not named."""
    at = tile.places.keys[tile.batch, tile.keys][0]
    columns = torch.full((2 + max(int(tile.lengths[0].amax()), int(at.amax())),), -1)
    real = at >= 0
    columns[at[real]] = real.nonzero()[:, 0]
    found, device = columns[places], tile.weights.device
    seen = found >= 0
    weights = tile.weights[0][:, rows[seen].to(device), found[seen].to(device)]
    total = weights.new_zeros(weights.shape[0], tile.weights.shape[2]).index_add_(1, rows[seen].to(device), weights)
    named = torch.zeros(total.shape[1], dtype=torch.bool).index_fill_(0, rows, True)
    return total.masked_fill(~named.to(device), torch.nan)


def _told(state: Tensor, tile: Tile, sums: Sums) -> Reduced:
    unseen = sums.mass.isnan() | (tile.places.queries < 0).to(state.device)[:, None]
    values = dict(zip(_NAMES, state.masked_fill(unseen, torch.nan), strict=True))
    following = values["next_token"]
    forbidden = ~(following > NOTHING).flatten(1).any(1) if not tile.causal else torch.ones(len(following)).bool()
    values["next_token"] = following.masked_fill(forbidden.to(state.device)[:, None, None], torch.nan)
    return Reduced(values, dict.fromkeys(_NAMES, (BATCH, HEAD, QUERY)))
