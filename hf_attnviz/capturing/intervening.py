"""Interventions: heads silenced, replaced or blindfolded while the model runs, by the same interception as capture.

A head is taken where its kernel has mixed the values, before the output projection. Whatever is not named stays as the
kernel gave it; when the block ends, the model is as it was. A recording that is open at the same time is shown the
weights by which the model went on.

Sources: Michel et al., "Are Sixteen Heads Really Better than One?" (2019), section 3 (zero); Wang et al.,
"Interpretability in the Wild" (2022), section 2 (mean, and outputs of another run); Geva et al., "Dissecting Recall of
Factual Associations" (2023), section 4 (knock-out).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import nn

from hf_attnviz.axes import head_name
from hf_attnviz.capturing import scope
from hf_attnviz.capturing.address import of_attention
from hf_attnviz.capturing.recording import Recording
from hf_attnviz.capturing.runs import AttentionCall, Run, Side
from hf_attnviz.capturing.steering import Mixed
from hf_attnviz.errors import ArgumentError, AttnvizError, CaptureError, UnknownStackError, listed

Head = tuple[str, int, int] | tuple[int, int]
_MODES: Final = ("zero", "mean")
_SUMS_TO_ONE: Final = 1e-3  # a row that misses one by more has a sink that is no key


@dataclass(frozen=True, eq=False)
class Site:
    """Which call of attention is under way.

    Attributes:
        stack, layer, module: as an :class:`AttentionCall` says them; the stack is ``"cross"`` where it looks across.
        turn: which call of the module in its run it is, from 0.
        queries: the place of each row in its own sequence ``[batch, query]``; -1 for padding.
        keys: the place of each column in its own sequence ``[batch, key]``; -1 for padding.
    """

    stack: str
    layer: int
    module: str
    turn: int
    queries: torch.Tensor
    keys: torch.Tensor


Change = Callable[[Site, torch.Tensor, Mixed], Mixed]
"""``change(site, heads, mixed)``: what goes on; ``heads`` ``[head]`` is True for those that are meant."""


class Intervention(Recording):
    """An intervention on a model: made by :func:`ablate`, :func:`knock_out`, :func:`patch`; used in a ``with`` block.

    Nothing is recorded. When the block ends, a head that never ran, or one that could not be reached, is an error.
    """

    intervenes = True

    def __init__(self, target: Any, heads: Sequence[Head] | None, change: Change) -> None:
        super().__init__(target, last=1)
        self._wanted = None if heads is None else _checked_heads(self, heads)
        self._change = change
        self._ran: dict[tuple[str, int], int] = {}
        self._reached: set[tuple[str | None, int, int]] = set()
        self._problem: Exception | None = None
        self._turns: Counter[tuple[int, str]] = Counter()

    def steer(self, session: scope.Session, module: nn.Module, mixed: Mixed) -> Mixed:
        """What goes on through the model instead of what was mixed."""
        try:
            site = self._site(session, module, mixed)
            heads = mixed.output.shape[2]
            self._ran[site.stack, site.layer] = heads
            chosen = self._chosen(site, heads)
            if not bool(chosen.any()):
                return mixed
            with scope.deaf():
                return self._change(site, chosen.to(mixed.output.device), mixed)
        except Exception as problem:
            self.blame(session, module, problem)
            return mixed

    def receive(self, session: scope.Session, module: nn.Module, see: Any) -> None:
        """A call is over; nothing of it is kept."""
        for outer in session.contexts:
            outer.attended = True
        session.context(module).maps += 1

    def blame(self, session: scope.Session, module: nn.Module | None, problem: Exception) -> None:
        """Remember what went wrong first: runs are forgotten one after another."""
        self._problem = self._problem or problem

    def out_of_reach(self, session: scope.Session, module: nn.Module) -> None:
        """Nothing can be put in place of what this module mixed: an error where one of its heads was meant."""
        address, context = self._addresses[id(module)], session.context(module)
        one = session.current or session.run.prologue()
        layer = one.layer(self.group(address, module, context), context, address.layer)
        meant = ((stack in (None, "cross", address.stack), wanted) for stack, wanted, _ in self._wanted or ())
        if self._wanted is None or (True, layer) in meant:
            problem = CaptureError(
                f"{address.module} ({type(module).__name__}) computes attention in a way in which nothing can be put "
                "in its place; intervene in other layers"
            )
            self.blame(session, module, problem)

    def check(self) -> None:
        """Raise what went wrong so far.

        Raises:
            CaptureError: the intervention did not happen as asked: a head that did not run, or could not be reached.
        """
        if self._outside:
            super().check()
        if self._problem is not None:
            kind = type(self._problem) if isinstance(self._problem, AttnvizError) else CaptureError
            raise kind(f"the intervention did not happen as asked: {self._problem}") from self._problem
        missed = [head for head in self._wanted or () if head not in self._reached]
        if self.runs and (missed or not self._ran):
            ran = (f"{stack} {head_name(layer, 0)} to H{heads - 1}" for (stack, layer), heads in self._ran.items())
            asked = listed(f"{stack or ''} {head_name(layer, head)}".strip() for stack, layer, head in missed)
            raise CaptureError(
                f"nothing was done to {asked}: no such head ran where it can be reached. Heads that ran: {listed(ran)}"
            )

    def _check(self, run: Run) -> None:
        self.check()

    def _chosen(self, site: Site, heads: int) -> torch.Tensor:
        """Which heads of a call are meant ``[head]``."""
        if self._wanted is None:
            return torch.ones(heads, dtype=torch.bool)
        chosen = torch.zeros(heads, dtype=torch.bool)
        for stack, layer, head in self._wanted:
            if stack in (None, site.stack) and layer == site.layer and head < heads:
                chosen[head] = True
                self._reached.add((stack, layer, head))
        return chosen

    def _site(self, session: scope.Session, module: nn.Module, mixed: Mixed) -> Site:
        address, context = self._addresses[id(module)], session.context(module)
        one = session.current or session.run.prologue()
        side = session.run.side(address.stack, one)
        layer = one.layer(self.group(address, module, context), context, address.layer)
        kind = self.kind(address, module, context, side, mixed.shape)
        queries = side.positions(*mixed.output.shape[:2])[0]
        batch, keys = mixed.output.shape[0], mixed.keys
        read = session.run.source if kind == "cross" else side
        stack = "cross" if kind == "cross" else address.stack
        turn = self._turns[session.run.number, address.module]
        self._turns[session.run.number, address.module] += 1
        return Site(stack, layer, address.module, turn, queries, _columns(read, batch, keys))


def ablate(
    model: Any, heads: Sequence[Head], *, mode: str = "zero", reference: Recording | None = None
) -> Intervention:
    """Silence heads while the block runs: ``with av.ablate(model, heads=[("decoder", 1, 3)]): model(**inputs)``.

    Args:
        model: a model, a wrapper around one, or a pipeline.
        heads: ``(stack, layer, head)`` each; ``(layer, head)`` where the model has one stack. ``"cross"`` is
            cross-attention. Where a layer has several maps, that head of all of them.
        mode: ``"zero"``: the head puts out zeros. ``"mean"``: in every row its mean output.
        reference: for ``"mean"``: a recording with ``keep="vectors"`` over whose rows the mean goes, all runs pooled;
            None: over the rows of the very call, padding left out.

    Raises:
        ArgumentError, UnknownStackError: heads that mean nothing, an unknown mode.
        CaptureError: when the block ends: a head that did not run, or cannot be reached.
    """
    if mode not in _MODES:
        raise ArgumentError(f"mode={mode!r}: expected one of {listed(_MODES)}")
    if reference is not None and mode != "mean":
        raise ArgumentError('a reference has no meaning with mode="zero"; expected mode="mean"')

    def change(site: Site, chosen: torch.Tensor, mixed: Mixed) -> Mixed:
        instead = torch.zeros_like(mixed.output)
        if mode == "mean":
            instead = instead + (_mean_of_rows(site, mixed.output) if reference is None else _mean(reference, site))
        return _put(mixed, chosen[:, None], instead)

    return Intervention(model, heads, change)


def patch(model: Any, heads: Sequence[Head], *, source: Recording) -> Intervention:
    """Give heads the outputs that they had in another run, while the block runs (activation patching).

    Args:
        model, heads: as in :func:`ablate`.
        source: a recording with ``keep="vectors"`` of one run over inputs of the same shape.

    Raises:
        CaptureError: when the block ends: the source has no such head, or its outputs are of another shape.
    """
    if len(source.runs) != 1:
        raise ArgumentError(f"source holds {len(source.runs)} runs; expected one: capture the one run to take from")

    def change(site: Site, chosen: torch.Tensor, mixed: Mixed) -> Mixed:
        found = _calls(source, site)
        if site.turn >= len(found):
            raise CaptureError(f"{site.module} ran {len(found)} times in the source, and runs once more here")
        instead = found[site.turn].output.transpose(1, 2).to(mixed.output)
        if instead.shape != mixed.output.shape:
            raise CaptureError(
                f"{site.stack} layer {site.layer}: the source's outputs [batch, query, head, size] are "
                f"{tuple(instead.shape)}, here {tuple(mixed.output.shape)}; run it on inputs of the same length"
            )
        return _put(mixed, chosen[:, None], instead)

    return Intervention(model, heads, change)


def knock_out(
    model: Any,
    *,
    queries: Sequence[int] | None,
    keys: Sequence[int] | None,
    heads: Sequence[Head] | None = None,
    stack: str | None = None,
) -> Intervention:
    """Forbid queries to look at keys while the block runs; what is left of each row is scaled up, as a mask would.

    A row to which nothing is left puts out zeros.

    Args:
        model: as in :func:`ablate`.
        queries, keys: positions in the sequence, padding left out; negative ones count from its end; None: all.
        heads: as in :func:`ablate`; None: all heads of ``stack``.
        stack: the stack that is meant when ``heads`` names none; default: every one.

    Raises:
        ArgumentError: neither queries nor keys.
        CaptureError: when the block ends: no such row or key was there; or gradients were on, and are not carried.
    """
    for name, chosen in (("queries", queries), ("keys", keys)):
        if chosen is not None and (isinstance(chosen, (int, str)) or not chosen):
            raise ArgumentError(f"{name}={chosen!r}: expected a list of positions such as [0, -1], or None for all")
    if queries is None and keys is None:
        raise ArgumentError("queries=None, keys=None would forbid everything; name positions of one of the two")
    return _KnockOut(model, heads, stack, queries, keys)


class _KnockOut(Intervention):
    def __init__(
        self,
        model: Any,
        heads: Sequence[Head] | None,
        stack: str | None,
        queries: Sequence[int] | None,
        keys: Sequence[int] | None,
    ) -> None:
        super().__init__(model, heads, self._forbid)
        self._stack, self._queries, self._keys = stack, queries, keys
        self._forbidden = False

    def check(self) -> None:
        super().check()
        if self.runs and not self._forbidden:
            stacks = listed(dict.fromkeys(stack for stack, _ in self._ran))
            raise CaptureError(
                f"nothing was knocked out: queries {self._queries} and keys {self._keys} never met"
                f"{f' in stack {self._stack!r}' if self._stack else ''}; stacks that ran: {stacks}"
            )

    def _forbid(self, site: Site, chosen: torch.Tensor, mixed: Mixed) -> Mixed:
        if self._stack not in (None, site.stack):
            return mixed
        rows = _at(site.queries, self._queries, site.keys if site.stack != "cross" else site.queries)
        forbidden = (rows[:, :, None] & _at(site.keys, self._keys, site.keys)[:, None, :]).to(mixed.output.device)
        if not bool(forbidden.any()):
            return mixed
        self._forbidden = True
        if torch.is_grad_enabled() and mixed.output.requires_grad:
            raise CaptureError("knock_out carries no gradients; run the model inside torch.no_grad()")
        seen = mixed.see()
        weights = seen.proved.weights if mixed.weights is None else mixed.weights
        value = seen.vectors().get("value")
        if value is None or weights.dim() != 4:
            raise CaptureError(f"{site.stack} layer {site.layer} does not show its values; ablate its heads instead")
        cut = torch.where(chosen[:, None, None], _without(weights, forbidden[:, None]), weights)
        values = value.repeat_interleave(weights.shape[1] // value.shape[1], dim=1)
        instead = (cut.to(values.dtype) @ values).transpose(1, 2)
        rows_hit = forbidden.any(-1)[:, :, None, None]
        return replace(_put(mixed, rows_hit & chosen[:, None], instead), weights=cut.to(weights.dtype))


def _without(weights: torch.Tensor, forbidden: torch.Tensor) -> torch.Tensor:
    """Rows without some of their keys, the others (and a sink that is no key) scaled up in proportion."""
    exact = weights.double()
    left = exact.masked_fill(forbidden, 0)
    beyond = 1 - exact.sum(-1, keepdim=True)
    remaining = left.sum(-1, keepdim=True) + torch.where(beyond.abs() < _SUMS_TO_ONE, 0, beyond)
    scaled = torch.where(remaining > torch.finfo(weights.dtype).tiny, left / remaining, 0)
    return torch.where(forbidden.any(-1, keepdim=True), scaled, exact).to(weights.dtype)


def _put(mixed: Mixed, where: torch.Tensor, instead: torch.Tensor) -> Mixed:
    return replace(mixed, output=torch.where(where, instead.to(mixed.output.dtype), mixed.output))


def _mean_of_rows(site: Site, output: torch.Tensor) -> torch.Tensor:
    """``[head, size]``, the mean over the real rows of a call."""
    real = (site.queries >= 0).to(output.device)
    if int(real.sum(-1).max()) < 2:
        raise CaptureError(
            f"{site.stack} layer {site.layer} ran on one row, which is its own mean; give reference=, a recording with "
            'keep="vectors"'
        )
    return output[real].mean(0)


def _mean(reference: Recording, site: Site) -> torch.Tensor:
    """``[head, size]``, the mean over all real rows of a reference."""
    rows = []
    for call in _calls(reference, site):
        real = call.kept["vectors"]["positions"] >= 0
        rows.append(call.output.transpose(1, 2)[real.to(call.output.device)])
    return torch.cat(rows).mean(0)


def _calls(source: Recording, site: Site) -> list[AttentionCall]:
    """The calls of the same module in a recording."""
    found = [call for call in source.calls if call.module == site.module]
    if not found:
        known = dict.fromkeys(call.module for call in source.calls)
        raise CaptureError(f"the recording given has no {site.module}; it has: {listed(known)}")
    return found


def _at(places: torch.Tensor, wanted: Sequence[int] | None, whole: torch.Tensor) -> torch.Tensor:
    """Which places ``[batch, …]`` are wanted; negative ones count from the end of each sequence, ``whole``."""
    if wanted is None:
        return places >= 0
    length = whole.amax(-1, keepdim=True) + 1
    chosen = torch.zeros_like(places, dtype=torch.bool)
    for place in wanted:
        chosen |= places == (place if place >= 0 else length + place)
    return chosen & (places >= 0)


def _columns(read: Side, batch: int, keys: int) -> torch.Tensor:
    """The place of each key column in its own sequence ``[batch, key]``; -1 for padding."""
    if read.mask is not None and read.mask.shape[0] == batch and read.mask.shape[1] >= keys:
        real = read.mask.bool().cpu()
        return torch.where(real, real.cumsum(1) - 1, -1)[:, -keys:]
    dropped = max(0, read.past + (read.new or 0) - keys)  # a window has let go of the first keys
    return torch.arange(dropped, dropped + keys).expand(batch, -1)


def _checked_heads(recording: Recording, heads: Sequence[Head]) -> tuple[tuple[str | None, int, int], ...]:
    """Heads with their stack; None where the model has one only."""
    if isinstance(heads, (str, tuple)) or not isinstance(heads, Sequence) or not heads:
        raise ArgumentError(f"heads={heads!r}: expected a list such as [('decoder', 1, 3)]")
    stacks = of_attention(recording.model, recording._addresses)
    known = dict.fromkeys((*stacks, *(address.stack for address in recording._addresses.values()), "cross"))
    found = []
    for head in heads:
        numbers = head[-2:] if isinstance(head, (tuple, list)) else ()
        named = len(head) == 3 and isinstance(head[0], str) if isinstance(head, (tuple, list)) else False
        whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers)
        if len(numbers) != 2 or not whole or not (named or len(head) == 2):
            raise ArgumentError(f"head {head!r}: expected (stack, layer, head) or (layer, head), numbers from 0 up")
        if not named and len(stacks) > 1:
            raise UnknownStackError(f"head {head!r}: this model has several stacks, name one of them: {listed(stacks)}")
        if named and head[0] not in known:
            raise UnknownStackError(f"head {head!r}: this model has no such stack; it has: {listed(stacks)}")
        found.append((str(head[0]) if named else None, int(numbers[0]), int(numbers[1])))
    return tuple(dict.fromkeys(found))
