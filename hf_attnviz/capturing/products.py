"""A product of weights and values, as the function observer meets it: its heads, and what goes on in its place."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from hf_attnviz.capturing import scope, steering
from hf_attnviz.capturing.arranging import Arrange, Placed, batched
from hf_attnviz.capturing.families import HEADS, SLICED, no_map
from hf_attnviz.capturing.gradients import Gradient, hindrance
from hf_attnviz.capturing.origin import Origin
from hf_attnviz.capturing.runs import Pass
from hf_attnviz.capturing.seen import Seen
from hf_attnviz.errors import CaptureError
from hf_attnviz.language import Text


@dataclass(frozen=True, eq=False)
class Product:
    """Weights · values.

    Attributes:
        result: the product, as the model computed it.
        placed: how it stands in memory; None where that is not known.
        operand: the values, as they stood in it; None where they are not at hand.
    """

    result: torch.Tensor
    placed: Placed | None = None
    operand: torch.Tensor | None = None

    def vectors(self, batch: int | None) -> Mapping[str, torch.Tensor]:
        """``value`` ``[batch, head, key, size]`` and ``output`` ``[batch, head, query, size]``, as far as known."""
        if self.placed is None:
            return {}
        with torch.no_grad(), scope.deaf():
            found = {"output": batched(self.placed.to(self.result.detach()), batch)}
            if self.operand is not None:
                found["value"] = batched(self.placed.values(self.operand.detach()), batch)
        return {name: tensor for name, tensor in found.items() if tensor.dim() == 4}

    def steered(
        self, batch: int | None, seen: Seen, listening: list[scope.Session]
    ) -> tuple[torch.Tensor, steering.Mixed | None]:
        """What goes on in place of the product, and what was mixed then; None where nothing can take its place."""
        module = scope.all_sessions()[-1].contexts[-1].module
        weights = seen.proved.weights
        placed = self.placed
        apart = None if placed is None else placed.to(self.result)
        output = None if apart is None else batched(apart, batch)
        if placed is None or apart is None or output is None or (output.dim(), weights.dim()) != (4, 4):
            for session in listening:
                session.recording.out_of_reach(session, module)
            return self.result, None
        shape = apart.shape
        before = steering.Mixed(output.transpose(1, 2), weights.shape[-1], lambda: seen)
        after = steering.steered(module, before, listening)
        put = after.put(self.result, lambda changed: placed.back(changed.transpose(1, 2).reshape(shape)))
        return put, after


def other_than_attention(session: scope.Session, origin: Origin) -> bool:
    """Whether a softmax in the module under way is known to be no attention; the recording is told so."""
    module = session.contexts[-1].module
    what = no_map(module, origin.axis)
    if what is not None:
        session.recording.note_other(session, module, what)
    return what is not None


def checked(session: scope.Session, origin: Origin) -> None:
    """Refuse what cannot be put together to the weights of a call.

    Raises:
        CaptureError: with what to do instead.
    """
    module = session.contexts[-1].module
    if SLICED in type(getattr(module, "processor", None)).__name__:
        raise CaptureError(
            Text(
                "attention is computed in slices of the batch, which cannot be put together; expected it whole. "
                "Turn slicing off: pipe.disable_attention_slicing()",
                "注意力按 batch 的切片计算，无法拼合；应为完整的一次。请关闭切片：pipe.disable_attention_slicing()",
            )
        )
    if origin.piece:
        raise CaptureError(
            Text(
                "weights are cut along the queries, and each piece meets the values by itself; expected all "
                "rows of a map at once. Say what the weights are with av.register_attention",
                "权重沿查询切开，每块各自与值相乘；应为一张图的所有行同时出现。请用 av.register_attention 说明权重",
            )
        )


def gradient_of(
    operand: torch.Tensor, arrange: Arrange, origin: Origin, batch: int | None, unwatched: Text | None
) -> Gradient:
    """What watches the gradient of an operand; ``unwatched`` says why it shows none of its weights."""
    gradient = Gradient(unwatched or hindrance(dropout=origin.clean is not None, replaced=False))
    return gradient if gradient.reason else gradient.watch(operand, functools.partial(_flowing, arrange, batch))


def _flowing(arrange: Arrange, batch: int | None, gradient: torch.Tensor) -> torch.Tensor:
    """The gradient of an operand, arranged as its weights are."""
    with scope.deaf():
        return batched(arrange(gradient), batch)


def batch_of(weights: torch.Tensor, origin: Origin, session: scope.Session, heads: int | None) -> int | None:
    """The batch in ``[batch · head, query, key]``, where something says how many heads.

    Args:
        heads: their number, where the function that is under way was told it.
    """
    rows, one = len(weights), session.current
    batch = one.batch if one is not None else None
    if len(origin.shape) == 4 and origin.shape[0] * origin.shape[1] == rows:
        batch = origin.shape[0]
    elif heads is not None:
        batch = rows // heads
    elif (own := _own_heads(session.contexts[-1].module)) and rows % own == 0:
        batch = rows // own
    elif origin.shape[:-1] == (rows,) or (one is not None and _time_first(one, weights.shape)):
        batch = rows
    elif one is not None and _either_first(one, weights.shape):
        raise CaptureError(
            Text(
                f"weights {list(weights.shape)} of inputs [{one.batch}, {one.second}, …]: which of the two is the "
                "batch cannot be told. Choose another batch size, or say it with av.register_attention",
                f"权重 {list(weights.shape)}，输入 [{one.batch}, {one.second}, …]：两者哪个是 batch 无从得知。"
                "请换一个 batch 大小，或用 av.register_attention 说明",
            )
        )
    return batch if batch and rows % batch == 0 else None


def _own_heads(module: nn.Module) -> int | None:
    """How many heads a module says that it has."""
    said = (getattr(module, name, None) for name in HEADS)
    return next((heads for heads in said if isinstance(heads, int) and heads > 0), None)


def _time_first(one: Pass, shape: torch.Size) -> bool:
    """Whether weights ``[batch, query, key]`` belong to inputs ``[position, batch, …]``."""
    return shape[0] == one.second and one.batch in shape[1:] and one.second not in shape[1:]


def _either_first(one: Pass, shape: torch.Size) -> bool:
    """Whether weights ``[batch · head, query, key]`` may as well belong to inputs ``[position, batch, …]``."""
    if not one.batch or not one.second or one.batch == one.second:
        return False
    both = shape[0] % one.batch == 0 and shape[0] % one.second == 0
    return both and one.batch in shape[1:] and one.second not in shape[1:]
