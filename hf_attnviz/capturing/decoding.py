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

from hf_attnviz.capturing.keeping import Kept, kept_of
from hf_attnviz.capturing.places import places_of_steps
from hf_attnviz.capturing.proof import Proved
from hf_attnviz.capturing.runs import LAYOUT, AttentionCall, Pass, Run, Side
from hf_attnviz.capturing.seen import Seen
from hf_attnviz.errors import CaptureError
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
    last: Mapping[str, Any] = field(default_factory=dict)

    def take(self, given: Mapping[str, Any], output: Tensor) -> None:
        """One more row: what the module's kernel was given by name, and what it gave."""
        self.queries.append(given["query"].detach())
        self.outputs.append(output.detach())
        self.last = given

    def empty(self) -> None:
        """Forget the rows."""
        self.queries, self.outputs, self.last = [], [], {}


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
            f"{lane.call.module} attended in the first pass, and in {count} of {len(steps)} steps since, where only "
            "transformers' interface was watched; keep maps, which are kept at once"
        )
    with torch.no_grad(), torch._C.DisableTorchFunction():
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
            mask=_mask(lane, count, query),
        )
        places = places_of_steps(run, steps, lane.call.kind, ran.shape)

        def refuse() -> Proved:
            raise CaptureError("the cache was changed while decoding: rows of earlier steps cannot be proved any more")

        seen = Seen(refuse, lane.call.implementation, lambda: _vectors(ran), ran=ran)
        kept: Kept = kept_of(seen, reducers, places, Side())
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


def _mask(lane: Lane, count: int, query: Tensor) -> Tensor | None:
    """What to add to the scores: row i has not seen the keys of later steps, and nobody sees padding."""
    mask, keys = lane.last.get("attention_mask"), lane.last["key"].shape[2]
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -torch.inf)
    if lane.call.kind == "cross":
        return None if mask is None else mask[..., :keys].expand(-1, -1, count, -1)
    row = torch.arange(count, device=query.device)[:, None]
    later = torch.arange(keys, device=query.device) > keys - count + row
    later = torch.zeros(later.shape, device=query.device).masked_fill_(later, -torch.inf)[None, None]
    return later if mask is None else later + mask[..., :keys]


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
