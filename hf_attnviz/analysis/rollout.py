"""Attention rollout, labelled, with the drift that it has by itself."""

from typing import Any

import torch

from hf_attnviz import functional
from hf_attnviz.axes import KEY, LAYER, QUERY
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result
from hf_attnviz.trace import AttentionStack, Trace

_NO_PROOF = Text(
    "Rollout follows weights, not what is moved along them: it is no proof of influence.",
    "Rollout 只跟踪权重，不看沿权重传递的内容：它不能证明影响。",
)


def rollout(
    trace: Trace,
    *,
    stack: str | None = None,
    residual: float = 0.5,
    head_fusion: str = "mean",
    normalise: str = "after",
    discard: float = 0.0,
    start_layer: int = 0,
) -> Result:
    """Attention followed through the layers down to the input: ``[layer, query, key]``, each row a share of the input.

    Args:
        residual, head_fusion, normalise, discard, start_layer: see :func:`hf_attnviz.functional.rollout`.
        stack: a self-attention stack; default: the only one.
    """
    chosen = trace.stack(stack).whole()
    options: dict[str, Any] = {"residual": residual, "start_layer": start_layer}
    fusion: dict[str, Any] = {"head_fusion": head_fusion, "normalise": normalise, "discard": discard}
    values = functional.rollout(chosen.stacked()[:, None], **options, **fusion)[:, 0]
    drift = _drift(chosen, options)
    axes = (
        Axis(LAYER, tuple(map(str, chosen.layers[start_layer:]))),
        Axis(QUERY, chosen.queries.texts),
        Axis(KEY, chosen.keys.texts),
    )
    return Result(
        values,
        axes,
        "attention rollout",
        {"stack": chosen.name, **fusion, **options, "uniform_first_token": drift},
        "Abnar & Zuidema 2020",
        "share of the input",
        (_drift_note(drift, float(values[-1, -1, 0])), _NO_PROOF),
    )


def _drift(stack: AttentionStack, options: dict[str, Any]) -> float:
    """What uniform attention under the same mask, rolled out, would put from the last row on the first token."""
    length = len(stack.keys)
    uniform = functional.uniform_attention(length, length, causal=all(m.causal for m in stack))
    maps = torch.stack([uniform[:, None]] * len(stack))
    return float(functional.rollout(maps, **options)[-1, 0, -1, 0])


def _drift_note(drift: float, here: float) -> Text:
    return Text(
        f"Under uniform attention with the same mask the last row would put {drift:.2f} on the first token at this "
        f"depth; here it puts {here:.2f}. Only the difference is the model's doing.",
        f"若注意力完全均匀而掩码相同，到这一深度最后一行会有 {drift:.2f} 落在第一个词元上；"
        f"这里是 {here:.2f}。只有两者之差才是模型所为。",
    )
