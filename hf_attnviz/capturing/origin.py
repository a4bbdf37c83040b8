"""What a tensor has to do with a softmax: it holds the weights, or it is a step of a softmax written out by hand.

``e = exp(s); w = e / e.sum(-1)``, ``log_softmax(s).exp()`` and ``exp(s - logsumexp(s))`` are softmaxes in other words.
Stages: ``"log"`` → ``"weights"``; or ``"exp"`` with its ``"total"`` (or the ``"inverse"`` of it) → ``"weights"``;
``"mixed"`` is a product of exp and values that is still to be divided by the total.
"""

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

import torch

SOFTMAX: Final = frozenset({"softmax", "_softmax", "special_softmax", "gumbel_softmax", "softmin"})
MULTIPLY: Final = frozenset({"mul", "multiply", "__mul__", "__rmul__"})
DIVIDE: Final = frozenset({"div", "divide", "true_divide", "__truediv__", "div_", "__itruediv__", "__idiv__"})
_LOG_SOFTMAX: Final = frozenset({"log_softmax", "special_log_softmax"})
_EXP: Final = frozenset({"exp", "exp_", "exp2", "exp2_"})
_SUBTRACT: Final = frozenset({"sub", "subtract", "__sub__"})
_INVERSE: Final = frozenset({"reciprocal", "__rtruediv__", "__rdiv__"})
_STEPS: Final = SOFTMAX | MULTIPLY | DIVIDE | _LOG_SOFTMAX | _EXP | _SUBTRACT | _INVERSE | {
    "logsumexp", "sum", "normalize"
}  # fmt: skip
_MANY: Final = 256  # remembered tensors after which the dead ones are swept out


@dataclass(frozen=True, eq=False)
class Origin:
    """Where a tensor comes from: a softmax.

    Attributes:
        shape: the shape that the softmax gave.
        clean: what the tensor would be without dropout, once there was some.
        factor: for a product with values that is not summed, or not divided, yet: the tensor in it that comes from a
            softmax, and how it is read as weights.
        alone: those weights have no axis of queries.
        stage: ``"weights"``, or how far a softmax that is written out by hand has come.
        root: what the steps of one such softmax have in common.
        axis: the axis that the softmax goes over; None where that is not known.
        piece: it holds the weights of some queries only.
        routes: the softmax is over the features of a linear layer: more likely a gate or a router than attention.
    """

    shape: torch.Size
    clean: torch.Tensor | None = None
    factor: tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]] | None = None
    alone: bool = False
    stage: str = "weights"
    root: Any = None
    axis: int | None = None
    routes: bool = False
    piece: bool = False

    @property
    def single(self) -> bool:
        """The softmax is over one entry: all it gives is 1."""
        return self.axis is not None and self.shape[self.axis] == 1

    def undropped(self, tensor: torch.Tensor) -> torch.Tensor:
        """``tensor``, which comes from here, as it would be without dropout."""
        return tensor if self.clean is None else self.clean


Fact = TypeVar("Fact")


class Known(Generic[Fact]):
    """What is known of tensors, as long as they live."""

    def __init__(self) -> None:
        self._facts: dict[int, tuple[weakref.ref[torch.Tensor], Fact]] = {}
        self._many = _MANY

    def __bool__(self) -> bool:
        return bool(self._facts)

    def get(self, tensor: object) -> Fact | None:
        """What is known of a tensor; None where nothing is."""
        entry = self._facts.get(id(tensor))
        return entry[1] if entry is not None and entry[0]() is tensor else None

    def put(self, tensor: torch.Tensor, fact: Fact) -> None:
        """Remember something of a tensor."""
        if len(self._facts) > self._many:
            self._facts = {key: entry for key, entry in self._facts.items() if entry[0]() is not None}
            self._many = max(_MANY, 2 * len(self._facts))  # where gradients are wanted, much stays alive
        self._facts[id(tensor)] = (weakref.ref(tensor), fact)

    def forget(self, tensor: object) -> None:
        """Nothing is known of a tensor any more."""
        self._facts.pop(id(tensor), None)


def begun(
    name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    result: torch.Tensor,
    known: Callable[[object], Origin | None],
) -> Origin | None:
    """The origin of what a function gave, where it is a softmax or a step of one; else None."""
    if name not in _STEPS:
        return None  # nearly every function is none of these
    if name in SOFTMAX:
        axis = one_axis(args, kwargs)
        return Origin(result.shape, axis=None if axis is None else axis % result.dim())
    given = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)]
    if name in _LOG_SOFTMAX:
        return Origin(result.shape, stage="log")
    if name == "logsumexp" and given:
        return Origin(result.shape, stage="logsumexp", root=weakref.ref(given[0]))
    first, second = (known(given[n]) if len(given) > n else None for n in (0, 1))
    if name in _EXP:
        steps = first is not None and first.stage == "log"
        return Origin(result.shape) if steps else Origin(result.shape, stage="exp", root=object())
    if name in _SUBTRACT and second is not None and second.stage == "logsumexp":
        return Origin(result.shape, stage="log") if second.root() is given[0] else None
    return _divided(name, args, kwargs, result, first, second) if first is not None else None


def _divided(
    name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    result: torch.Tensor,
    first: Origin,
    second: Origin | None,
) -> Origin | None:
    """A step from exp to weights: the total, its inverse, the division by it."""
    whole = Origin(result.shape)
    if first.stage == "exp" and name == "sum" and one_axis(args, kwargs) is not None:
        return replace(first, stage="total", clean=None)
    if first.stage == "exp" and name == "normalize":
        return whole if (args[1] if len(args) > 1 else kwargs.get("p", 2.0)) == 1 else None
    if first.stage == "total" and name in _INVERSE:
        return replace(first, stage="inverse")
    if second is None or second.root is not first.root:
        return None
    pair = {first.stage, second.stage}
    if name in DIVIDE and (first.stage, second.stage) == ("exp", "total"):
        return whole
    return whole if name in MULTIPLY and pair == {"exp", "inverse"} else None


def one_axis(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | None:
    """The axis that a sum goes over, where it is one."""
    axis = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis"))
    axis = axis[0] if isinstance(axis, (tuple, list)) and len(axis) == 1 else axis
    return axis if isinstance(axis, int) else None
