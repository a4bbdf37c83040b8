"""Where a model turns what it is given into vectors, and a way to run it from vectors of ours instead.

Not ``inputs_embeds``: many models have none, some scale afterwards, some need the ids as well. The module is found by
watching: the innermost one that is handed the very tensor and gives a vector a position.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from hf_attnviz.capturing import scope
from hf_attnviz.errors import CaptureError
from hf_attnviz.language import Text

Change = Callable[[torch.Tensor], torch.Tensor]


def embedder(model: nn.Module, inputs: Mapping[str, Any], name: str) -> nn.Module | None:
    """The module that makes vectors ``[batch, position, width]`` of ``inputs[name]``; None where there is none.

    The model runs once, without gradients.
    """
    given, found = inputs[name], list[nn.Module]()

    def look(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> None:
        if not found and _is_given(given, args, kwargs) and _are_vectors(output, given):
            found.append(module)

    with ExitStack() as undo, scope.alone(), torch.no_grad():
        for module in model.modules():
            undo.callback(module.register_forward_hook(look, with_kwargs=True).remove)
        model(**inputs)
    return found[0] if found else None


@contextmanager
def embedded(module: nn.Module, given: torch.Tensor, change: Change) -> Iterator[None]:
    """Inside, the vectors that ``module`` makes of the tensor ``given`` are changed on their way into the model.

    A module shared by encoder and decoder is told apart by what it is handed.

    Raises:
        CaptureError: at the end, when nothing of the kind ran.
    """
    changed = 0

    def pass_on(_: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> Any:
        nonlocal changed
        if not _is_given(given, args, kwargs):
            return None
        changed += 1
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    handle = module.register_forward_hook(pass_on, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
    if not changed:
        raise CaptureError(
            Text(
                f"{type(module).__name__} turned this model's inputs into vectors once and now does not; nothing can "
                "be explained by their gradients",
                f"{type(module).__name__} 曾把模型的输入变为向量，现在却没有；无法用其梯度作解释",
            )
        )


@contextmanager
def tapped(block: nn.Module) -> Iterator[nn.Module]:
    """Inside, the hidden states that leave ``block`` pass through the module that is handed out, which changes nothing.

    Blocks give tuples, and more than hidden states; what looks at a layer wants one tensor.
    """
    tap = nn.Identity()

    def pass_on(_: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, torch.Tensor):
            return tap(output)
        return type(output)((tap(output[0]), *output[1:]))

    handle = block.register_forward_hook(pass_on)
    try:
        yield tap
    finally:
        handle.remove()


def _is_given(given: torch.Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call was handed this tensor, whatever view of it."""
    return any(
        isinstance(value, torch.Tensor)
        and value.dtype == given.dtype
        and value.numel() == given.numel()
        and value.data_ptr() == given.data_ptr()
        for value in (*args, *kwargs.values())
    )


def _are_vectors(output: Any, given: torch.Tensor) -> bool:
    output = output[0] if type(output) is tuple and output else output  # Swin tells the picture's size beside them
    vectors = isinstance(output, torch.Tensor) and output.dim() == 3 and output.is_floating_point()
    return vectors and len(output) == len(given) and (given.dim() != 2 or output.shape[1] == given.shape[1])
