"""What a call of attention will take in memory, told before anything is made of it; and what is held of one."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, is_dataclass
from math import prod
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from hf_attnviz.reducing.reducer import Reducer


@dataclass(frozen=True)
class Outline:
    """What is known of a call of attention before anything is made of it.

    Attributes:
        shape: that of its weights, ``[batch, …, query, key]``.
        itemsize: bytes of one weight, as the model computes it.
        size: how long the vectors of a head are; 0 where that is not known.
        groups: how many key-value heads there are.
        past: how many positions were read before its first row.
        causal: whether no row looks ahead, as far as the module says so.
        apart: whether each row is a pass of its own.
        device: where it is computed.
    """

    shape: tuple[int, ...]
    itemsize: int = 4
    size: int = 0
    groups: int = 0
    past: int = 0
    causal: bool = False
    apart: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def batch(self) -> int:
        """How many rows the batch has."""
        return self.shape[0]

    @property
    def heads(self) -> int:
        """How many heads look, in all sequences of the batch; with whatever axes a model puts beside them."""
        count: int = prod(self.shape[:-2])
        return count

    @property
    def queries(self) -> int:
        """How many rows each head has."""
        return self.shape[-2]

    @property
    def keys(self) -> int:
        """How many keys each row has."""
        return self.shape[-1]

    @property
    def weights(self) -> int:
        """How many weights it has."""
        return self.heads * self.queries * self.keys

    @property
    def whole(self) -> int:
        """Bytes of all of them as the model computes them."""
        return self.weights * self.itemsize


def need_of(reducers: Sequence[Reducer[Any]], outline: Outline) -> int:
    """Bytes that reducers are going to keep of a call; those that cannot tell (no ``need``) count as nothing yet."""
    told = (getattr(reducer, "need", None) for reducer in reducers)
    return sum(need(outline) for need in told if need is not None)


def held(value: Any, known: set[int]) -> int:
    """Bytes of memory that stand behind all tensors of a value, each counted once.

    Args:
        known: the addresses of memory that was counted before; what is counted now is entered.
    """
    total = 0
    for one in _tensors(value):
        place, size = _memory(one)
        total += 0 if place in known else size
        known.add(place)
    return total


def _memory(one: Tensor) -> tuple[int, int]:
    """Where a tensor's memory is, and how many bytes it has; by its own size inside torch's transforms."""
    try:
        storage = one.untyped_storage()
        return storage.data_ptr(), storage.nbytes()
    except NotImplementedError:
        return id(one), one.nbytes


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
        return
    parts: Iterable[Any] = ()
    if isinstance(value, (dict, MappingProxyType)):
        parts = value.values()
    elif isinstance(value, (tuple, list)):
        parts = value
    elif is_dataclass(value):
        parts = vars(value).values()
    for part in parts:
        yield from _tensors(part)
