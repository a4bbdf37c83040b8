"""What a reducer carries from one attention call of a run to another: up the layers, and from step to step.

A reducer that needs ``"below"`` or ``"before"`` begins each call with a :class:`Carried` as its state, and says by
``carry`` what goes on from it. Who keeps it in between, follows the rows of a batch and knows the order of the layers
is no concern of the reducer's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar, cast

from torch import Tensor

from hf_attnviz.reducing.reducer import Reducer

CARRYING: Final = frozenset({"below", "before"})

Luggage = Mapping[str, Tensor]
"""Tensors by name, each with the batch first."""

State = TypeVar("State")


@dataclass(frozen=True, eq=False)
class Carried:
    """What has come to a call.

    Attributes:
        below: what goes on from the layer below, in the same pass; None at the first layer.
        before: what went on from this layer in the pass before, its rows in the order of this batch; None where the
            call begins the sequence.
    """

    below: Luggage | None = None
    before: Luggage | None = None


class Carrying(Reducer[State], Protocol[State]):
    """A reducer that carries something."""

    def carry(self, state: State) -> Luggage:
        """What goes on from a call, to the layer above and to the next pass."""
        ...


@dataclass(frozen=True, eq=False)
class Carriage:
    """What comes to one call and goes on from it, by the reducer's name."""

    came: Mapping[str, Carried] = field(default_factory=dict)
    goes: dict[str, Luggage] = field(default_factory=dict)

    def begun(self, one: Reducer[Any]) -> Carried | None:
        """A reducer's state before the first tile; None for one that carries nothing."""
        return self.came.get(one.name)

    def ended(self, one: Reducer[Any], state: Any) -> Any:
        """What a reducer hands out; what goes on is noted."""
        if one.needs & CARRYING:
            self.goes[one.name] = cast(Carrying[Any], one).carry(state)
        return one.result(state)
