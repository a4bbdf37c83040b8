"""Attention of one query at a time, in a loop: beside an RNN, every step of a decoder attends once more.

Calls from one place of one module, in one pass, with one query each, are the rows of one map: the first has step 0.
Where they look at a sequence that does not grow, it is another one: cross-attention.
"""

import inspect
import sys
from dataclasses import dataclass, replace

import torch
from torch import nn

from hf_attnviz.capturing.runs import AttentionCall, Pass
from hf_attnviz.reducing.statistics import nowhere

Place = tuple[str, int | None]
"""A module's name, and the place in its ``forward`` that is running."""


@dataclass(frozen=True, eq=False)
class Loop:
    """The last turn of a loop: its call, its shape ``[batch, head, 1, key]``, and how many turns there were."""

    call: AttentionCall
    shape: torch.Size
    turns: int = 1

    def goes_on(self, shape: torch.Size) -> bool:
        """Whether weights of this shape are the next turn."""
        return len(shape) == 4 and shape[:3] == self.shape[:3]

    def kind(self, shape: torch.Size, said: str) -> str:
        """The kind of the next turn, whatever names have said."""
        return "cross" if shape[-1] == self.shape[-1] else said


def place_of(module: nn.Module, name: str) -> Place:
    """Where ``module`` is running: two attentions of one module are at two places, the turns of a loop at one."""
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back  # type: ignore[assignment]
    return name, None if frame is None else frame.f_lasti


def remember(one: Pass, place: Place, call: AttentionCall, shape: torch.Size, before: Loop | None) -> None:
    """Note a call that has one query, which is no token that was read: it may be a turn of a loop."""
    if len(shape) != 4 or shape[2] != 1 or call.tokens:
        return
    one.loops[place] = Loop(call, shape, 1 if before is None else before.turns + 1)
    if before is not None and before.call.kind != call.kind:
        kept = dict(before.call.kept)
        if call.kind == "cross" and "statistics" in kept:
            kept["statistics"] = nowhere(kept["statistics"])
        one.calls[one.calls.index(before.call)] = replace(before.call, kind=call.kind, kept=kept)
