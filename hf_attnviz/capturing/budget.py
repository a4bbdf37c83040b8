"""What a run may keep: estimated before its first call keeps anything, and watched while it goes on.

The estimate is made anew whenever a stack begins in a pass; what was kept counts as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from hf_attnviz.capturing import memory
from hf_attnviz.capturing.foreseeing import Calls, foreseen
from hf_attnviz.capturing.runs import AttentionCall, Pass, Run
from hf_attnviz.capturing.scope import Session
from hf_attnviz.errors import MemoryBudgetError
from hf_attnviz.language import Text
from hf_attnviz.reducing.outline import Outline, held, need_of
from hf_attnviz.reducing.reducer import Reducer
from hf_attnviz.reducing.rows import Maps, Rows
from hf_attnviz.reducing.statistics import Statistics
from hf_attnviz.reducing.topk import TopK

_SHARE: Final = 2  # by default, one part in so many of what is free: traces that are joined of steps are copies
_WORK: Final = 2  # matrices, in float32 or finer, that live beside what is kept while one is worked out
_ROWS: Final = 64
_CHEAPER: Final[tuple[tuple[str, Reducer[Any]], ...]] = (
    ("keep=av.Maps(packed=True)", Maps(packed=True)),
    (f"queries=[…] ({_ROWS} rows)", Rows(range(_ROWS))),
    ("keep=av.TopK(8)", TopK(8)),
    ('keep="statistics"', Statistics()),
)


@dataclass(eq=False)
class Ahead:
    """The calls of one stack that are still to come in a pass, and what each is thought to take."""

    calls: int
    each: int


@dataclass(eq=False)
class Account:
    """What a run has kept so far, and what it may.

    Attributes:
        room: bytes; None where nothing tells what is free.
        kept: bytes.
        running: the pass under way.
        ahead: what is still to come in it, by stack.
        later: bytes that later passes are thought to take.
        known: the outline of the last call of each stack that began.
        plan: what is foreseen, by stack: in this pass, and in later ones.
        memory: the addresses of what is kept.
    """

    room: int | None
    kept: int = 0
    running: Pass | None = None
    ahead: dict[str, Ahead] = field(default_factory=dict)
    later: int = 0
    known: dict[str, Outline] = field(default_factory=dict)
    plan: dict[tuple[str, bool], Calls] = field(default_factory=dict)
    memory: set[int] = field(default_factory=set)


@dataclass(frozen=True, eq=False)
class Budget:
    """How much a recording may keep.

    Attributes:
        limit: bytes, or None: half of what is free when a run begins.
        reducers: what is kept of each call.
        layers: how many modules attend in each stack.
        gradients: whether weights are held for ``backward()``, and their gradients after it.
    """

    limit: int | None
    reducers: Sequence[Reducer[Any]]
    layers: Mapping[str, int]
    gradients: bool = False

    def admit(self, session: Session, one: Pass, group: str, outline: Outline, *, builds: bool) -> None:
        """Ask for room before a call of a stack keeps anything. Asking twice does no harm.

        Args:
            builds: whether its matrix has to be worked out.

        Raises:
            MemoryBudgetError: what is to be kept, of this call and of those to come, takes more than there is room for.
        """
        account = session.run.account
        if account is None:
            account = session.run.account = Account(self._room(session, outline))
        if account.room is None:
            return
        need = self._need(outline)
        work = _WORK * outline.weights * max(4, outline.itemsize) if builds else 0
        coming = need + self._besides(session, account, one, group, outline, need)
        if account.kept + coming + work > account.room:
            raise MemoryBudgetError(self._words(account, coming, work, outline))

    def _besides(self, session: Session, account: Account, one: Pass, group: str, outline: Outline, need: int) -> int:
        """What is thought to come beside a call that needs so much; a step of decoding, all told before, is watched."""
        if one.step > 0 and (outline.apart or outline.queries == 1):
            return 0
        if account.running is not one:
            account.running, account.ahead, account.later, account.plan = one, {}, 0, {}
        if group not in account.ahead:
            self._foresee(session, account, one, group, outline)
        part = account.ahead[group]
        others = sum(other.calls * other.each for other in account.ahead.values() if other is not part)
        return max(0, part.each - need) + max(0, part.calls - 1) * part.each + others + account.later

    def keep(self, session: Session, one: Pass, call: AttentionCall) -> None:
        """Keep what steps of decoding have left behind in one module.

        Raises:
            MemoryBudgetError: there is no room for it.
        """
        group, past = "cross" if call.kind == "cross" else call.stack, one.side.past + 1 - call.steps
        outline = Outline(call.shape, past=past, apart=True, device=call.error_tensor.device)
        self.admit(session, one, group, outline, builds=False)
        one.calls.append(call)
        self.note(session.run, group, outline, call)

    def note(self, run: Run, group: str, outline: Outline, call: AttentionCall) -> None:
        """A call has been kept: what it has really taken."""
        account = run.account
        if account is None or account.room is None:
            return
        taken = held(call.kept, account.memory)
        if self.gradients or any("block" in one.needs for one in self.reducers):
            taken = max(taken, self._need(outline))  # more comes when the block ends, or when gradients flow
        account.kept += taken
        if group in account.ahead:
            part = account.ahead[group]
            part.calls, part.each = max(0, part.calls - 1), taken

    def _room(self, session: Session, outline: Outline) -> int | None:
        if self.limit is None:
            free = memory.free(outline.device)
            return None if free is None else free // _SHARE
        accounts = (run.account for run in session.recording.runs if run is not session.run)
        return self.limit - sum(account.kept for account in accounts if account is not None)

    def _need(self, outline: Outline) -> int:
        return need_of(self.reducers, outline) + (2 * outline.whole if self.gradients else 0)

    def _foresee(self, session: Session, account: Account, one: Pass, group: str, outline: Outline) -> None:
        account.known[group] = outline
        now, later = foreseen(session, one, self.layers, account.known, group)
        for calls in now:
            if calls.group == group or calls.group not in account.ahead:
                account.ahead[calls.group] = Ahead(calls.layers, self._need(calls.outlines[0]))
        if later:
            account.later = sum(calls.total(self._need) for calls in later)
        account.plan |= {(calls.group, False): calls for calls in now} | {(calls.group, True): calls for calls in later}

    def _words(self, account: Account, coming: int, work: int, outline: Outline) -> Text:
        size, asked, kept = memory.told, ", ".join(one.name for one in self.reducers), account.kept
        room, free = size(max(0, account.room or 0)), memory.free(outline.device)
        plan = list(account.plan.values()) or [Calls("this call", 1, [outline])]
        less = ((name, _total(plan, reducer)) for name, reducer in _CHEAPER)
        cheaper = ", ".join(f"{name} {size(number)}" for name, number in less if number < coming)
        mine = Text(f"; half of what was free is {room}", f"；空闲内存的一半为 {room}")
        if self.limit is not None:
            mine = Text(*(f"{mark}max_memory={size(self.limit)}" for mark in ("; ", "；")))
        every = [calls.words for calls in plan]
        parts: tuple[tuple[object, str, str], ...] = (
            (True, f"to keep {asked} would take {size(coming)}", f"保留 {asked} 需要 {size(coming)}"),
            (kept, f" beside {size(kept)} kept so far", f"，另已保留 {size(kept)}"),
            (work, f" and {size(work)} while a matrix is worked out", f"，算出一个矩阵时还需 {size(work)}"),
            (True, mine.en, mine.zh),
            (self.limit not in (None, account.room), f", of which {room} are left", f"，其中尚余 {room}"),
            (free is not None, f"; {size(free or 0)} are free now", f"；现在空闲 {size(free or 0)}"),
            (
                True,
                f". All weights: {'; '.join(one.en for one in every)}. Nothing of this run was kept; the model "
                "ran as ever. ",
                f"。全部权重：{'；'.join(one.zh for one in every)}。这次运行没有保留任何内容；模型照常运行。",
            ),
            (cheaper, f"Less would do for: {cheaper}. ", f"更省的选择：{cheaper}。"),
            (
                True,
                'Choose layers=[…], read less, or give more: max_memory="…GiB"',
                '请选择 layers=[…]，少读一些，或给更多内存：max_memory="…GiB"',
            ),
        )
        return Text("".join(en for said, en, _ in parts if said), "".join(zh for said, _, zh in parts if said))


def _total(plan: Sequence[Calls], reducer: Reducer[Any]) -> int:
    return sum(calls.total(lambda outline: need_of([reducer], outline)) for calls in plan)
