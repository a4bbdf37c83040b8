"""The matrices that a page holds: all of them where they fit, else fewer, and it is said which.

Few numbers are held as they are (float32); more of them, if they are attention weights, as a byte each
(:func:`encoding.masked_codes`), within :data:`encoding.WEIGHT_ERROR`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text
from hf_attnviz.views.encoding import WEIGHT_NOTE, masked_codes, packed

EXACT: Final = 150_000  # numbers: 600 kB
_AS_THEY_ARE: Final = Text("Numbers are stored in single precision (float32).", "数值以单精度（float32）存储。")


@dataclass(frozen=True, eq=False)
class Held:
    """Matrices of several layers and heads, or of fewer.

    Attributes:
        values: ``[layer, head, row, column]``; one head where only their mean is held.
        layers: what each layer is called.
        heads: what each head is called; empty where only their mean is held.
        notes: what was left out.
    """

    values: torch.Tensor
    layers: tuple[str, ...]
    heads: tuple[str, ...]
    notes: tuple[Text, ...] = ()


def held(
    matrices: Sequence[Callable[[], torch.Tensor]],
    layers: Sequence[str],
    shape: tuple[int, int, int],
    *,
    most: int,
    layer: int | None,
    head: int | None,
) -> Held:
    """As many of the matrices as ``most`` numbers hold: all; else of each layer the chosen head, or the mean over its
    heads; else of the chosen layer alone, or the last.

    Args:
        matrices: for each layer a function that gives ``[head, row, column]``.
        layers: what each layer is called.
        shape: heads, rows and columns.
        layer, head: places of those that were chosen.

    Raises:
        ArgumentError: one matrix alone is too large.
    """
    heads, rows, columns = shape
    one = rows * columns
    if one > most:
        raise ArgumentError(
            Text(
                f"a page holds {most:,} numbers at most, and one map has {rows:,} × {columns:,}; look at a part of the "
                'text, or capture it with keep="statistics" and draw long_view(trace)',
                f"一页至多容纳 {most:,} 个数值，而一张图有 {rows:,} × {columns:,} 个；请只看文本的一部分，"
                '或以 keep="statistics" 捕获并用 long_view(trace) 绘制',
            )
        )
    if one * heads * len(matrices) <= most:
        return Held(torch.stack([give() for give in matrices]), tuple(layers), tuple(map(str, range(heads))))
    chosen = range(len(layers)) if one * len(layers) <= most else [len(layers) - 1 if layer is None else layer]
    parts = torch.stack([_one(matrices[n](), head) for n in chosen])[:, None]
    return Held(parts, tuple(layers[n] for n in chosen), (), (_left_out(shape, layers, chosen, head),))


def stored(values: torch.Tensor) -> tuple[dict[str, Any], Text]:
    """What a page holds of these numbers, for ``attnviz.numbers``, and how exact that is."""
    numbers = values.detach().to("cpu", torch.float32)
    known = numbers[numbers.isfinite()]
    weights = not known.numel() or (float(known.min()) >= -1e-3 and float(known.max()) <= 1.01)
    if numbers.numel() <= EXACT or not weights:
        return {"coded": False, "data": packed(numbers.numpy())}, _AS_THEY_ARE
    return {"coded": True, "data": packed(masked_codes(numbers.numpy()))}, WEIGHT_NOTE


def _one(weights: torch.Tensor, head: int | None) -> torch.Tensor:
    return weights.float().mean(0) if head is None else weights[head].float()


def _left_out(shape: tuple[int, int, int], layers: Sequence[str], chosen: Sequence[int], head: int | None) -> Text:
    heads, rows, columns = shape
    what_en = "the mean over heads" if head is None else f"head {head}"
    what_zh = "各头的平均" if head is None else f"第 {head} 头"
    alone = len(chosen) < len(layers)
    en = f"{what_en} of layer {layers[chosen[0]]} alone" if alone else f"{what_en} of each layer"
    zh = f"第 {layers[chosen[0]]} 层{what_zh}" if alone else f"每层{what_zh}"
    return Text(
        f"Left out for size: {len(layers)} layers × {heads} heads × {rows:,} × {columns:,} weights do not fit into one "
        f"page; it holds {en}. The arguments layer and head choose others.",
        f"因体积有省略：{len(layers)} 层 × {heads} 头 × {rows:,} × {columns:,} 个权重放不进一页；此页只含{zh}。"
        "可用参数 layer 与 head 另选。",
    )
