"""Interventions: heads silenced or replaced while the model runs, by the same interception as capture.

A head is taken where its kernel has mixed the values, before the output projection. Whatever is not named stays as the
kernel gave it; when the block ends, the model is as it was. A recording that is open at the same time is shown the
weights by which the model went on.

Sources: Michel et al., "Are Sixteen Heads Really Better than One?" (2019), section 3 (zero); Wang et al.,
"Interpretability in the Wild" (2022), section 2 (mean, and outputs of another run).
"""

import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Final

import torch
from torch import nn

from hf_attnviz.axes import head_name
from hf_attnviz.capturing import scope
from hf_attnviz.capturing.address import model_name, of_attention
from hf_attnviz.capturing.places import columns
from hf_attnviz.capturing.recording import Recording
from hf_attnviz.capturing.runs import AttentionCall, Run
from hf_attnviz.capturing.steering import Mixed
from hf_attnviz.errors import ArgumentError, AttnvizError, CaptureError, UnknownStackError, listed
from hf_attnviz.language import Text, told

Head = tuple[str, int, int] | tuple[int, int]
_MODES: Final = ("zero", "mean")


@dataclass(frozen=True, eq=False)
class Site:
    """Which call of attention is under way.

    Attributes:
        stack, layer, module: as an :class:`AttentionCall` says them; the stack is ``"cross"`` where it looks across.
        turn: which call of the module in its run it is, from 0.
        queries: the place of each row in its own sequence ``[batch, query]``; -1 for padding.
        columns: gives :attr:`keys`.
    """

    stack: str
    layer: int
    module: str
    turn: int
    queries: torch.Tensor
    columns: Callable[[], torch.Tensor]

    @cached_property
    def keys(self) -> torch.Tensor:
        """The place of each column in its own sequence ``[batch, key]``; -1 for padding and what is not read yet."""
        return self.columns()


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
        self._turns: weakref.WeakKeyDictionary[Run, Counter[str]] = weakref.WeakKeyDictionary()

    def new_run(self, two_sided: bool) -> Run:
        """A new run; not where layers would run again, without us, when gradients flow back."""
        if any(part.training and getattr(part, "gradient_checkpointing", False) for part in self.model.modules()):
            self._problem = self._problem or CaptureError(
                Text(
                    "gradient checkpointing runs layers again while gradients flow back, and then without the "
                    "intervention; turn it off, or call model.eval()",
                    "梯度检查点会在梯度回传时再次运行各层，那时干预不在；请关闭它，或调用 model.eval()",
                )
            )
        return super().new_run(two_sided)

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
                Text(
                    f"{address.module} ({type(module).__name__}) computes attention in a way in which nothing can be "
                    "put in its place; intervene in other layers",
                    f"{address.module}（{type(module).__name__}）计算注意力的方式使得无法替换任何内容；请在其他层干预",
                )
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
            why = told(self._problem)
            raise kind(
                Text(f"the intervention did not happen as asked: {why.en}", f"干预没有按要求进行：{why.zh}")
            ) from self._problem
        missed = [head for head in self._wanted or () if head not in self._reached]
        if self.runs and not self._ran:
            raise CaptureError(
                Text(
                    f"{model_name(self.model)} ran and no attention was seen in it where something can be put in its "
                    "place",
                    f"{model_name(self.model)} 运行了，其中没有看到可以替换内容的注意力",
                )
            )
        if self.runs and missed:
            ran = (f"{stack} {head_name(layer, 0)} to H{heads - 1}" for (stack, layer), heads in self._ran.items())
            asked = listed(f"{stack or ''} {head_name(layer, head)}".strip() for stack, layer, head in missed)
            raise CaptureError(
                Text(
                    f"nothing was done to {asked}: no such head ran where it can be reached. Heads that ran: "
                    f"{listed(ran)}",
                    f"对 {asked} 什么也没有做：可达之处没有运行过这样的头。运行过的头：{listed(ran, '无')}",
                )
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
        read = session.run.source if kind == "cross" else side
        at = partial(columns, read, one, mixed.output.shape[0], mixed.keys)
        stack = "cross" if kind == "cross" else address.stack
        turns = self._turns.setdefault(session.run, Counter())
        turns[address.module] += 1
        return Site(stack, layer, address.module, turns[address.module] - 1, queries, at)


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
        raise ArgumentError(
            Text(f"mode={mode!r}: expected one of {listed(_MODES)}", f"mode={mode!r}：应为 {listed(_MODES)} 之一")
        )
    if reference is not None and mode != "mean":
        raise ArgumentError(
            Text(
                'a reference has no meaning with mode="zero"; expected mode="mean"',
                'mode="zero" 时 reference 没有意义；应为 mode="mean"',
            )
        )

    def change(site: Site, chosen: torch.Tensor, mixed: Mixed) -> Mixed:
        instead = torch.zeros_like(mixed.output)
        if mode == "mean":
            instead = instead + (_mean_of_rows(site, mixed.output) if reference is None else _mean(reference, site))
        return put(mixed, chosen[:, None], instead)

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
        raise ArgumentError(
            Text(
                f"source holds {len(source.runs)} runs; expected one: capture the one run to take from",
                f"source 含有 {len(source.runs)} 次运行；应为一次：请只捕获要取用的那一次",
            )
        )

    def change(site: Site, chosen: torch.Tensor, mixed: Mixed) -> Mixed:
        found = _calls(source, site)
        if site.turn >= len(found):
            raise CaptureError(
                Text(
                    f"{site.module} ran {len(found)} times in the source, and runs once more here",
                    f"{site.module} 在 source 中运行了 {len(found)} 次，这里却又多运行一次",
                )
            )
        taken = found[site.turn]
        instead = taken.output.transpose(1, 2).to(mixed.output)
        if instead.shape != mixed.output.shape:
            raise CaptureError(
                Text(
                    f"{site.stack} layer {site.layer}: the source's outputs [batch, query, head, size] are "
                    f"{tuple(instead.shape)}, here {tuple(mixed.output.shape)}; run it on inputs of the same length",
                    f"{site.stack} 第 {site.layer} 层：source 的输出 [batch, query, head, size] 为 "
                    f"{tuple(instead.shape)}，这里为 {tuple(mixed.output.shape)}；请在长度相同的输入上运行",
                )
            )
        if not torch.equal(taken.kept["vectors"]["positions"] >= 0, site.queries >= 0):
            raise CaptureError(
                Text(
                    f"{site.stack} layer {site.layer}: padding stands elsewhere in the source, so its rows are of "
                    "other positions; run it on inputs padded alike",
                    f"{site.stack} 第 {site.layer} 层：source 中填充的位置不同，各行的位置因此对不上；"
                    "请在填充相同的输入上运行",
                )
            )
        return put(mixed, chosen[:, None], instead)

    return Intervention(model, heads, change)


def put(mixed: Mixed, where: torch.Tensor, instead: torch.Tensor) -> Mixed:
    return replace(mixed, output=torch.where(where, instead.to(mixed.output.dtype), mixed.output), changed=True)


def _mean_of_rows(site: Site, output: torch.Tensor) -> torch.Tensor:
    """``[head, size]``, the mean over the real rows of a call."""
    real = (site.queries >= 0).to(output.device)
    if int(real.sum(-1).max()) < 2:
        raise CaptureError(
            Text(
                f"{site.stack} layer {site.layer} ran on one row, which is its own mean; give reference=, a recording "
                "with "
                'keep="vectors"',
                f"{site.stack} 第 {site.layer} 层只运行了一行，其平均就是它自己；请给出 reference=，即以 "
                'keep="vectors" 捕获的录制',
            )
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
        raise CaptureError(
            Text(
                f"the recording given has no {site.module}; it has: {listed(known)}",
                f"给出的录制没有 {site.module}；它有：{listed(known, '无')}",
            )
        )
    return found


def _checked_heads(recording: Recording, heads: Sequence[Head]) -> tuple[tuple[str | None, int, int], ...]:
    """Heads with their stack; None where the model has one only."""
    if isinstance(heads, (str, tuple)) or not isinstance(heads, Sequence) or not heads:
        raise ArgumentError(
            Text(
                f"heads={heads!r}: expected a list such as [('decoder', 1, 3)]",
                f"heads={heads!r}：应为列表，例如 [('decoder', 1, 3)]",
            )
        )
    stacks = of_attention(recording.model, recording._addresses)
    known = dict.fromkeys((*stacks, *(address.stack for address in recording._addresses.values()), "cross"))
    found = []
    for head in heads:
        numbers = head[-2:] if isinstance(head, (tuple, list)) else ()
        named = len(head) == 3 and isinstance(head[0], str) if isinstance(head, (tuple, list)) else False
        whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers)
        if len(numbers) != 2 or not whole or not (named or len(head) == 2):
            raise ArgumentError(
                Text(
                    f"head {head!r}: expected (stack, layer, head) or (layer, head), numbers from 0 up",
                    f"头 {head!r}：应为 (stack, layer, head) 或 (layer, head)，编号从 0 起",
                )
            )
        if not named and len(stacks) > 1:
            raise UnknownStackError(
                Text(
                    f"head {head!r}: this model has several stacks, name one of them: {listed(stacks)}",
                    f"头 {head!r}：此模型有多个堆栈，请指明其一：{listed(stacks)}",
                )
            )
        if named and head[0] not in known:
            raise UnknownStackError(
                Text(
                    f"head {head!r}: this model has no such stack; it has: {listed(stacks)}",
                    f"头 {head!r}：此模型没有这样的堆栈；它有：{listed(stacks, '无')}",
                )
            )
        found.append((str(head[0]) if named else None, int(numbers[0]), int(numbers[1])))
    return tuple(dict.fromkeys(found))
