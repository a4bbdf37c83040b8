"""Several traces as one padded batch, and the labels that analyses share."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad

from hf_attnviz.axes import HEAD, LAYER, head_name
from hf_attnviz.errors import ArgumentError, ShapeError
from hf_attnviz.result import Axis
from hf_attnviz.trace import AttentionStack, Trace


@dataclass(frozen=True, eq=False)
class Pooled:
    """The same stack of several traces.

    Attributes:
        attention: ``[layer, batch, head, query, key]``, filled up with zeros.
        valid, valid_queries: ``[batch, key]`` and ``[batch, query]``, True for what is no filling.
        positions: ``[query]`` key positions of the rows; -1 for cross-attention, which stands on no key.
        causal: no row of any trace looks ahead.
        stacks: the stack of each trace; that of the first has the names and layers.
    """

    attention: torch.Tensor
    valid: torch.Tensor
    valid_queries: torch.Tensor
    positions: torch.Tensor
    causal: bool
    stacks: tuple[AttentionStack, ...]

    @property
    def stack(self) -> AttentionStack:
        """The stack of the first trace."""
        return self.stacks[0]

    @property
    def masks(self) -> dict[str, Any]:
        """What functions of attention must be told of it, by argument."""
        return {
            "valid": self.valid,
            "valid_queries": self.valid_queries,
            "positions": self.positions,
            "causal": self.causal,
        }

    @property
    def layer_axis(self) -> Axis:
        """The layers by their block index."""
        return Axis(LAYER, tuple(map(str, self.stack.layers)))

    @property
    def head_axis(self) -> Axis:
        """The heads of one layer."""
        return Axis(HEAD, tuple(map(str, range(self.attention.shape[2]))))

    @property
    def head_names(self) -> tuple[str, ...]:
        """All heads of all layers, by name, layer by layer."""
        return tuple(head_name(layer, head) for layer in self.stack.layers for head in range(self.attention.shape[2]))

    @property
    def what(self) -> dict[str, object]:
        """What was analysed, for a result's parameters."""
        return {"stack": self.stack.name, "sequences": self.attention.shape[1], "causal": self.causal}


def stack_of(trace: Trace, stack: str | None) -> AttentionStack:
    """A stack of one trace; default: the only one.

    Raises:
        ArgumentError: something else than one trace.
    """
    if not isinstance(trace, Trace):
        raise ArgumentError(
            f"expected one trace, got {type(trace).__name__}; take recording.trace, or one of recording.traces"
        )
    return trace.stack(stack)


def listed_traces(traces: Trace | Sequence[Trace]) -> list[Trace]:
    """One trace or several, as a list.

    Raises:
        ArgumentError: none, or something else.
    """
    if isinstance(traces, str) or not isinstance(traces, Trace | Iterable):
        raise ArgumentError(
            f"expected a trace or several, got {type(traces).__name__}; take recording.traces, or make one with "
            "av.trace_text(model, text)"
        )
    several = [traces] if isinstance(traces, Trace) else list(traces)
    if not several:
        raise ArgumentError("expected a trace or several, got none")
    for one in several:
        if not isinstance(one, Trace):
            raise ArgumentError(f"expected traces, got {type(one).__name__} among them; take recording.traces")
    return several


def pooled(
    traces: Trace | Sequence[Trace],
    stack: str | None,
    *,
    of: Callable[[AttentionStack], torch.Tensor] = AttentionStack.stacked,
) -> Pooled:
    """The stack of one trace or of several, side by side; ``of`` reads ``[layer, head, query, key]`` from each.

    Raises:
        ArgumentError: no trace at all, or something else.
        ShapeError: traces whose layers or heads differ.
    """
    several = listed_traces(traces)
    stacks = [trace.stack(stack) for trace in several]
    attention = [of(one) for one in stacks]
    if len({(one.layers, maps.shape[1]) for one, maps in zip(stacks, attention, strict=True)}) > 1:
        raise ShapeError("these traces differ in layers or heads; analyse traces of one model together")
    rows = [one.maps[0].positions for one in stacks]
    longest = max(rows, key=lambda places: len(places or ()))
    if any(places is not None and places != (longest or ())[: len(places)] for places in rows):
        raise ShapeError("these traces hold rows at different positions; capture them with the same keep")
    queries, keys = max(m.shape[-2] for m in attention), max(m.shape[-1] for m in attention)
    filled = [pad(m, (0, keys - m.shape[-1], 0, queries - m.shape[-2])) for m in attention]
    return Pooled(
        torch.stack(filled, dim=1),
        torch.stack([torch.arange(keys) < m.shape[-1] for m in attention]),
        torch.stack([torch.arange(queries) < m.shape[-2] for m in attention]),
        torch.tensor(longest if longest is not None else [-1] * queries),
        all(m.causal for one in stacks for m in one),
        tuple(stacks),
    )
