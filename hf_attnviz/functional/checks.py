"""What a tensor must be before anything is computed from it, and what to tell a person when it is not."""

from collections.abc import Iterable

import torch
from torch import Tensor

from hf_attnviz.errors import ArgumentError, ShapeError, UnknownNameError, listed

MAPS = "layer batch head query key"


def check_axes(attention: Tensor, axes: str = MAPS) -> None:
    """Raise unless `attention` is a tensor of floating-point weights with exactly the named axes."""
    names = axes.split()
    wanted = f"attention [{', '.join(names)}]"
    if not isinstance(attention, Tensor):
        raise ArgumentError(
            f"expected a torch.Tensor, {wanted}, got {type(attention).__name__}; "
            "stack a list of layers with torch.stack, wrap an array with torch.as_tensor"
        )
    if attention.ndim != len(names):
        raise ShapeError(
            f"expected {wanted}, got {attention.ndim} axes of sizes {tuple(attention.shape)}; "
            "keep every axis, one of size 1 where there is a single layer, example or head"
        )
    if 0 in attention.shape:
        raise ShapeError(f"expected at least one of everything in {wanted}, got sizes {tuple(attention.shape)}")
    check_floating(attention, "attention")


def check_floating(values: Tensor, name: str) -> None:
    """Raise unless `values` holds real floating-point numbers."""
    if not values.is_floating_point():
        raise ShapeError(f"expected floating-point {name}, got {values.dtype}; pass the weights, or call .float()")


def check_square(attention: Tensor, reason: str) -> None:
    """Raise unless there are as many queries as keys; `reason` completes "… needs the same tokens at both ends"."""
    queries, keys = attention.shape[-2:]
    if queries != keys:
        raise ShapeError(
            f"expected as many queries as keys, got {queries} queries and {keys} keys; "
            f"{reason} needs the same tokens at both ends: pass self-attention of a whole pass"
        )


def check_mask(mask: Tensor | None, name: str, batch: int, length: int, device: torch.device) -> Tensor:
    """Return `mask` `[batch, length]` on `device`, all True for None, or raise."""
    if mask is None:
        return torch.ones(batch, length, dtype=torch.bool, device=device)
    if mask.dtype != torch.bool:
        raise ShapeError(f"expected {name} of dtype torch.bool, got {mask.dtype}; call .bool() on a 0/1 mask")
    if tuple(mask.shape) != (batch, length):
        raise ShapeError(
            f"expected {name} of shape {(batch, length)}, got {tuple(mask.shape)}; "
            "give one row an example and one entry a position, True for real tokens"
        )
    return mask.to(device)


def check_name(value: str, name: str, known: Iterable[str]) -> None:
    """Raise unless `value` is one of the `known` names of the argument `name`."""
    names = list(known)
    if value not in names:
        raise UnknownNameError(f"expected {name} to be one of {listed(names)}; got {value!r}; pick one of the list")


def check_share(value: float, name: str) -> None:
    """Raise unless `value` lies in [0, 1]."""
    if not 0.0 <= value <= 1.0:
        raise ArgumentError(f"expected {name} between 0 and 1, got {value}; it is a share, not a percentage")


def upcast(values: Tensor) -> Tensor:
    """`values` in float32, or as they are in float64: statistics of bf16 weights are not computed in bf16."""
    return values if values.dtype == torch.float64 else values.float()
