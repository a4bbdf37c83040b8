"""Where between input and output a scalar is made: Captum's attributions of each layer's hidden states."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch

from hf_attnviz import progress
from hf_attnviz.axes import KEY, LAYER
from hf_attnviz.capturing.address import block_of
from hf_attnviz.capturing.embedding import tapped
from hf_attnviz.errors import ArgumentError, UnknownNameError, listed
from hf_attnviz.explaining.by_captum import LAYER_METHODS, baseline_word, from_baseline, passes
from hf_attnviz.explaining.given import with_gradients
from hf_attnviz.explaining.subject import Settings, Subject
from hf_attnviz.explaining.target import TargetLike
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result
from hf_attnviz.trace import AttentionStack

_RUNNING: Final = Text("attributing to layers", "正在逐层归因")
_SOURCES: Final = {"conductance": "Dhamdhere et al. 2018", "gradient_x_activation": "Shrikumar et al. 2016"}
_MEANING: Final = {
    "gradient_x_activation": Text(
        "To first order, minus what the number would change by if the hidden state became 0.",
        "一阶近似：若该隐藏状态变为 0，该数改变量的相反数。",
    ),
    "activation": Text(
        "Lengths of hidden states; the explained number plays no part in them.",
        "隐藏状态的长度；所解释的数与之无关。",
    ),
}


@with_gradients
def layer_attributions(
    model: Any,
    inputs: str | Mapping[str, Any],
    *,
    target: TargetLike = None,
    processor: Any = None,
    method: str = "conductance",
    layers: Sequence[int] | None = None,
    stack: str | None = None,
    settings: Settings | None = None,
) -> Result:
    """How much of one scalar passes through each position of each layer's output: ``[layer, key]``.

    Args:
        model, inputs, target, processor, settings: as in :func:`hf_attnviz.explain`.
        method: ``"conductance"``, ``"gradient_x_activation"`` or ``"activation"``, each Captum's.
        layers: block indices; default: all.
        stack: whose layers; default: the only stack, in an encoder-decoder the encoder.

    Raises:
        UnknownNameError: a method or a layer that does not exist.
        ArgumentError: a stack whose layers are not blocks of the model.
        MissingPackageError: Captum is not installed.
    """
    if method not in LAYER_METHODS:
        raise UnknownNameError(
            Text(
                f"unknown method {method!r}; known: {listed(LAYER_METHODS)}",
                f"未知方法 {method!r}；可用：{listed(LAYER_METHODS)}",
            )
        )
    subject = Subject(model, inputs, target=target, processor=processor, settings=settings)
    if stack is None:
        stack = "encoder" if subject.two_sided else subject.stack.name
    chosen = subject.trace.stack(stack)
    wanted = list(dict.fromkeys(chosen.layers if layers is None else layers))
    total = len(wanted) * passes(method, subject)
    steps = iter(progress.shown(range(total), total, _RUNNING))
    rows = [_row(subject, chosen, layer, method, lambda: next(steps, None)) for layer in wanted]
    about: dict[str, Any] = {
        "target": subject.target.name,
        "score": subject.score,
        "method": method,
        "stack": chosen.name,
    }
    if method == "conductance":
        told, note = _missed(subject, rows)
        about |= told
    else:
        note = _MEANING[method]
    return Result(
        torch.stack(rows).cpu(),
        (Axis(LAYER, tuple(map(str, wanted))), Axis(KEY, chosen.queries.texts)),
        f"layer attributions ({method})",
        about,
        _SOURCES.get(method, ""),
        "of the target" if method != "activation" else "",
        (subject.told, note),
    )


def _missed(subject: Subject, rows: Sequence[torch.Tensor]) -> tuple[dict[str, Any], Text]:
    """What conductance began at, and by how much each layer misses the change that it shares out."""
    start, end, told = from_baseline(subject, subject.baseline())
    missed = tuple(float(row.sum()) - (end - start) for row in rows)
    settings = subject.settings
    most = max(map(abs, missed))
    note = Text(
        f"Each row shares out the number's change from {start:.4g} (baseline: {settings.baseline}) to {end:.4g}; at "
        f"most {most:.2g} of it is error of the {settings.steps} steps (convergence delta).",
        f"每行分摊该数从 {start:.4g}（基线：{baseline_word(settings.baseline)}）到 {end:.4g} 的变化；"
        f"其中至多 {most:.2g} 是 {settings.steps} 步积分的误差（收敛差）。",
    )
    return told | {"convergence_delta": missed}, note


def _row(
    subject: Subject, stack: AttentionStack, layer: int, method: str, begins: Callable[[], object]
) -> torch.Tensor:
    path = block_of(stack.layer(layer).module, subject.model)
    if path is None:
        raise ArgumentError(
            Text(
                f"{stack.layer(layer).module} stands in no list of blocks; choose another stack",
                f"{stack.layer(layer).module} 不在任何块列表中；请选择另一个堆栈",
            )
        )
    with tapped(subject.model.get_submodule(path)) as tap:
        found = LAYER_METHODS[method](subject, tap, begins)
    if found.shape != (len(stack.queries),):
        raise ArgumentError(
            Text(
                f"{path} gives {tuple(found.shape)} hidden states and stack {stack.name!r} has {len(stack.queries)} "
                "positions: they are not the same; choose another stack",
                f"{path} 给出 {tuple(found.shape)} 个隐藏状态，而堆栈 {stack.name!r} 有 {len(stack.queries)} 个位置："
                "两者不同；请选择另一个堆栈",
            )
        )
    return found.to(torch.promote_types(found.dtype, torch.float32))
