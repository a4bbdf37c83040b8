"""Which analyses there are: the command line and the demo offer them all by name."""

import importlib
import inspect
from collections.abc import Callable

from hf_attnviz.result import Result


def analyses() -> dict[str, Callable[..., Result]]:
    """Every analysis that needs one trace and nothing else, by name."""
    room = importlib.import_module("hf_attnviz.analysis")
    return {name: one for name in room.__all__ if _of_one_trace(one := getattr(room, name))}


def _of_one_trace(one: object) -> bool:
    if not inspect.isfunction(one):
        return False
    signature = inspect.signature(one)
    needed = [name for name, more in signature.parameters.items() if more.default is more.empty]
    return signature.return_annotation is Result and needed in (["trace"], ["traces"])
