"""Attention gradients: d(scalar)/d(weights), after the caller's own ``backward()``.

Kernels keep their weights to themselves, so none is in the graph of the output. Where gradients are asked for, the
weights are put there: the model's own eager function, or the explicit softmax, runs *as the forward*, on the very
arguments of the kernel. Its output must agree with the kernel's, which runs beside it without gradients; so outputs
differ from those of the plain run by rounding, and by nothing else. Rows that may attend to nothing keep what the
kernel gives them.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch

from hf_attnviz.capturing import scope
from hf_attnviz.capturing.arranging import Arrange, four
from hf_attnviz.capturing.proof import attending_rows, tolerance
from hf_attnviz.errors import NotKeptError, ProofError
from hf_attnviz.language import Text, told

_NO_GRAD: Final = Text(
    "the model ran without gradients; run it outside torch.no_grad() and torch.inference_mode()",
    "模型运行时没有梯度；请在 torch.no_grad() 与 torch.inference_mode() 之外运行",
)
_DROPOUT: Final = Text(
    "dropout was on, and changes the weights after the softmax; call model.eval(), gradients flow there too",
    "dropout 是打开的，它在 softmax 之后改变权重；请调用 model.eval()，那时梯度照样传递",
)
_CHECKPOINT: Final = Text(
    "activation checkpointing runs blocks again in backward(), where another kernel would run; turn it off with "
    "model.gradient_checkpointing_disable()",
    "激活检查点会在 backward() 中再次运行各块，那时运行的是另一个内核；请用 model.gradient_checkpointing_disable() "
    "关闭",
)
UNFINISHED: Final = Text(
    "the weights never stand in the model as such: they are divided, or spread, in the product itself",
    "权重本身从不出现在模型中：它们在乘积里才被除开或展开",
)
FROZEN: Final = Text(
    "nothing before these weights requires a gradient; let the model's input or weights require one",
    "这些权重之前没有任何东西需要梯度；请让模型的输入或权重需要梯度",
)


class NotReachedError(NotKeptError):
    """``backward()`` has not come by these weights: nothing that it began at depends on them, so far."""


class Gradient:
    """The gradient of one call's weights: empty until ``backward()`` has been there, or the reason why it stays so."""

    def __init__(self, reason: Text | None = None) -> None:
        self.reason = reason
        self._sum: torch.Tensor | None = None

    def watch(self, weights: torch.Tensor, arrange: Arrange = lambda gradient: gradient) -> "Gradient":
        """Add up what flows back to ``weights``, arranged as the weights are that are handed out."""

        def flows(gradient: torch.Tensor) -> None:
            with torch.no_grad():
                new = arrange(gradient.detach())
                self._sum = new.clone() if self._sum is None else self._sum + new

        if not weights.requires_grad:
            self.reason = FROZEN
        else:
            weights.register_hook(flows)  # type: ignore[no-untyped-call]
        return self

    def read(self, module: str) -> torch.Tensor:
        """The gradient, summed over all calls of ``backward()``.

        Raises:
            NotKeptError: it is not there; the message says why.
        """
        if self.reason:
            raise NotKeptError(
                Text(
                    f"the attention of {module} has no gradient: {self.reason.en}",
                    f"{module} 的注意力没有梯度：{self.reason.zh}",
                )
            )
        if self._sum is None:
            raise NotReachedError(
                Text(
                    f"no gradient has reached the attention of {module} yet: call backward() on a scalar that depends "
                    "on it",
                    f"梯度尚未到达 {module} 的注意力：请对依赖它的标量调用 backward()",
                )
            )
        return self._sum


@dataclass(frozen=True, eq=False)
class Watched:
    """What watches a call's weights, and the weights; None when they are not in the graph."""

    gradient: Gradient
    weights: torch.Tensor | None = None


def hindrance(*, dropout: bool, replaced: bool) -> Text | None:
    """Why a call's weights cannot be watched (``replaced``: by running another function), or nothing."""
    if not torch.is_grad_enabled():
        return _NO_GRAD
    if dropout:
        return _DROPOUT
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)
    checkpointed = hooks is not None and "checkpoint" in getattr(hooks[0], "__module__", "")
    return _CHECKPOINT if checkpointed and replaced else None


def agreed(
    output: torch.Tensor,
    truth: torch.Tensor,
    attends: torch.Tensor | None,
    kernel: Callable[[], torch.Tensor],
    value: torch.Tensor,
) -> torch.Tensor:
    """The output to go on with: that of the explicit function, when it is the kernel's.

    Args:
        output: what the explicit function gave, ``[batch, query, head, size]``.
        truth: what the kernel gave.
        attends: ``[batch or 1, head or 1, query]``, False for rows that may attend to nothing; None when all may.
        kernel: runs the kernel with gradients, for the rows that may attend to nothing.
        value: V as it ran, for the size of the rounding.

    Raises:
        ProofError: the two differ by more than rounding.
    """
    output, truth = output.to(truth.dtype), truth.detach()
    if attends is not None and not bool(attends.all()):
        output = torch.where(attends.transpose(1, 2)[..., None], output, kernel())
    off = float((output.detach() - truth).abs().max()) if output.numel() else 0.0
    if not off <= 2 * tolerance(value.to(truth.dtype)):  # both outputs are rounded
        raise ProofError(
            Text(
                f"the eager function gives another output than the kernel (off by {off:.2g})",
                f"eager 函数给出的输出与内核不同（相差 {off:.2g}）",
            )
        )
    return output


def _explicit(given: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """``scaled_dot_product_attention`` by its formula: the output and the weights, both in the graph."""
    query, key, value, mask = (given.get(name) for name in ("query", "key", "value", "attn_mask"))
    assert isinstance(query, torch.Tensor)
    assert isinstance(key, torch.Tensor)
    assert isinstance(value, torch.Tensor)
    if given.get("enable_gqa"):
        key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], dim=-3) for t in (key, value))
    scale = given.get("scale")
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if given.get("is_causal"):
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, torch.finfo(scores.dtype).min)
    if mask is not None:
        lowest = torch.finfo(scores.dtype).min  # and not -inf, whose softmax and its gradient are no number
        scores = scores.masked_fill(~mask, lowest) if mask.dtype == torch.bool else (scores + mask).clamp(min=lowest)
    weights = scores.softmax(-1)
    return weights @ value, weights


def in_the_graph(given: Mapping[str, Any], truth: torch.Tensor) -> tuple[torch.Tensor, Watched]:
    """``scaled_dot_product_attention`` by its formula, with the weights in the graph; ``truth`` where that cannot be.

    Args:
        given: the kernel's arguments by name.
        truth: what the kernel gave for them.
    """
    gradient = Gradient(hindrance(dropout=bool(given.get("dropout_p")), replaced=True))
    if gradient.reason or given["query"].dim() < 3:
        return truth, Watched(gradient)

    def shaped(output: torch.Tensor) -> torch.Tensor:
        """``[batch, query, head, size]``, as :func:`agreed` reads it."""
        return four(output).transpose(1, 2)

    query = led_by_gradient(given["query"], given["key"])
    with scope.deaf(), precisely(query) as dtype:
        new = {"query": query.to(dtype)} | {name: given[name].to(dtype) for name in ("key", "value")}
        output, weights = _explicit({**given, **new})
        output = shaped(output)
        attends = attending_rows(given.get("attn_mask"))
        try:
            output = agreed(output, shaped(truth), attends, lambda: shaped(truth), given["value"])
        except ProofError as problem:
            gradient.reason = told(problem)
            return truth, Watched(gradient)
    gradient.watch(weights, lambda flowing: four(flowing).to(truth.dtype))
    return output.transpose(1, 2).reshape(truth.shape), Watched(gradient, weights.detach().to(truth.dtype))


@contextmanager
def precisely(query: torch.Tensor) -> Iterator[torch.dtype]:
    """The precision in which a kernel works inside, whatever it reads and writes; in it, nothing is cast by itself."""
    with torch.autocast(query.device.type, enabled=False):
        yield torch.promote_types(query.dtype, torch.float32)


def led_by_gradient(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """The query, such that the weights have a gradient even where the model is frozen before them."""
    return query if query.requires_grad or key.requires_grad else query.detach().requires_grad_()
