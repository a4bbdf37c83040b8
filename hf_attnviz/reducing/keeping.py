"""What reducers keep of one call: over tiles of a kernel's call, or over weights that stand in memory anyway.

What is kept stays on the device where the model ran; where rows and columns stand (``Places``) is known on the CPU.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from hf_attnviz.reducing.carried import CARRYING, Carriage
from hf_attnviz.reducing.ran import Places, Ran
from hf_attnviz.reducing.reducer import Choosing, Reducer
from hf_attnviz.reducing.rows import Maps
from hf_attnviz.reducing.statistics import sums_of
from hf_attnviz.reducing.sweep import chosen, spans_of, sweep
from hf_attnviz.reducing.tile import ROWS, Tile

_TILED = frozenset({"weights", "sums"})
_EMPTY = torch.empty(0)


def tileable(reducers: Sequence[Reducer[Any]]) -> bool:
    """Whether none of these reducers wants all weights of a call at once."""
    return not any("maps" in reducer.needs for reducer in reducers)


def over_tiles(
    reducers: Sequence[Reducer[Any]],
    ran: Ran,
    places: Places,
    vectors: Mapping[str, Tensor],
    carriage: Carriage | None = None,
) -> dict[str, Any]:
    """What the reducers keep of a kernel's call, by name; its matrix is never built.

    Raises:
        NotUnderstoodError: the kernel did something else than was read off its arguments.
    """
    kept, carriage = _of_vectors(reducers, ran.shape, places, vectors), carriage or Carriage()
    for one in reducers:
        if "rows" in one.needs:
            rows = cast(Choosing[Any], one).places(places)
            kept[one.name] = carriage.ended(one, one.update(carriage.begun(one), chosen(ran, places, rows)))
    tiled = [one for one in reducers if one.needs & _TILED]
    if tiled:
        kept |= _fed(tiled, sweep(ran, places, weights=any("weights" in one.needs for one in tiled)), carriage)
    return kept


def over_weights(
    reducers: Sequence[Reducer[Any]],
    weights: Tensor,
    places: Places,
    vectors: Mapping[str, Tensor],
    carriage: Carriage | None = None,
    ran: Ran | None = None,
    attending: Tensor | None = None,
) -> dict[str, Any]:
    """The same of weights as they stand in memory; those in a layout of the model's own are kept, and not reduced.

    ran: the kernel's call that they are of, where it is known: its mask tells what a row may see.
    attending: ``[batch or 1, head or 1, query]``, False for rows that may look at nothing; None: all may.
    """
    kept, carriage = _of_vectors(reducers, weights.shape, places, vectors), carriage or Carriage()
    whole = Tile(weights, places, weights.shape, vectors=vectors)
    for one in reducers:
        gathered = one.needs & {"maps", "rows"} or isinstance(one, Maps)
        if gathered and (weights.dim() == 4 or not one.needs & CARRYING):
            kept[one.name] = carriage.ended(one, one.update(carriage.begun(one), whole))
    tiled = [one for one in reducers if one.needs & _TILED and not isinstance(one, Maps)]
    if tiled and weights.dim() == 4:
        wanted = any("weights" in one.needs for one in tiled)
        kept |= _fed(tiled, _blocks(weights, places, wanted, ran, attending), carriage)
    return kept


def _of_vectors(
    reducers: Sequence[Reducer[Any]], shape: torch.Size, places: Places, vectors: Mapping[str, Tensor]
) -> dict[str, Any]:
    """What reducers keep that read vectors alone."""
    tile = Tile(_EMPTY, places, shape, vectors=vectors)
    return {one.name: one.result(one.update(None, tile)) for one in reducers if one.needs == {"vectors"}}


def _fed(reducers: Sequence[Reducer[Any]], tiles: Iterator[Tile], carriage: Carriage) -> dict[str, Any]:
    states: dict[str, Any] = {one.name: carriage.begun(one) for one in reducers}
    for tile in tiles:
        for one in reducers:
            if ("weights" if tile.given is None else "sums") in one.needs:
                states[one.name] = one.update(states[one.name], tile)
    return {one.name: carriage.ended(one, states[one.name]) for one in reducers}


def _blocks(weights: Tensor, places: Places, wanted: bool, ran: Ran | None, attending: Tensor | None) -> Iterator[Tile]:
    """Tiles of weights that stand in memory, and the sums over them."""
    keys = slice(0, weights.shape[-1])
    for b in range(len(weights) if wanted else 0):
        for start in range(0, weights.shape[2], ROWS):
            rows = slice(start, min(start + ROWS, weights.shape[2]))
            part = _sound(weights[b : b + 1, :, rows].float(), places.queries[b, rows] >= 0, places.keys[b] >= 0)
            if attending is not None:
                part = part.masked_fill(~attending[b if len(attending) > 1 else 0, :, rows, None], 0)
            told = None if ran is None else partial(spans_of, ran, b, rows, keys)
            yield Tile(part, places, weights.shape, slice(b, b + 1), rows, keys, told=told)
    yield Tile(_EMPTY, places, weights.shape, given=sums_of(weights, places, attending))


def _sound(weights: Tensor, rows: Tensor, keys: Tensor) -> Tensor:
    """Weights without those of padding, on padding, and of rows that look at nothing."""
    none = weights.isnan().any(-1, keepdim=True) | ~rows.to(weights.device)[:, None] | ~keys.to(weights.device)
    return weights.masked_fill(none, 0).contiguous()
