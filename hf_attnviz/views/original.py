"""What BertViz' own functions take."""

from collections.abc import Sequence
from typing import Any

import torch

from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text
from hf_attnviz.trace import Trace
from hf_attnviz.views.groups import groups


def to_bertviz(trace: Trace, *, stack: str | None = None) -> dict[str, Any]:
    """The arguments for BertViz' own functions: ``bertviz.head_view(**to_bertviz(trace))``.

    Raises:
        ArgumentError: stacks of unequal depth or heads, which BertViz cannot draw together: choose one.
    """
    names = list(trace.stacks) if stack is None else [stack]
    chosen = {name: trace.stack(name) for name in names}
    for name, found in chosen.items():
        if len(groups(trace, name)) > 1:
            raise ArgumentError(
                Text(
                    f"the layers of stack {name!r} differ in heads or lengths, which BertViz cannot draw together; "
                    "use head_view(trace), which can",
                    f"堆栈 {name!r} 各层的头数或长度不同，BertViz 无法一起绘制；请用 head_view(trace)，它可以",
                )
            )
        found.stacked()
    arguments: dict[str, Any] = {"prettify_tokens": False}
    if len(chosen) == 1:
        only = next(iter(chosen.values()))
        if only.queries.texts == only.keys.texts and only.maps[0].kind == "self":
            return arguments | {"attention": _four_axes(only.maps), "tokens": list(only.queries)}
        cross = {"cross_attention": _four_axes(only.maps)}
        return arguments | cross | {"decoder_tokens": list(only.queries), "encoder_tokens": list(only.keys)}
    if not set(chosen) <= {"encoder", "decoder", "cross"}:
        raise ArgumentError(
            Text(
                f"BertViz draws one stack, or encoder, decoder and cross; choose with stack=…: {names}",
                f"BertViz 可绘制一个堆栈，或 encoder、decoder 与 cross 一起；请用 stack=… 选定：{names}",
            )
        )
    sizes = {name: (len(found.maps), found.maps[0].heads) for name, found in chosen.items()}
    if len(set(sizes.values())) > 1:
        raise ArgumentError(
            Text(
                f"BertViz cannot draw stacks of unequal depth or heads together; (layers, heads) are {sizes}. "
                "Choose one with stack=…, or use head_view(trace), which can",
                f"BertViz 无法一起绘制深度或头数不等的堆栈；（层数, 头数）为 {sizes}。"
                "请用 stack=… 选定一个，或用 head_view(trace)，它可以",
            )
        )
    sides: dict[str, set[tuple[str, ...]]] = {}
    for name, found in chosen.items():
        arguments[f"{name}_attention"] = _four_axes(found.maps)
        left, right = ("decoder", "encoder") if name == "cross" else (name, name)
        for side, labels in ((left, found.queries), (right, found.keys)):
            sides.setdefault(side, set()).add(labels.texts)
    for side, texts in sides.items():
        if len(texts) > 1:
            raise ArgumentError(
                Text(
                    f"the stacks name the tokens of the {side} differently; choose one with stack=…: {names}",
                    f"各堆栈对 {side} 词元的命名不同；请用 stack=… 选定一个：{names}",
                )
            )
        arguments[f"{side}_tokens"] = list(next(iter(texts)))
    return arguments


def _four_axes(maps: Sequence[AttentionMap]) -> list[torch.Tensor]:
    return [m.weights.detach().float().cpu()[None] for m in maps]
