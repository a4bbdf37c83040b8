"""Several traces as one padded batch, and the labels that analyses share."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn.functional import pad

from hf_attnviz.axes import HEAD, LAYER, head_name
from hf_attnviz.errors import ArgumentError, ShapeError
from hf_attnviz.language import Text
from hf_attnviz.result import Axis
from hf_attnviz.trace import AttentionStack, Trace

UNLIKE: Final = Text(
    "these traces differ in layers or heads; analyse traces of one model together",
    "这些 trace 的层或头不同；请一起分析同一模型的 trace",
)


class Labelled:
    """The names of what the same stack of several traces has in common.

    Attributes:
        stacks: the stack of each trace; that of the first has the names and layers.
        causal: no row of any trace looks ahead.
    """

    stacks: tuple[AttentionStack, ...]
    causal: bool

    @property
    def stack(self) -> AttentionStack:
        """The stack of the first trace."""
        return self.stacks[0]

    @property
    def layer_axis(self) -> Axis:
        """The layers by their block index."""
        return Axis(LAYER, tuple(map(str, self.stack.layers)))

    @property
    def head_axis(self) -> Axis:
        """The heads of one layer."""
        return Axis(HEAD, tuple(map(str, range(self.stack.maps[0].heads))))

    @property
    def head_names(self) -> tuple[str, ...]:
        """All heads of all layers, by name, layer by layer."""
        return tuple(head_name(m.layer, head) for m in self.stack for head in range(m.heads))

    @property
    def what(self) -> dict[str, object]:
        """What was analysed, for a result's parameters."""
        return {"stack": self.stack.name, "sequences": len(self.stacks), "causal": self.causal}


@dataclass(frozen=True, eq=False)
class SideBySide(Labelled):
    """The same stack of several traces, side by side.

    Attributes:
        valid, valid_queries: ``[batch, key]`` and ``[batch, query]``, True for what is no filling.
        positions: ``[query]`` key positions of the rows; -1 for cross-attention, which stands on no key.
    """

    valid: torch.Tensor
    valid_queries: torch.Tensor
    positions: torch.Tensor
    causal: bool
    stacks: tuple[AttentionStack, ...]

    @property
    def masks(self) -> dict[str, Any]:
        """What functions of attention must be told of it, by argument."""
        return {
            "valid": self.valid,
            "valid_queries": self.valid_queries,
            "positions": self.positions,
            "causal": self.causal,
        }


@dataclass(frozen=True, eq=False)
class Pooled(SideBySide):
    """The weights of the same stack of several traces.

    Attributes:
        attention: ``[layer, batch, head, query, key]``, filled up with zeros.
    """

    attention: torch.Tensor


@dataclass(frozen=True, eq=False)
class PooledRows(SideBySide):
    """What ``keep="statistics"`` kept of the same stack of several traces.

    Attributes:
        rows: ``entropy``, ``distance`` and ``sink``, each ``[layer, batch, head, query]``, filled up with zeros.
        received: ``[layer, batch, head, key]``, filled up with zeros.
        known: whether it is known which keys a row may see, and alike for all maps that have a key after a row.
    """

    rows: Mapping[str, torch.Tensor]
    received: torch.Tensor
    known: bool


def causal(stacks: Sequence[AttentionStack]) -> bool:
    """Whether no row of any of these looks ahead."""
    return all(m.causal for stack in stacks for m in stack)


def stack_of(trace: Trace, stack: str | None) -> AttentionStack:
    """A stack of one trace; default: the only one.

    Raises:
        ArgumentError: something else than one trace.
    """
    if not isinstance(trace, Trace):
        raise ArgumentError(
            Text(
                f"expected one trace, got {type(trace).__name__}; take recording.trace, or one of recording.traces",
                f"应为一个 trace，得到的是 {type(trace).__name__}；请用 recording.trace，或 recording.traces 之一",
            )
        )
    return trace.stack(stack)


def listed_traces(traces: Trace | Sequence[Trace]) -> list[Trace]:
    """One trace or several, as a list.

    Raises:
        ArgumentError: none, or something else.
    """
    if isinstance(traces, str) or not isinstance(traces, Trace | Iterable):
        raise ArgumentError(
            Text(
                f"expected a trace or several, got {type(traces).__name__}; take recording.traces, or make one with "
                "av.trace_text(model, text)",
                f"应为一个或多个 trace，得到的是 {type(traces).__name__}；请用 recording.traces，或用 "
                "av.trace_text(model, text) 得到一个",
            )
        )
    several = [traces] if isinstance(traces, Trace) else list(traces)
    if not several:
        raise ArgumentError(Text("expected a trace or several, got none", "应为一个或多个 trace，得到零个"))
    for one in several:
        if not isinstance(one, Trace):
            raise ArgumentError(
                Text(
                    f"expected traces, got {type(one).__name__} among them; take recording.traces",
                    f"应全为 trace，其中有 {type(one).__name__}；请用 recording.traces",
                )
            )
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
    stacks = [trace.stack(stack) for trace in listed_traces(traces)]
    attention = [of(one) for one in stacks]
    ends = _side_by_side(stacks)
    queries, keys = ends["valid_queries"].shape[1], ends["valid"].shape[1]
    filled = [pad(m, (0, keys - m.shape[-1], 0, queries - m.shape[-2])) for m in attention]
    return Pooled(**ends, attention=torch.stack(filled, dim=1))


def pooled_rows(traces: Trace | Sequence[Trace], stack: str | None) -> PooledRows | None:
    """The statistics of the stack of one trace or of several, side by side; None where all keep their weights, of which
    more can be told.

    Raises:
        NotKeptError: neither weights nor statistics.
        ArgumentError, ShapeError: as :func:`pooled`.
    """
    stacks = [trace.stack(stack) for trace in listed_traces(traces)]
    if all(one.has_weights for one in stacks):
        return None
    ends = _side_by_side(stacks)
    rows = {name: _filled([_of_layers(one, name) for one in stacks]) for name in ("entropy", "distance", "sink")}
    received = _filled([_of_layers(one, "received") for one in stacks])
    free = [m for one in stacks for m in one if m.positions and min(m.positions) < len(m.keys) - 1]
    told = all(m.has_weights or m.looks_back is not None for m in free)
    return PooledRows(**ends, rows=rows, received=received, known=told and len({m.causal for m in free}) < 2)


def _of_layers(stack: AttentionStack, name: str) -> torch.Tensor:
    """One of the statistics of all layers, ``[layer, head, query]`` or ``[layer, head, key]``."""
    return torch.stack([m.statistics[name] for m in stack.alike()])


def _filled(several: Sequence[torch.Tensor]) -> torch.Tensor:
    longest = max(one.shape[-1] for one in several)
    return torch.stack([pad(one, (0, longest - one.shape[-1])) for one in several], dim=1)


def _side_by_side(stacks: Sequence[AttentionStack]) -> dict[str, Any]:
    """The fields of :class:`SideBySide`.

    Raises:
        ShapeError: traces that differ in layers, heads or the places of their rows.
    """
    if len({(one.layers, one.maps[0].heads) for one in stacks}) > 1:
        raise ShapeError(UNLIKE)
    rows = [one.maps[0].positions for one in stacks]
    longest = max(rows, key=lambda places: len(places or ()))
    if any(places is not None and places != (longest or ())[: len(places)] for places in rows):
        raise ShapeError(
            Text(
                "these traces hold rows at different positions; capture them with the same keep",
                "这些 trace 所留的行位置不同；请以相同的 keep 捕获",
            )
        )
    sizes = torch.tensor([one.maps[0].shape[-2:] for one in stacks])
    queries, keys = (int(most) for most in sizes.amax(0))
    return {
        "valid": torch.arange(keys) < sizes[:, 1:],
        "valid_queries": torch.arange(queries) < sizes[:, :1],
        "positions": torch.tensor(longest if longest is not None else [-1] * queries),
        "causal": causal(stacks),
        "stacks": tuple(stacks),
    }
