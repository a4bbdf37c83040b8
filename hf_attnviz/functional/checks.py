"""What a tensor must be before anything is computed from it, and what to tell a person when it is not."""

from collections.abc import Iterable

import torch
from torch import Tensor

from hf_attnviz.errors import ArgumentError, ShapeError, UnknownNameError, listed
from hf_attnviz.language import Text, told

MAPS = "layer batch head query key"


def check_axes(attention: Tensor, axes: str = MAPS) -> None:
    """Raise unless `attention` is a tensor of floating-point weights with exactly the named axes."""
    names = axes.split()
    wanted = f"attention [{', '.join(names)}]"
    if not isinstance(attention, Tensor):
        raise ArgumentError(
            Text(
                f"expected a torch.Tensor, {wanted}, got {type(attention).__name__}; "
                "stack a list of layers with torch.stack, wrap an array with torch.as_tensor",
                f"应为 torch.Tensor，{wanted}，得到的是 {type(attention).__name__}；"
                "各层的列表请用 torch.stack 堆叠，数组请用 torch.as_tensor 转换",
            )
        )
    if attention.ndim != len(names):
        raise ShapeError(
            Text(
                f"expected {wanted}, got {attention.ndim} axes of sizes {tuple(attention.shape)}; "
                "keep every axis, one of size 1 where there is a single layer, example or head",
                f"应为 {wanted}，得到 {attention.ndim} 个轴，大小为 {tuple(attention.shape)}；"
                "请保留每个轴，只有一层、一个样本或一个头时该轴长度为 1",
            )
        )
    if 0 in attention.shape:
        raise ShapeError(
            Text(
                f"expected at least one of everything in {wanted}, got sizes {tuple(attention.shape)}",
                f"{wanted} 的每个轴都不应为空，得到的大小为 {tuple(attention.shape)}",
            )
        )
    check_floating(attention, "attention")


def check_floating(values: Tensor, name: Text | str) -> None:
    """Raise unless `values` holds real floating-point numbers."""
    if not values.is_floating_point():
        of = told(name)
        raise ShapeError(
            Text(
                f"expected floating-point {of.en}, got {values.dtype}; pass the weights, or call .float()",
                f"{of.zh} 应为浮点数，得到 {values.dtype}；请传入权重，或调用 .float()",
            )
        )


def check_square(attention: Tensor, reason: Text) -> None:
    """Raise unless there are as many queries as keys; `reason` completes "… needs the same tokens at both ends"."""
    queries, keys = attention.shape[-2:]
    if queries != keys:
        raise ShapeError(
            Text(
                f"expected as many queries as keys, got {queries} queries and {keys} keys; "
                f"{reason.en} needs the same tokens at both ends: pass self-attention of a whole pass",
                f"查询与键应一样多，得到 {queries} 个查询和 {keys} 个键；"
                f"{reason.zh}要求两端是相同的词元：请传入一次完整前向的自注意力",
            )
        )


def check_mask(mask: Tensor | None, name: str, batch: int, length: int, device: torch.device) -> Tensor:
    """Return `mask` `[batch, length]` on `device`, all True for None, or raise."""
    if mask is None:
        return torch.ones(batch, length, dtype=torch.bool, device=device)
    if mask.dtype != torch.bool:
        raise ShapeError(
            Text(
                f"expected {name} of dtype torch.bool, got {mask.dtype}; call .bool() on a 0/1 mask",
                f"{name} 的类型应为 torch.bool，得到 {mask.dtype}；0/1 掩码请调用 .bool()",
            )
        )
    if tuple(mask.shape) != (batch, length):
        raise ShapeError(
            Text(
                f"expected {name} of shape {(batch, length)}, got {tuple(mask.shape)}; "
                "give one row an example and one entry a position, True for real tokens",
                f"{name} 的形状应为 {(batch, length)}，得到 {tuple(mask.shape)}；"
                "每个样本一行，每个位置一项，真实词元处为 True",
            )
        )
    return mask.to(device)


def check_name(value: str, name: str, known: Iterable[str]) -> None:
    """Raise unless `value` is one of the `known` names of the argument `name`."""
    names = list(known)
    if value not in names:
        raise UnknownNameError(
            Text(
                f"expected {name} to be one of {listed(names)}; got {value!r}; pick one of the list",
                f"{name} 应为 {listed(names)} 之一；得到 {value!r}；请从中选择",
            )
        )


def check_share(value: float, name: str) -> None:
    """Raise unless `value` lies in [0, 1]."""
    if not 0.0 <= value <= 1.0:
        raise ArgumentError(
            Text(
                f"expected {name} between 0 and 1, got {value}; it is a share, not a percentage",
                f"{name} 应在 0 与 1 之间，得到 {value}；它是占比，不是百分数",
            )
        )


def upcast(values: Tensor) -> Tensor:
    """`values` in float32, or as they are in float64: statistics of bf16 weights are not computed in bf16."""
    return values if values.dtype == torch.float64 else values.float()
