"""A factor for the output of each head: zero silences it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

PROJECTIONS = ("attn.c_proj", "attention.output.dense", "self_attn.o_proj", "self_attention.dense")
"""Where each class that an exhibit is made of puts its heads together: the input is the heads side by side."""


def projections(model: nn.Module) -> list[nn.Module]:
    """The modules that put a layer's heads together, layer by layer."""
    return [module for name, module in model.named_modules() if name.endswith(PROJECTIONS)]


@contextmanager
def gated(model: nn.Module, gates: Tensor) -> Iterator[None]:
    """While the block runs, each head's output is multiplied by its gate ``[layer, example or 1, head]``."""
    with ExitStack() as undo:
        for module, gate in zip(projections(model), gates, strict=True):
            undo.callback(module.register_forward_pre_hook(partial(_scaled, gate)).remove)
        yield


def _scaled(gate: Tensor, module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    heads = given[0]
    apart = heads.view(*heads.shape[:2], gate.shape[-1], -1)
    return ((apart * gate[:, None, :, None]).view(heads.shape), *given[1:])
