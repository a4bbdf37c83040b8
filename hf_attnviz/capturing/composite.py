"""Python functions of torch inside which a mode is off: run from their own code, so that what they call is seen."""

import types
from collections.abc import Callable
from typing import Any, Final

import torch.nn.functional as F

COMPOSITE: Final = {"multi_head_attention_forward": F.multi_head_attention_forward}


def opened(function: Any) -> Callable[..., Any]:
    """The function's own code, without its question whether a mode is on (which would send it round in circles)."""
    names = {**function.__globals__, "has_torch_function": lambda _: False}
    opened = types.FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    opened.__kwdefaults__ = function.__kwdefaults__
    return opened
