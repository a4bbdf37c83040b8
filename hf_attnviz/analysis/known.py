"""Which analyses there are: the command line and the demo offer by name all that need no gradients."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hf_attnviz.result import Result
from hf_attnviz.trace import Trace

_GRADIENTS: Final = frozenset({"attention_gradient", "head_importance", "relevance"})  # need backward() from a target
_CONTRIBUTIONS: Final = frozenset({"alti", "mixing_ratio", "norms"})
_STATISTICS: Final = frozenset({"received", "row_statistics"})
_SPARING: Final = {  # of maps, or of less
    "head_correlation": ("gram",),
    "head_statistics": ("statistics",),
    "received": ("statistics",),
    "rollout": ("rollout",),
    "row_statistics": ("statistics",),
    "sinks": ("statistics",),
}


@dataclass(frozen=True)
class Analysis:
    """An analysis of one trace.

    Attributes:
        function: what is called with a trace.
        keep: what to capture for it.
        plain: it needs a plain pass, and says nothing of a generation.
        sparing: what to capture instead where the maps would not fit; empty: nothing else will do.
    """

    function: Callable[..., Result]
    keep: tuple[str, ...] = ("maps",)
    plain: bool = False
    sparing: tuple[str, ...] = ()

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Its arguments beside the trace, each with what it is by default."""
        several = list(inspect.signature(self.function).parameters.values())[1:]
        return {one.name: one.default for one in several}

    def __call__(self, trace: Trace, **options: Any) -> Result:
        """The result; a stack of None is left out."""
        return self.function(
            trace, **{name: value for name, value in options.items() if (name, value) != ("stack", None)}
        )


def analyses() -> dict[str, Analysis]:
    """Every analysis that needs one trace, captured without gradients, and nothing else: by name."""
    room = importlib.import_module("hf_attnviz.analysis")
    found = {name: getattr(room, name) for name in room.__all__ if name not in _GRADIENTS}
    return {name: _known(name, one) for name, one in found.items() if inspect.isfunction(one) and _of_one_trace(one)}


def _known(name: str, one: Callable[..., Result]) -> Analysis:
    if name in _CONTRIBUTIONS:
        return Analysis(one, ("maps", "contributions"), plain=True)
    return Analysis(one, ("statistics",) if name in _STATISTICS else ("maps",), sparing=_SPARING.get(name, ()))


def _of_one_trace(one: Callable[..., Any]) -> bool:
    signature = inspect.signature(one)
    needed = [name for name, more in signature.parameters.items() if more.default is more.empty]
    return signature.return_annotation is Result and needed in (["trace"], ["traces"])
