"""Which fused pass runs: numba's on the CPU, Triton's on CUDA, where they are installed; else PyTorch's."""

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
from hf_attnviz.language import Text
from hf_attnviz.reducing import fused_torch
from hf_attnviz.reducing.ran import Places, Ran
from hf_attnviz.reducing.tile import Sums

Score = Callable[[Tensor, int, Any, slice, slice], None]
"""``score(scores, batch, head, rows, keys)``: adds raw scores ``[row, key]`` to the sums, and may turn them
into weights, in place. PyTorch's takes a slice of heads, too, with scores ``[head, row, key]``."""

_TRITON_ON = frozenset({"cuda"})


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
        get = "pip install 'hf-attnviz[fast]'"
        _slower(
            Text(
                f"some 10 % slower: numba is not at hand ({problem}); get it with: {get}",
                f"约慢 10 %：没有可用的 numba（{problem}）；安装方法：{get}",
            )
        )
        return None
    return found


@functools.cache
def _triton() -> Any:
    try:
        return importlib.import_module("hf_attnviz.reducing.fused_triton")
    except Exception as problem:
        get = "pip install 'hf-attnviz[gpu]'"
        _slower(
            Text(
                f"several times slower: triton is not at hand ({problem}); get it with: {get}",
                f"慢数倍：没有可用的 triton（{problem}）；安装方法：{get}",
            )
        )
        return None


def _slower(why: Text) -> None:
    said = Text(
        f"statistics without the matrix run in plain PyTorch, {why.en}",
        f"不建矩阵的统计量改由纯 PyTorch 计算，{why.zh}",
    )
    warnings.warn(str(said), SlowerWarning, stacklevel=3)


def native(device: torch.device) -> bool:
    """Whether the fast pass runs here, as far as one can tell before it has."""
    if not _chosen.native:
        return False
    if device.type in _TRITON_ON:
        return _triton() is not None and not _failed
    return device.type == "cpu" and _numba() is not None


def at_once(ran: Ran, places: Places, sums: Sums, knows: bool) -> bool:
    """All sums of a call in one go, where there are kernels for that; whether they are done.

    Args:
        knows: whether ``ran.lse`` is filled in; else it is, on the way.
    """
    if ran.query.device.type not in _TRITON_ON or not native(ran.query.device) or not _triton().takes(ran):
        return False
    try:
        _triton().fused(ran, places, sums, knows)
    except Exception as problem:  # a compiler that is missing or broken, a chip too small: the tiles always run
        _failed.append(problem)
        what = f"{type(problem).__name__}: {problem}"
        _slower(
            Text(
                f"several times slower: triton is at hand, and failed ({what})",
                f"慢数倍：有 triton，但运行失败（{what}）",
            )
        )
        for sum_of in (sums.entropy, sums.distance, sums.sink, sums.mass, sums.received):
            sum_of.zero_()
    return not _failed


_failed: list[Exception] = []


def exact(tensor: Tensor) -> Tensor:
    """Queries or keys in a type whose products are not rounded to ten bits: matrix units of accelerators may do that
    to float32, where torch was told that it may, and to half precision it does no harm."""
    matmul, narrow = torch.backends.cuda.matmul, tensor.dtype != torch.float32
    told = getattr(matmul, "fp32_precision", None) or ("tf32" if matmul.allow_tf32 else "none")
    rounds = tensor.device.type == "cuda" and told == "tf32"
    return tensor.float() if narrow or not rounds else tensor.double()


def on_tiles(device: torch.device) -> Any | None:
    """What reducers do with tiles, in numba (:mod:`hf_attnviz.reducing.tiles_numba`); None where it does not run."""
    return importlib.import_module("hf_attnviz.reducing.tiles_numba") if native(device) else None


def pass_over(ran: Ran, places: Places, sums: Sums, *, write: bool) -> Score:
    """The pass for one call: it reads scores tile by tile, in any order, and fills ``sums``.

    Args:
        write: whether the weights are wanted too; then they stand where the scores stood.
    """
    make = _with_numba if ran.query.device.type == "cpu" and native(ran.query.device) else _with_torch
    return make(ran, places, sums, write)


def _begins(ran: Ran, places: Places, b: int, rows: slice, keys: slice) -> tuple[int, int]:
    """Counted from a tile's first key: where the sequence's first key stands, and the last that its first row may see;
    -1 each where it stands elsewhere, or nothing bounds it."""
    return (
        places.first[b] - keys.start if places.first[b] >= 0 else -1,
        rows.start - keys.start if ran.causal else -1,
    )


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
        fused(
            scores.numpy(),
            scale,
            none if mask is None else mask.float().numpy(),
            lse[b, h, rows],
            counted[b, rows],
            stands[b, rows],
            at[b, keys],
            *_begins(ran, places, b, rows, keys),
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

    def score(scores: Tensor, b: int, h: int | slice, rows: slice, keys: slice) -> None:
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
            *_begins(ran, places, b, rows, keys),
            sums.entropy[b, h, rows],
            sums.distance[b, h, rows],
            sums.sink[b, h, rows],
            sums.mass[b, h, rows],
            sums.received[b, h, keys],
            write,
        )

    return score
