"""Which fused pass runs: numba's where it is installed and the tensors are on the CPU, else PyTorch's."""

import functools
import importlib
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_attnviz.errors import SlowerWarning
from hf_attnviz.reducing import fused_torch
from hf_attnviz.reducing.ran import Places, Ran
from hf_attnviz.reducing.tile import Sums

Score = Callable[[Tensor, int, int, slice, slice], None]
"""``score(scores, batch, head, rows, keys)``: adds raw scores ``[row, key]`` to the sums, and may turn them
into weights, in place."""


class _Chosen(threading.local):
    native = True


_chosen = _Chosen()


@contextmanager
def pure() -> Iterator[None]:
    """Inside, this thread takes the pass in plain PyTorch, whatever is installed."""
    before, _chosen.native = _chosen.native, False
    try:
        yield
    finally:
        _chosen.native = before


@functools.cache
def _numba() -> Callable[..., None] | None:
    try:
        found: Callable[..., None] = importlib.import_module("hf_attnviz.reducing.fused_numba").fused
    except Exception as problem:  # missing, or broken on this machine: the other pass gives the same numbers
        warnings.warn(
            f"statistics without the matrix run in plain PyTorch, some 10 % slower: numba is not at hand ({problem}); "
            "get it with: pip install 'hf-attnviz[fast]'",
            SlowerWarning,
            stacklevel=2,
        )
        return None
    return found


def native(device: torch.device) -> bool:
    """Whether the fast pass runs here."""
    return device.type == "cpu" and _chosen.native and _numba() is not None


def on_tiles(device: torch.device) -> Any | None:
    """What reducers do with tiles, in numba (:mod:`hf_attnviz.reducing.tiles_numba`); None where it does not run."""
    return importlib.import_module("hf_attnviz.reducing.tiles_numba") if native(device) else None


def pass_over(ran: Ran, places: Places, sums: Sums, *, write: bool) -> Score:
    """The pass for one call: it reads scores tile by tile, in any order, and fills ``sums``.

    Args:
        write: whether the weights are wanted too; then they stand where the scores stood.
    """
    make = _with_numba if native(ran.query.device) else _with_torch
    return make(ran, places, sums, write)


def _with_numba(ran: Ran, places: Places, sums: Sums, write: bool) -> Score:
    fused, scale = _numba(), np.float32(ran.scale)
    assert fused is not None
    assert ran.lse is not None
    lse = ran.lse.float().contiguous().numpy()
    counted, stands = places.counted.numpy(), places.queries.float().numpy()
    at, none = places.keys.float().numpy(), np.empty((1, 0), np.float32)
    entropy, distance, sink, mass, received = (
        getattr(sums, name).numpy() for name in ("entropy", "distance", "sink", "mass", "received")
    )

    def score(scores: Tensor, b: int, h: int, rows: slice, keys: slice) -> None:
        mask = ran.masking(b, h, rows, keys)
        first = places.first[b] - keys.start if places.first[b] >= 0 else -1
        fused(
            scores.numpy(),
            scale,
            none if mask is None else mask.float().numpy(),
            lse[b, h, rows],
            counted[b, rows],
            stands[b, rows],
            at[b, keys],
            first,
            rows.start - keys.start if ran.causal else -1,
            entropy[b, h, rows],
            distance[b, h, rows],
            sink[b, h, rows],
            mass[b, h, rows],
            received[b, h, keys],
            write,
        )

    return score


def _with_torch(ran: Ran, places: Places, sums: Sums, write: bool) -> Score:
    device = ran.query.device
    assert ran.lse is not None
    lse = ran.lse.float()
    counted, stands, at = (tensor.to(device, torch.float32) for tensor in (places.counted, places.queries, places.keys))
    known: dict[Any, Tensor] = {}  # of the last block alone: how far apart its rows and keys are, in every head

    def score(scores: Tensor, b: int, h: int, rows: slice, keys: slice) -> None:
        block = (b, rows.start, rows.stop, keys.start, keys.stop)
        if block not in known:
            known.clear()
            known[block] = (stands[b, rows, None] - at[b, None, keys]).abs_()
        mask = ran.masking(b, h, rows, keys)
        fused_torch.fused(
            scores,
            ran.scale,
            mask if mask is None else mask.float(),
            lse[b, h, rows],
            counted[b, rows],
            known[block],
            places.first[b] - keys.start if places.first[b] >= 0 else -1,
            rows.start - keys.start if ran.causal else -1,
            sums.entropy[b, h, rows],
            sums.distance[b, h, rows],
            sums.sink[b, h, rows],
            sums.mass[b, h, rows],
            sums.received[b, h, keys],
            write,
        )

    return score
