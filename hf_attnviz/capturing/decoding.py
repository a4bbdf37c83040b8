"""Decoding step by step, kept in strides: what one row at a time would cost is paid once for many rows.

A step of decoding reads one token. To work on its one row at once would cost more than the model's own step, for
everything is done again in every layer. While a dynamic cache does nothing but grow, the keys of the last step hold
those of all steps before it; so a step only leaves its query and its output behind, and the rows of many steps are
reduced together, as one call: row i sees the keys that were there in its step. That the keys were not touched since is
proved with the rest: the rows, mixed again, must give what the kernel gave then.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from hf_attnviz.capturing.address import Address
from hf_attnviz.capturing.keeping import Kept, kept_of, unobserved
from hf_attnviz.capturing.places import places_of_steps, with_tokens
from hf_attnviz.capturing.proof import Proved
from hf_attnviz.capturing.runs import LAYOUT, AttentionCall, Pass, Run, Side
from hf_attnviz.capturing.seen import Seen
from hf_attnviz.capturing.streams import Station
from hf_attnviz.errors import CaptureError
from hf_attnviz.language import Text
from hf_attnviz.reducing.ran import Ran
from hf_attnviz.reducing.reducer import Reducer

STRIDE: Final = 64  # steps that are reduced together
_GROWING: Final = ("DynamicCache", "DynamicLayer")  # the cache, and the kind of all its layers


@dataclass(eq=False)
class Lane:
    """What the steps of one module have left behind."""

    call: AttentionCall
    queries: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    masks: list[tuple[Tensor | None, Tensor | None, int]] = field(default_factory=list)
    last: Mapping[str, Any] = field(default_factory=dict)

    def take(self, given: Mapping[str, Any], output: Tensor) -> None:
        """One more row: what the module's kernel was given by name, and what it gave."""
        self.queries.append(given["query"].detach())
        self.outputs.append(output.detach())
        self.masks.append((given.get("attention_mask"), given.get("position_bias"), given["key"].shape[2]))
        self.last = given

    def empty(self) -> None:
        """Forget the rows."""
        self.queries, self.outputs, self.masks, self.last = [], [], [], {}


class Lanes:
    """The lanes of a run: one for each module that attends in every step.

    Args:
        calls: its calls in the first forward; a module that attends twice has no lane, and then none has.
        modules: those of the model, by name.
    """

    def __init__(self, calls: Sequence[AttentionCall], modules: Mapping[str, nn.Module]) -> None:
        self.lanes = {id(modules[call.module]): Lane(call) for call in calls}
        self._possible = 0 < len(self.lanes) == len(calls) and all(_plain(call) for call in calls)
        self.steps: list[Pass] = []

    def goes_on(self, one: Pass, cache: Any) -> bool:
        """Whether a pass that begins is one more step like those before it."""
        if not self._possible or one.side.new != 1 or not one.side.cached or not _grows(cache):
            return False
        return not self.steps or _goes_on(self.steps[-1], one)

    def reduced(self, run: Run, reducers: Sequence[Reducer[Any]]) -> Iterator[AttentionCall]:
        """The calls of all steps since the last time; the lanes are empty afterwards.

        Raises:
            CaptureError: a module left out a step, or the cache was changed since: a row cannot be proved.
        """
        steps, self.steps = self.steps, []
        lanes = [replace(lane) for lane in self.lanes.values()] if steps else []
        for lane in self.lanes.values():
            lane.empty()
        return (_call(run, steps, lane, reducers) for lane in lanes)


def _call(run: Run, steps: Sequence[Pass], lane: Lane, reducers: Sequence[Reducer[Any]]) -> AttentionCall:
    count, given = len(lane.queries), lane.last
    if count != len(steps) or any(query.shape[2] != 1 for query in lane.queries):
        raise CaptureError(
            Text(
                f"{lane.call.module} attended in the first pass, and in {count} of {len(steps)} steps since, where "
                "only transformers' interface was watched; keep maps, which are kept at once",
                f"{lane.call.module} 在首次前向中做了注意力，此后 {len(steps)} 步中只有 {count} 步做了，"
                "而这些步里只观察 transformers 的接口；请改为保留注意力图，它会立即保留",
            )
        )
    with unobserved(lane.queries[0]):
        query = torch.cat(lane.queries, 2)
        batch, heads, _, size = query.shape
        output = torch.cat([one.reshape(batch, 1, heads, -1) for one in lane.outputs], 1)
        scale = given.get("scaling")
        ran = Ran(
            query=query,
            key=given["key"].detach(),
            value=given["value"].detach(),
            output=output,
            scale=size**-0.5 if scale is None else float(scale),
            mask=_mask(lane, query),
        )
        places = places_of_steps(run, steps, lane.call.kind, ran.shape)
        if any("tokens" in reducer.needs for reducer in reducers):
            places = with_tokens(places, run, steps[-1], steps[-1].side, lane.call.kind, steps=len(steps))

        def refuse() -> Proved:
            raise CaptureError(
                Text(
                    "the cache was changed while decoding: rows of earlier steps cannot be proved any more",
                    "解码过程中缓存被改动：先前各步的行无法再核验",
                )
            )

        seen = Seen(refuse, lane.call.implementation, lambda: _vectors(ran), ran=ran)
        address = Address(lane.call.module, lane.call.stack, lane.call.layer)
        station = Station(run, steps[-1], address, "", lane.call.layer, 0, lane.call.kind == "cross", True, True)
        kept: Kept = kept_of(seen, reducers, places, Side(), station)
    return replace(
        lane.call,
        step=steps[0].step,
        way=kept.proved.way,
        masked_rows=kept.proved.masked_rows,
        kept=kept.kept,
        error_tensor=kept.proved.error,
        bound=kept.proved.bound,
        grade=kept.proved.grade,
        shape=tuple(ran.shape),
        positions=places.queries,
        looks_back=kept.proved.looks_back if lane.call.kind == "self" else None,
        steps=count,
    )


def _mask(lane: Lane, query: Tensor) -> Tensor | None:
    """What was added to the scores of each row, bias of positions included; a row has not seen the keys of later steps.

    None: nothing at all.
    """
    keys = lane.last["key"].shape[2]
    if lane.call.kind == "cross" and all(part is None for parts in lane.masks for part in parts[:2]):
        return None
    rows = []
    for mask, bias, width in lane.masks:
        row = query.new_zeros(1, 1, 1, width, dtype=torch.float32)
        if mask is not None:
            mask = mask[..., :width]
            row = torch.where(mask, row, -torch.inf) if mask.dtype == torch.bool else row + mask
        row = row if bias is None else row + bias[..., :width]
        rows.append(torch.nn.functional.pad(row, (0, keys - width), value=-torch.inf))
    batch, heads = (max(row.shape[axis] for row in rows) for axis in (0, 1))
    return torch.cat([row.expand(batch, heads, 1, keys) for row in rows], 2)


def _vectors(ran: Ran) -> Mapping[str, Tensor]:
    return {"query": ran.query * ran.scale, "key": ran.key, "value": ran.value, "output": ran.output.transpose(1, 2)}


def _plain(call: AttentionCall) -> bool:
    """Whether a call is one whose later rows are read off its arguments."""
    return call.layout == LAYOUT and call.index == 0 and call.implementation == "sdpa"


def _grows(cache: Any) -> bool:
    """Whether a cache only ever gets longer, its keys left as they are."""
    sides = [getattr(cache, name, None) for name in ("self_attention_cache", "cross_attention_cache")]
    caches: list[Any] = sides if sides[0] is not None else [cache]
    return all(
        type(one).__name__ == _GROWING[0] and all(type(layer).__name__ == _GROWING[1] for layer in one.layers)
        for one in caches
    )


def _goes_on(before: Pass, now: Pass) -> bool:
    """Whether every row of a pass goes on with the very sequence that it had before: no beam changed its place."""
    if before.side.past + 1 != now.side.past or before.batch != now.batch:
        return False
    if before.prefix is None or now.prefix is None:
        return before.prefix is now.prefix
    return torch.equal(before.prefix, now.prefix[:, :-1])
