"""Weights that are taken apart and put together again on their way from the softmax to the product with the values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch

from hf_attnviz.capturing import scope
from hf_attnviz.capturing.origin import Known, Origin

JOINED: Final = frozenset({"cat", "concat", "concatenate", "stack"})
PARTED: Final = frozenset({"chunk", "split", "split_with_sizes", "tensor_split", "unbind"})


def joined(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    result: torch.Tensor,
    found: Known[Origin],
) -> None:
    """What is put together of weights alone holds weights, too."""
    parts = args[0] if args else kwargs.get("tensors", ())
    origins = [found.get(part) for part in parts]
    known = [origin for origin in origins if origin is not None and origin.stage == "weights" and origin.factor is None]
    if not known or len(known) < len(origins):
        return
    clean = None
    if any(origin.clean is not None for origin in known):
        with torch.no_grad(), scope.deaf():
            undropped = [origin.undropped(part) for origin, part in zip(known, parts, strict=True)]
            rest = {key: value for key, value in kwargs.items() if key not in ("tensors", "out")}
            clean = func(undropped, *args[1:], **rest)
    routes, piece = any(one.routes for one in known), any(one.piece for one in known)
    found.put(result, replace(known[0], shape=result.shape, clean=clean, axis=None, routes=routes, piece=piece))


def parted(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    result: Sequence[torch.Tensor],
    found: Known[Origin],
) -> None:
    """Each part of weights holds weights; those of some queries only are pieces of a map.

    What is cut along the axis of the softmax is no row of attention any more.
    """
    source = args[0] if args else kwargs.get("input")
    origin = found.get(source)
    if source is None or origin is None or origin.stage != "weights" or origin.factor is not None:
        return
    axis = _axis(func.__name__, args, kwargs) % source.dim()
    if axis == (-1 if origin.axis is None else origin.axis) % source.dim():
        return
    cleans: Sequence[torch.Tensor | None] = [None] * len(result)
    if origin.clean is not None:
        with torch.no_grad(), scope.deaf():
            cleans = func(origin.clean, *args[1:], **{k: v for k, v in kwargs.items() if k != "input"})
    piece = origin.piece or axis >= source.dim() - 2
    for part, clean in zip(result, cleans, strict=True):
        found.put(part, replace(origin, clean=clean, piece=piece, shape=part.shape, axis=None))


def written(func: Callable[..., Any], args: tuple[Any, ...], found: Known[Origin]) -> None:
    """A tensor that weights are written into, whole rows of them, holds weights."""
    into, _, source = args
    origin = found.get(source)
    if origin is None or origin.stage != "weights" or origin.factor is not None or origin.piece:
        return
    if not isinstance(into, torch.Tensor) or into.dim() < 3 or into.shape[-1] != source.shape[-1]:
        return
    before = found.get(into)
    clean = None
    if origin.clean is not None or (before is not None and before.clean is not None):
        clean = (into if before is None else before.undropped(into)).detach().clone()
        with torch.no_grad(), scope.deaf():
            func(clean, args[1], origin.undropped(source))
    found.put(into, replace(origin, clean=clean, shape=into.shape, axis=None))


def _axis(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    place = 1 if name == "unbind" else 2
    axis = args[place] if len(args) > place else kwargs.get("dim", 0)
    return int(axis)
