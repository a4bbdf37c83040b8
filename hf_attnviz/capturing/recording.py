"""The recording: opened on a model or a pipeline, closed without a trace of itself."""

import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal

import torch
from torch import nn

from hf_attnviz.capturing import scope, sentences
from hf_attnviz.capturing.address import Address, addresses, checked_layers, is_cross, is_joint, model_name, of_users
from hf_attnviz.capturing.blocks import until_its_block_ends
from hf_attnviz.capturing.budget import Budget
from hf_attnviz.capturing.families import PROBES
from hf_attnviz.capturing.foreseeing import layers_of
from hf_attnviz.capturing.join import traces_of
from hf_attnviz.capturing.keeping import gradient_rows, kept_of
from hf_attnviz.capturing.listener import Listener
from hf_attnviz.capturing.loops import Loop, place_of, remember
from hf_attnviz.capturing.memory import size_of
from hf_attnviz.capturing.pieces import Pieces
from hf_attnviz.capturing.pipeline import model_of, processor_of, readers_of
from hf_attnviz.capturing.places import places_of, with_tokens
from hf_attnviz.capturing.probe import unpadded
from hf_attnviz.capturing.reducers import Keep, chosen, fitted
from hf_attnviz.capturing.runs import AttentionCall, Run, Side, layout_of
from hf_attnviz.capturing.seen import Seen
from hf_attnviz.capturing.steering import Mixed
from hf_attnviz.capturing.streams import Station
from hf_attnviz.capturing.wrappers import refuse_compiled, unwrapped
from hf_attnviz.errors import CaptureError, MemoryBudgetError, NothingCapturedError, SlowerWarning
from hf_attnviz.language import Text, counted, told
from hf_attnviz.reducing.keeping import tileable
from hf_attnviz.reducing.outline import Outline
from hf_attnviz.trace import Trace


class Recording:
    """What was seen while the target ran. Made by :func:`capture` and :func:`attach`.

    Attributes:
        runs: one for each outermost ``generate()`` or forward of the target.
    """

    intervenes = False
    reweighs = False

    def __init__(
        self,
        target: Any,
        processor: Any = None,
        *,
        keep: Keep = "maps",
        layers: Sequence[int] | None = None,
        queries: Sequence[int] | None = None,
        gradients: bool = False,
        max_memory: int | str | None = None,
        last: int | None = None,
        exact: bool = False,
    ) -> None:
        whole, self.readers = model_of(target), readers_of(target)
        refuse_compiled(whole)
        self.model = unwrapped(whole)
        self.processor = processor if processor is not None else processor_of(target)
        self.pieces = None if isinstance(target, nn.Module) else Pieces(target)
        config = getattr(self.model, "config", None)
        self.reducers = fitted(chosen(keep, queries, layers), config)
        self.runs: list[Run] = []
        self.exact, self.gradients = exact, gradients
        self.replays = any("block" in reducer.needs for reducer in self.reducers)
        self.tiled = tileable(self.reducers) and not gradients and not exact
        self.strides = self.tiled and not any("vectors" in reducer.needs for reducer in self.reducers)
        self.known: dict[Any, Any] = {}
        self._last = last
        self._addresses: dict[int, Address] = addresses(self.model, whole)
        self._layers, self._shared = checked_layers(self.model, self._addresses, layers)
        self._closed = _closed(self.model)
        attending = layers_of(self.model, self._addresses, self.wants, self._layers, shared=self._shared)
        self.budget = Budget(size_of(max_memory), self.reducers, attending, gradients)
        self._listener: Listener | None = None
        self._count = 0
        self._traces: dict[int, tuple[Trace, ...]] = {}
        self._outside: dict[str, None] = {}
        self.slow: dict[Text, str] = {}
        self._lock = threading.Lock()
        self.in_block = False

    def __repr__(self) -> str:
        state = "closed" if self._listener is None else "open"
        counts = ", ".join((counted(len(self.runs), "run"), counted(len(self.calls), "attention call")))
        return f"Recording({model_name(self.model)}: {state}, {counts})"

    # ---- what it gives

    @property
    def calls(self) -> list[AttentionCall]:
        """Every attention call, in the order in which they ran, batch still inside."""
        return [call for run in self.runs for call in run.calls]

    @property
    def traces(self) -> list[Trace]:
        """One trace a sequence: each row of each batch, each returned sequence, in the order returned."""
        return [trace for run in self.runs if not run.failed for trace in self._traces_of(run)]

    @property
    def trace(self) -> Trace:
        """The only trace.

        Raises:
            CaptureError: there is none, or more than one; the message says how many.
        """
        found = self.traces
        if len(found) != 1:
            raise CaptureError(sentences.not_one(len(found)))
        return found[0]

    def clear(self) -> None:
        """Forget everything recorded so far; the recording stays open."""
        self.runs.clear()
        self._traces.clear()
        self._outside.clear()
        self.slow.clear()

    def check(self) -> None:
        """Raise what went wrong so far: attention that could not be proved, or a run in which none was seen.

        Raises:
            CaptureError: with the names of the modules and what to do.
        """
        if self._outside:
            raise CaptureError(sentences.ran_outside(self._outside, model_name(self.model)))
        for run in self.runs:
            if not run.failed:
                self._check(run)
        if self.slow:
            reason, module = next(iter(self.slow.items()))
            warnings.warn(str(sentences.went_slowly(module, reason)), SlowerWarning, stacklevel=3)

    # ---- opening and closing

    @property
    def is_open(self) -> bool:
        """Whether the hooks are on."""
        return self._listener is not None

    def __enter__(self) -> "Recording":
        if self._listener is None:
            self._open(in_block=True)
        self.in_block = True
        scope.enter_block(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.detach()
        scope.leave_block(self)
        if kind is None:
            self.check()

    def open(self) -> "Recording":
        """Put the hooks on. Whatever fails half-way, everything already put on comes off."""
        if self._listener is not None:
            raise CaptureError(
                Text(
                    "this recording is open already; open a second one with av.capture(model)",
                    "这个录制已经打开；请用 av.capture(model) 另开一个",
                )
            )
        self._open(in_block=False)
        return self

    def _open(self, *, in_block: bool) -> None:
        self.in_block = in_block  # before the first hook is on: other threads go by it
        self._listener = Listener(self)

    def detach(self) -> None:
        """Take every hook off; what was recorded stays. Calling it twice does no harm."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    # ---- what the listener and the observers tell

    def new_run(self, two_sided: bool) -> Run:
        """A new run; with ``last=`` the oldest one is forgotten."""
        origins = self.pieces.now if self.pieces is not None else ()
        with self._lock:  # the model may run in several threads at once
            run = Run(self._count, two_sided, origins=origins)
            self._count += 1
            self.runs.append(run)
            if self._last is not None:
                for old in self.runs[: -self._last]:
                    self._traces.pop(old.number, None)
                del self.runs[: -self._last]
        return run

    def continued(self, cache: Any) -> Run | None:
        """The run whose cache a forward goes on with.

        None after ``generate()``, whose run is over, and where somebody has changed the cache since: cut it, put it in
        another order, emptied it. What is read then is a run of its own, and what it had read before has no names.
        """
        if cache is None:
            return None
        run = next((run for run in reversed(self.runs) if run.cache is not None and run.cache() is cache), None)
        if run is None or run.generated is not None or run.filled is None or not run.filled.still(cache):
            return None
        self._traces.pop(run.number, None)
        return run

    def wants(self, module: nn.Module) -> bool:
        """Whether calls in this module are to be kept."""
        address = self._addresses.get(id(module))
        if address is None or id(module) in self._closed:
            return False
        return self._layers is None or self._shared or address.layer is None or address.layer in self._layers

    def expect(self, session: scope.Session, module: nn.Module) -> None:
        """Note when a module attends that was no part of the model when the recording was opened."""
        if id(module) not in self._addresses:
            problem = CaptureError(sentences.came_later(type(module).__name__, model_name(self.model)))
            session.run.problems.setdefault(type(module).__name__, problem)

    def receive(self, session: scope.Session, module: nn.Module, see: Callable[[], Seen]) -> None:
        """One attention call: work out its weights and keep what is asked for. The model's run is never disturbed."""
        address = self._addresses[id(module)]
        context = session.context(module)
        for outer in session.contexts:
            outer.attended = True
        if session.run.refused:
            return
        one = session.current or session.run.prologue()
        try:
            place = place_of(module, address.module)
            before = one.loops.get(place)
            group = self.group(address, module, context)
            layer = one.layer(group, context, address.layer) if before is None else before.call.layer
            if self._layers is None or layer in self._layers:
                side, seen = session.run.side(address.stack, one), see()
                seen = seen if self.tiled else replace(seen, ran=None)
                outline = replace(seen.outline, past=side.past) if side.past else seen.outline
                self.budget.admit(session, one, group, outline, builds=seen.ran is None)
                kind = self.kind(address, module, context, side, seen.shape)
                before = before if before is not None and before.goes_on(seen.shape) else None
                call = self._kept(session, seen, address, kind, layer, context, side, before)
                one.calls.append(call)
                self.budget.note(session.run, group, outline, call)
                remember(one, place, call, seen.shape, before)
                for reducer in self.reducers:
                    if "block" in reducer.needs:
                        until_its_block_ends(session, module, one.calls[-1].kept[reducer.name], bool(side.past))
            context.maps += before is None
        except Exception as problem:
            self.blame(session, module, problem)

    def differentiates(self, session: scope.Session, module: nn.Module, outline: Callable[[], Outline]) -> bool:
        """Whether a call's weights are to be put into the graph: gradients are wanted, and there is room for them."""
        if not self.gradients or session.run.refused:
            return False
        address, one = self._addresses[id(module)], session.current or session.run.prologue()
        try:
            group = self.group(address, module, session.context(module))
            self.budget.admit(session, one, group, outline(), builds=True)
        except Exception as problem:
            self.blame(session, module, problem)
        return not session.run.refused

    def group(self, address: Address, module: nn.Module, context: scope.Context) -> str:
        """Among which blocks the calls of a module are counted."""
        return "cross" if is_cross(address, module, context.args, context.kwargs) else address.stack

    def kind(
        self, address: Address, module: nn.Module, context: scope.Context, side: Side, shape: torch.Size
    ) -> Literal["self", "cross"]:
        """Whether a call looks at its own sequence; ``shape`` is that of its weights."""
        both = is_joint(module, context.args, context.kwargs, shape)
        if self.group(address, module, context) == "cross" and not both:
            return "cross"
        return "cross" if of_users(module) and not side.cached and _other_keys(shape) else "self"

    def steer(self, session: scope.Session, module: nn.Module, mixed: Mixed) -> Mixed:
        """What goes on through the model; a recording leaves it as it is."""
        return mixed

    def out_of_reach(self, session: scope.Session, module: nn.Module) -> None:
        """Attention was computed in a way in which nothing can be put in place of what it mixed."""

    def blame(self, session: scope.Session, module: nn.Module | None, problem: Exception) -> None:
        """Remember what went wrong in a module, to be raised when the block ends or the traces are read."""
        address = self._addresses.get(id(module)) if module is not None else None
        session.run.problems.setdefault(address.module if address is not None else "", problem)
        if isinstance(problem, MemoryBudgetError):
            session.run.refuse()

    def note_other(self, session: scope.Session, module: nn.Module, what: Text) -> None:
        """A module let positions look at one another in a way that is no attention map."""
        session.run.others.setdefault(self._addresses[id(module)].module, what)

    def note_outside(self, module: nn.Module) -> None:
        """An attending module ran while no forward or ``generate()`` of the target was under way in its thread."""
        self._outside[self._addresses[id(module)].module] = None

    def _kept(
        self,
        session: scope.Session,
        seen: Seen,
        address: Address,
        kind: str,
        layer: int,
        context: scope.Context,
        side: Side,
        before: Loop | None,
    ) -> AttentionCall:
        one = session.current or session.run.prologue()
        index, step = context.maps, max(one.step, 0)
        shape = unpadded(seen.proved.weights, side.new).shape if seen.pads else seen.shape
        if before is not None:
            kind, index, step = before.kind(shape, kind), before.call.index, step + before.turns
        places = places_of(session.run, one, side, kind, shape, 0 if before is None else before.turns)
        if any("tokens" in reducer.needs for reducer in self.reducers):
            places = with_tokens(places, session.run, one, side, kind)
        tokens, lone = len(shape) == 4 and shape[-2] == side.new, before is None and address.layer is not None
        kind_of = type(context.module).__name__
        station = Station(session.run, one, address, kind_of, layer, index, kind == "cross", lone, tokens)
        kept = kept_of(seen, self.reducers, places, side, station)
        if kept.slow:
            self.slow.setdefault(kept.slow, address.module)
        return AttentionCall(
            module=address.module,
            kind=kind,
            stack=address.stack,
            layer=layer,
            index=index,
            step=step,
            implementation=seen.implementation,
            grade=kept.proved.grade,
            way=kept.proved.way,
            masked_rows=kept.proved.masked_rows,
            kept=kept.kept,
            error_tensor=kept.proved.error,
            bound=kept.proved.bound,
            layout=layout_of(shape),
            tokens=tokens,
            gradient_rows=gradient_rows(seen, self.reducers, address.module, places) if self.gradients else None,
            shape=tuple(shape),
            positions=places.queries,
            looks_back=kept.proved.looks_back if kind == "self" else None,
        )

    def _traces_of(self, run: Run) -> tuple[Trace, ...]:
        if run.number not in self._traces or self.gradients:  # backward() may have come since
            self._check(run)
            self._traces[run.number] = traces_of(run, self.processor, self.model)
        return self._traces[run.number]

    def _check(self, run: Run) -> None:
        if run.refused:
            raise next(MemoryBudgetError(told(p)) for p in run.problems.values() if isinstance(p, MemoryBudgetError))
        if run.problems:
            module, problem = next(iter(run.problems.items()))
            kind = type(problem) if isinstance(problem, CaptureError) else CaptureError
            raise kind(sentences.went_wrong(module, problem, len(run.problems) - 1)) from problem
        if run.done and not run.calls and run.others:
            where, what = next(iter(run.others.items()))
            raise NothingCapturedError(sentences.by_other_means(model_name(self.model), where, what))
        if run.done and not run.calls:
            raise NothingCapturedError(sentences.nothing_seen(model_name(self.model), self._layers))


def _other_keys(shape: torch.Size) -> bool:
    """Whether keys and queries are different in number: then the keys are no sequence that looks at itself."""
    return len(shape) == 4 and 1 < shape[-2] != shape[-1]


def _closed(model: nn.Module) -> frozenset[int]:
    """Modules in which the observers are to see nothing, for a probe reads them."""
    return frozenset(id(part) for one in model.modules() if type(one).__name__ in PROBES for part in one.modules())
