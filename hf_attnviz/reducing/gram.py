"""What correlations between the heads of a layer are made of: their products, summed over all pairs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attnviz.axes import BATCH, HEAD, OTHER_HEAD
from hf_attnviz.reduced import Reduced
from hf_attnviz.reducing.counting import AXES, Counted, ahead, even_of, keys_before, keys_of
from hf_attnviz.reducing.passes import on_tiles
from hf_attnviz.reducing.tile import Tile

_HEADS = (BATCH, HEAD, OTHER_HEAD)
_PRODUCTS = {"products": _HEADS, "products_centred": _HEADS, "products_centred_causal": _HEADS}


@dataclass(eq=False)
class _State:
    """``found`` ``[batch, head, other_head]``: Σ (a − 1/n)·(b − 1/n), with the n ``keys`` ``[batch, query]``, 0 for
    rows that do not count; ``looks_ahead`` ``[batch]``: whether rows so far did."""

    found: Tensor
    keys: Tensor
    looks_ahead: list[bool]


@dataclass(frozen=True)
class Gram:
    """How alike the heads of each layer are, in sums that no length of the text makes larger.

    Over the pairs of rows that count and keys that they may see: ``products`` Σ a·b, ``products_centred`` Σ
    (a − 1/n)·(b − 1/n) with n the keys that the sequence had by then, and ``products_centred_causal`` the same if a row
    has no key after its own place, ``[head, other_head]``; ``mass`` and ``sink`` ``[head]``, the sum of all weights and
    of those on the first key; ``rows``, ``pairs`` and ``pairs_causal``, how many these are. All are sums: those of
    decoding steps, and of texts, are added. :func:`hf_attnviz.head_correlation` makes Pearson's r and cosines of them,
    within each layer.
    """

    name: str = "gram"
    needs: frozenset[str] = frozenset({"weights", "sums"})

    def update(self, state: _State | None, tile: Tile) -> "_State | Reduced":
        """Add the products of a tile; at the end of a call, tell them in each of the three ways."""
        batch, heads, queries, _ = tile.shape
        if state is None:
            none = torch.zeros(batch, heads, heads, dtype=torch.float64)
            state = _State(none, torch.zeros(batch, queries, dtype=torch.long), [False] * batch)
        if tile.given is not None:
            return _told(state, Counted.of(tile.places, tile.given))
        _add(state, tile)
        return state

    def result(self, state: Reduced) -> Reduced:
        """The sums, by name."""
        return state


def _add(state: _State, tile: Tile) -> None:
    """Products are taken of weights minus an even share, for heads that are nearly even differ in that alone."""
    b = tile.batch.start
    state.looks_ahead[b] = state.looks_ahead[b] or ahead(tile)
    of = keys_of if state.looks_ahead[b] else keys_before
    keys = of(tile.places)[b, tile.rows] * (tile.counted[0] & (tile.positions[0] >= 0))
    reach = _reach(tile, all_keys=state.looks_ahead[b]) * (keys > 0)
    found = _products(tile.weights[0], even_of(keys), reach)
    state.found[b] += found + _squares(keys - reach, keys).sum()  # keys that were not read have no weight
    state.keys[b, tile.rows] = keys


def _reach(tile: Tile, *, all_keys: bool) -> Tensor:
    """From how many of a tile's keys, for each row, something is to be subtracted ``[row]``."""
    at = tile.places.keys[tile.batch, tile.keys][0]
    if all_keys or not tile.places.standing:
        return torch.full_like(tile.positions[0], len(at))
    # nothing that fills up a sequence lies between its keys: places only grow
    return torch.searchsorted(at.cummax(0).values, tile.positions[0].contiguous(), right=True)


def _products(weights: Tensor, even: Tensor, reach: Tensor) -> Tensor:
    """Σ (a − even)·(b − even) over the first ``reach`` keys of each row, of ``[head, row, key]``: in float64."""
    tools = on_tiles(weights.device)
    if tools is not None:
        found = torch.zeros(len(weights), len(weights), dtype=torch.float64)
        tools.products(weights.numpy(), even.numpy(), reach.numpy(), found.numpy())
        return found.triu() + found.triu(1).T
    counts = reach > 0
    device = weights.device
    within = torch.arange(weights.shape[2]) < reach[counts, None]
    shares = (even[counts, None] * within).to(device)
    apart = weights[:, counts.to(device)] - shares
    by_row = apart.transpose(0, 1)  # a product a row: what is added up in float32 stays short
    return (by_row @ by_row.mT).double().sum(0).cpu()


def _told(state: _State, counted: Counted) -> Reduced:
    # where rows turned out to look at nothing, all products are of shares
    lost = state.keys * (1 - counted.rows).long()
    found, keys = state.found - _squares(lost, lost).sum(1)[:, None, None], state.keys - lost
    values = {"products": found + _shared(keys, counted)}
    for name, wanted in (("products_centred", counted.keys), ("products_centred_causal", counted.keys_causal)):
        same = torch.equal(wanted.long(), keys)
        values[name] = found if same else values["products"] - _shared(wanted, counted)
    return Reduced(values | counted.values(), _PRODUCTS | AXES)


def _shared(keys: Tensor, counted: Counted) -> Tensor:
    """By how much Σ a·b is more than Σ (a − 1/n)·(b − 1/n), with these n: ``[batch, head, other_head]``."""
    parts = (counted.mass * even_of(keys).double()[:, None]).sum(2)
    return parts[:, :, None] + parts[:, None, :] - _squares(keys, keys).sum(1)[:, None, None]


def _squares(count: Tensor, keys: Tensor) -> Tensor:
    """So many times the square of an even share among the keys."""
    return count * even_of(keys).double() ** 2
