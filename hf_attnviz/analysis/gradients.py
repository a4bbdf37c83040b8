"""What rests on attention, by the gradients that a capture with ``gradients=True`` kept, labelled."""

from collections.abc import Sequence
from typing import Any, Final

import torch

from hf_attnviz import functional
from hf_attnviz.analysis.caveats import UNTESTED, nan_weights
from hf_attnviz.analysis.pooling import listed_traces, pooled, stack_of
from hf_attnviz.axes import HEAD, KEY, LAYER, QUERY
from hf_attnviz.errors import NotKeptError, listed
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result
from hf_attnviz.trace import AttentionStack, Trace

_CHEFER: Final = "Chefer, Gur & Wolf 2021"
_UNNAMED: Final = Text(
    "The gradients are of one scalar, which the trace does not know: name it with target=….",
    "梯度取自某一个标量，而记录本身不知道是哪一个：请用 target=… 写明。",
)
_ROUNDING: Final = Text(
    "Captured with gradients=True: the weights ran as an explicit softmax, so the outputs differ from the plain run's "
    "by rounding.",
    "以 gradients=True 捕获：权重以显式 softmax 参与前向计算，因此输出与普通运行相差舍入误差。",
)
_NO_SHARES: Final = Text(
    "Each row holds the token's own 1, with which it began; rows do not sum to one, and negative effects were cut off.",
    "每行含该词元自身起始的 1；各行之和不为一，负的作用已被截去。",
)
_SATURATED: Final = Text(
    "Where a head is sure, its softmax is flat and its gradient vanishes: relevance may pass over the very token that "
    "a saturated head carries.",
    "头非常确定时，其 softmax 饱和、梯度消失：相关性可能恰好略过饱和的头所搬运的那个词元。",
)
_FIRST_ORDER: Final = Text(
    "To first order, minus what the scalar would change by if that one weight became 0 and nothing else moved.",
    "一阶近似：若仅该权重变为 0 而其余不变，标量改变量的相反数。",
)


def attention_gradient(trace: Trace, *, stack: str | None = None, target: str = "") -> Result:
    """Weight times its gradient, sign kept: ``[layer, head, query, key]``.

    Args:
        stack: default: the only one.
        target: the scalar that ``backward()`` was called on, in words; it is printed with the numbers.

    Raises:
        NotKeptError: the trace has no gradients; the message says what to capture.
    """
    chosen = stack_of(trace, stack)
    gradient = gradients_of(chosen)
    values = functional.attention_gradient(chosen.stacked()[:, None], gradient[:, None])[:, 0]
    heads = Axis(HEAD, tuple(map(str, range(values.shape[1]))))
    axes = (Axis(LAYER, tuple(map(str, chosen.layers))), heads, *_sides(chosen))
    notes = (*_named(target), _FIRST_ORDER, *_unknown(chosen), _ROUNDING, UNTESTED)
    return Result(values, axes, "attention × gradient", _about(chosen.name, target), _CHEFER, _unit(target), notes)


def relevance(trace: Trace, *, stack: str | None = None, target: str = "") -> Result:
    """Relevance of the input tokens for each position after all layers: ``[query, key]``.

    Args:
        stack: a self-attention stack, default: the only one; ``"cross"`` in an encoder-decoder: the source tokens for
            each target token, by the rules for all three stacks together.
        target: the scalar that ``backward()`` was called on, in words; it is printed with the numbers.

    Raises:
        NotKeptError: the trace has no gradients, or not all rows or stacks; the message says what to capture.
    """
    chosen = stack_of(trace, stack)
    if chosen.maps[0].kind == "cross":
        three = {name: _pair(trace, name) for name in ("encoder", "decoder", chosen.name)}
        values = functional.relevance_encoder_decoder(
            encoder=three["encoder"], decoder=three["decoder"], cross=three[chosen.name]
        )["cross"]
    else:
        attention, gradient = _pair(trace, chosen.name)
        values = functional.relevance(attention[:, None], gradient[:, None])[0]
    shares = () if chosen.maps[0].kind == "cross" else (_NO_SHARES,)
    notes = (*_named(target), *shares, *_unknown(chosen), _SATURATED, _ROUNDING, UNTESTED)
    return Result(values, _sides(chosen), "relevance", _about(chosen.name, target), _CHEFER, "relevance", notes)


def head_importance(
    traces: Trace | Sequence[Trace], *, stack: str | None = None, normalise: bool = False, target: str = ""
) -> Result:
    """How much the scalar rests on each head, the mean over traces: ``[layer, head]``.

    Taken from the weights and their gradients, whose products add up to those of the heads' outputs with theirs.

    Args:
        stack: default: the only one.
        normalise: divide by the l2 norm of each layer; NaN for a layer without any effect.
        target: the scalar that ``backward()`` was called on, in words; it is printed with the numbers.

    Raises:
        NotKeptError: a trace has no gradients, or not all its rows; the message says what to capture.
    """
    data, slopes = pooled(traces, stack), pooled(traces, stack, of=gradients_of)
    for one in listed_traces(traces):
        _with_all_rows(one.stack(stack))
    values = functional.head_importance(data.attention, slopes.attention, normalise=normalise)
    about = _about(data.stack.name, target) | {"sequences": data.attention.shape[1], "normalise": normalise}
    notes = [*_named(target), *nan_weights(data.attention * slopes.attention), _ROUNDING]
    if normalise:
        plain = functional.head_importance(data.attention, slopes.attention)
        if bool((values.isnan() & ~plain.isnan()).any()):
            notes.append(
                Text("NaN: a layer on which the scalar does not rest has no shares.", "NaN：标量不依赖的层没有占比。")
            )
        notes.append(
            Text(
                "Divided by each layer's l2 norm: layers cannot be compared with one another.",
                "已除以各层的 l2 范数：层与层之间不可比较。",
            )
        )
    return Result(
        values,
        (data.layer_axis, data.head_axis),
        "head importance",
        about,
        "Michel, Levy & Neubig 2019",
        "" if normalise else _unit(target),
        tuple(notes),
    )


def gradients_of(stack: AttentionStack) -> torch.Tensor:
    """The gradients of a stack, ``[layer, head, query, key]``.

    Raises:
        NotKeptError: they were not captured, or no ``backward()`` came by.
    """
    stack.stacked()  # says which layers differ
    found = [m.gradient for m in stack if m.gradient is not None]
    if len(found) < len(stack):
        lacking = listed(m.module or str(m.layer) for m in stack if m.gradient is None)
        why = Text("has no attention gradients", "没有注意力的梯度")
        why = Text(f"has no gradient of {lacking}", f"没有 {lacking} 的梯度") if found else why
        raise NotKeptError(
            Text(
                f"the stack {stack.name!r} of this trace {why.en}: capture with av.capture(model, gradients=True), "
                "call backward() inside the block on one scalar that depends on every layer, and read recording.trace "
                "after that. Or let av.explain(model, inputs) do it",
                f"这个 trace 的堆栈 {stack.name!r} {why.zh}：请以 av.capture(model, gradients=True) 捕获，在块内对一个"
                "依赖每一层的标量调用 backward()，之后再读 recording.trace；或交给 av.explain(model, inputs)",
            )
        )
    return torch.stack(found)


def _unknown(stack: AttentionStack) -> list[Text]:
    return nan_weights(stack.stacked() * gradients_of(stack))


def _pair(trace: Trace, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    chosen = _with_all_rows(trace.stack(name))
    return chosen.stacked(), gradients_of(chosen)


def _with_all_rows(stack: AttentionStack) -> AttentionStack:
    """This stack, when no row of it was left out."""
    if all(m.positions is None for m in stack):
        return stack
    return stack.whole()


def _sides(stack: AttentionStack) -> tuple[Axis, Axis]:
    return Axis(QUERY, stack.queries.texts), Axis(KEY, stack.keys.texts)


def _about(stack: str, target: str) -> dict[str, Any]:
    return {"stack": stack, "target": target}


def _named(target: str) -> tuple[Text, ...]:
    if not target:
        return (_UNNAMED,)
    return (Text(f"Explained is one number: {target}.", f"所解释的是一个数：{target}。"),)


def _unit(target: str) -> str:
    return "of the target" if target else "of the scalar"
