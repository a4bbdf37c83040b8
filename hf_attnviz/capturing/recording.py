"""The recording: opened on a model or a pipeline, closed without a trace of itself."""

import contextlib
import functools
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import nn

from hf_attnviz.capturing import interface, scope
from hf_attnviz.capturing.address import Address, addresses, block_count, is_cross, model_name, named_arguments
from hf_attnviz.capturing.families import DRAFTING_ARGUMENTS
from hf_attnviz.capturing.function import FunctionObserver
from hf_attnviz.capturing.join import traces_of
from hf_attnviz.capturing.reducers import Reducer, Rows, Tile, reducers
from hf_attnviz.capturing.runs import AttentionCall, Generated, Pass, Run, described
from hf_attnviz.capturing.seen import Seen
from hf_attnviz.errors import ArgumentError, CaptureError, NothingCapturedError, UnknownNameError
from hf_attnviz.trace import Trace

Keep = str | Reducer[Any] | Sequence[str | Reducer[Any]]


class Recording:
    """What was seen while the target ran. Made by :func:`capture` and :func:`attach`.

    Attributes:
        runs: one for each outermost ``generate()`` or forward of the target.
    """

    def __init__(
        self,
        target: Any,
        processor: Any = None,
        *,
        keep: Keep = "maps",
        layers: Sequence[int] | None = None,
        queries: Sequence[int] | None = None,
        last: int | None = None,
        exact: bool = False,
    ) -> None:
        self.model = _model_of(target)
        self.processor = processor if processor is not None else _processor_of(target)
        self.reducers = _reducers(keep, queries)
        self.runs: list[Run] = []
        self.exact = exact
        self._last = last
        self._layers = _checked_layers(self.model, layers)
        self._addresses: dict[int, Address] = addresses(self.model)
        self._undo: contextlib.ExitStack | None = None
        self._count = 0
        self._traces: dict[int, tuple[Trace, ...]] = {}
        _refuse_compiled(self.model)

    # ---- what it gives

    @property
    def calls(self) -> list[AttentionCall]:
        """Every attention call, in the order in which they ran, batch still inside."""
        return [call for run in self.runs for call in run.calls]

    @property
    def traces(self) -> list[Trace]:
        """One trace a sequence: each row of each batch, each returned sequence, in the order returned."""
        return [trace for run in self.runs for trace in self._traces_of(run)]

    @property
    def trace(self) -> Trace:
        """The only trace.

        Raises:
            CaptureError: there is none, or more than one; the message says how many.
        """
        found = self.traces
        if len(found) != 1:
            hint = "run the model inside the block" if not found else "choose one of recording.traces"
            raise CaptureError(f"expected one trace, there are {len(found)}: {hint}")
        return found[0]

    def clear(self) -> None:
        """Forget everything recorded so far; the recording stays open."""
        self.runs.clear()
        self._traces.clear()

    def check(self) -> None:
        """Raise what went wrong so far: attention that could not be proved, or a run in which none was seen.

        Raises:
            CaptureError: with the names of the modules and what to do.
        """
        for run in self.runs:
            self._check(run)

    # ---- opening and closing

    def __enter__(self) -> "Recording":
        return self if self._undo is not None else self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.detach()
        if kind is None:
            self.check()

    def open(self) -> "Recording":
        """Put the hooks on. Whatever fails half-way, everything already put on comes off."""
        if self._undo is not None:
            raise CaptureError("this recording is open already; open a second one with av.capture(model)")
        with contextlib.ExitStack() as undo:
            interface.install()
            undo.callback(interface.remove)
            undo.callback(self._abandon)
            self._hook(undo)
            self._undo = undo.pop_all()
        return self

    def detach(self) -> None:
        """Take every hook off; what was recorded stays. Calling it twice does no harm."""
        undo, self._undo = self._undo, None
        if undo is not None:
            undo.close()

    def _hook(self, undo: contextlib.ExitStack) -> None:
        for module in self.model.modules():
            if module is self.model or type(module).__module__.startswith("torch.nn."):
                continue  # torch's own layers do not attend by hand, and a hook switches off their fast path
            undo.callback(module.register_forward_pre_hook(self._enter_module, with_kwargs=True).remove)
            undo.callback(module.register_forward_hook(self._leave_module, always_call=True).remove)
        for module, reads in self._readers():
            undo.callback(module.register_forward_pre_hook(reads, with_kwargs=True).remove)
        undo.callback(self.model.register_forward_pre_hook(self._enter_root, with_kwargs=True, prepend=True).remove)
        undo.callback(self.model.register_forward_hook(self._leave_root, with_kwargs=True, always_call=True).remove)
        generate = getattr(self.model, "generate", None)
        if callable(generate):
            own = self.model.__dict__.get("generate")
            self.model.__dict__["generate"] = functools.wraps(generate)(functools.partial(self._generate, generate))
            undo.callback(self._restore_generate, own)

    def _restore_generate(self, own: Any) -> None:
        if own is None:
            self.model.__dict__.pop("generate", None)
        else:
            self.model.__dict__["generate"] = own

    def _readers(self) -> list[tuple[nn.Module, Callable[..., None]]]:
        """The encoder and decoder of an encoder-decoder, whose arguments tell what each side reads."""
        if not getattr(getattr(self.model, "config", None), "is_encoder_decoder", False):
            return []
        sides = (
            (getattr(self.model, "get_encoder", None), self._read_source),
            (getattr(self.model, "get_decoder", None), self._read_target),
        )
        return [(side(), reads) for side, reads in sides if side is not None]

    # ---- sessions: while the target runs in this thread

    def _begin(self, cache: Any = None) -> scope.Session:
        mine = next((session for session in scope.all_sessions() if session.recording is self), None)
        if mine is None:
            mine = scope.Session(self, self._continued(cache) or self._new_run())
            scope.begin(mine, FunctionObserver)
        mine.depth += 1
        return mine

    def _end(self, session: scope.Session) -> None:
        session.depth -= 1
        if session.depth == 0:
            scope.close(session)
            session.run.ran = True

    def _new_run(self) -> Run:
        run = Run(self._count)
        self._count += 1
        self.runs.append(run)
        if self._last is not None:
            for old in self.runs[: -self._last]:
                self._traces.pop(old.number, None)
            del self.runs[: -self._last]
        return run

    def _continued(self, cache: Any) -> Run | None:
        """The run whose cache this forward goes on with."""
        for run in reversed(self.runs):
            if cache is not None and run.cache is not None and run.cache() is cache:
                self._traces.pop(run.number, None)
                return run
        return None

    def _abandon(self) -> None:
        """Close sessions that an interrupt left open in this thread."""
        for session in [s for s in scope.all_sessions() if s.recording is self]:
            scope.close(session)

    # ---- hooks

    def _enter_root(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = named_arguments(module, args, kwargs)
        cache = given.get("past_key_values")
        session = self._begin(cache)
        session.current = one = session.run.begin_pass()
        session.contexts.append(scope.Context(module, args, kwargs))
        one.past = _length(cache)
        if not getattr(getattr(module, "config", None), "is_encoder_decoder", False):
            one.ids, one.mask = _matrix(given.get("input_ids")), _matrix(given.get("attention_mask"))
        elif session.run.source_mask is None:
            session.run.source_mask = _matrix(given.get("attention_mask"))

    def _leave_root(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        session = next((s for s in scope.all_sessions() if s.recording is self), None)
        if session is None:
            return
        _leave(session, module)
        cache = getattr(output, "past_key_values", None)
        if cache is not None:
            with contextlib.suppress(TypeError):  # a tuple cache cannot be referred to weakly
                session.run.cache = weakref.ref(cache)
        self._end(session)

    def _enter_module(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for session in scope.all_sessions():
            if session.recording is self:
                session.contexts.append(scope.Context(module, args, kwargs))

    def _leave_module(self, module: nn.Module, args: Any, output: Any) -> None:
        for session in scope.all_sessions():
            if session.recording is self:
                _leave(session, module)

    def _read_source(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for session in scope.all_sessions():
            if session.recording is self:
                given = named_arguments(module, args, kwargs)
                session.run.source_ids = _matrix(given.get("input_ids"))
                session.run.source_mask = _matrix(given.get("attention_mask"))

    def _read_target(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for session in scope.all_sessions():
            if session.recording is self and session.current is not None:
                given = named_arguments(module, args, kwargs)
                session.current.ids = _matrix(given.get("input_ids"))
                session.current.mask = _matrix(given.get("attention_mask"))

    def _generate(self, generate: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """``generate()`` of the target: the same call, the same result, one run."""
        asked = [name for name in DRAFTING_ARGUMENTS if kwargs.get(name) is not None]
        if asked:
            raise CaptureError(
                f"generate({asked[0]}=…) drafts tokens and rejects some; expected plain greedy, sampling or beam "
                "search. Leave that argument out to capture, or call generate() outside the block"
            )
        config = kwargs.get("generation_config") or (args[1] if len(args) > 1 else None)
        config = config or getattr(self.model, "generation_config", None)

        def setting(name: str) -> Any:
            return kwargs[name] if kwargs.get(name) is not None else getattr(config, name, None)

        session = self._begin()
        try:
            # The rows of a beam are in another order at every step; only the dictionary form says in which.
            unasked = (setting("num_beams") or 1) > 1 and not setting("return_dict_in_generate")
            output = generate(*args, **{**kwargs, "return_dict_in_generate": True} if unasked else kwargs)
            sequences = output if isinstance(output, torch.Tensor) else getattr(output, "sequences", None)
            if isinstance(sequences, torch.Tensor):
                ends = setting("eos_token_id")
                ends = () if ends is None else tuple(torch.as_tensor(ends).reshape(-1).tolist())
                beams = getattr(output, "beam_indices", None)
                session.run.generated = Generated(
                    sequences.detach().cpu(),
                    None if beams is None else beams.cpu(),
                    int(setting("num_return_sequences") or 1),
                    ends,
                    _first(setting("pad_token_id")),
                )
            return sequences if unasked else output
        finally:
            self._end(session)

    # ---- what the observers tell

    def wants(self, module: nn.Module) -> bool:
        """Whether calls in this module are to be kept."""
        address = self._addresses.get(id(module))
        return address is not None and (self._layers is None or address.layer is None or address.layer in self._layers)

    def receive(self, session: scope.Session, module: nn.Module, see: Callable[[], Seen]) -> None:
        """One attention call: work out its weights and keep what is asked for. The model's run is never disturbed."""
        address = self._addresses[id(module)]
        context = session.context(module)
        one = session.current or session.run.prologue()
        try:
            cross = is_cross(address, module, context.args, context.kwargs)
            group = "cross" if cross else address.stack
            layer = one.layer(group, context, address.layer)
            if self._layers is None or layer in self._layers:
                one.calls.append(self._kept(see(), address, "cross" if cross else "self", layer, context, session, one))
            context.maps += 1
        except Exception as problem:
            session.run.problems.setdefault(address.module, problem)

    def _kept(
        self,
        seen: Seen,
        address: Address,
        kind: str,
        layer: int,
        context: scope.Context,
        session: scope.Session,
        one: Pass,
    ) -> AttentionCall:
        weights = seen.proved.weights.detach()
        positions, lengths = _positions(weights, address.stack, session.run, one)
        tile = Tile(weights, positions, lengths, seen.vectors)
        kept = {reducer.name: reducer.result(reducer.update(None, tile)) for reducer in self.reducers}
        return AttentionCall(
            address.module, kind, address.stack, layer, context.maps, max(one.step, 0), seen.implementation,
            kept=kept, **described(seen.proved),
        )  # fmt: skip

    def _traces_of(self, run: Run) -> tuple[Trace, ...]:
        if run.number not in self._traces:
            self._check(run)
            self._traces[run.number] = traces_of(run, self.processor, model_name(self.model))
        return self._traces[run.number]

    def _check(self, run: Run) -> None:
        if run.problems:
            module, problem = next(iter(run.problems.items()))
            more = f" (and {len(run.problems) - 1} more modules)" if len(run.problems) > 1 else ""
            kind = type(problem) if isinstance(problem, CaptureError) else CaptureError
            raise kind(
                f"{module}{more}: {problem}. Nothing of this run is handed out; capture other layers with layers=…, "
                "or look at it with: attnviz doctor"
            ) from problem
        if run.ran and not run.calls:
            raise NothingCapturedError(
                f"{model_name(self.model)} ran and no attention was seen in it. Either the model has none, or it "
                "computes it where our observers cannot see (a compiled or scripted part, a custom kernel)"
                + (f"; layers={sorted(self._layers)} chosen" if self._layers is not None else "")
            )


def capture(
    target: Any,
    processor: Any = None,
    *,
    keep: Keep = "maps",
    layers: Sequence[int] | None = None,
    queries: Sequence[int] | None = None,
) -> Recording:
    """Record attention while ``target`` runs: ``with av.capture(model, tokenizer) as recording: model(**inputs)``.

    The model runs as it is: same backend, same config, output equal to the last bit; nothing is left behind.

    Args:
        target: an ``nn.Module``, a ``PreTrainedModel`` or a transformers ``Pipeline``.
        processor: the tokenizer or processor that gives labels; default: the pipeline's. Without one labels are ids.
        keep: what to keep: ``"maps"``, ``"vectors"``, a reducer such as ``av.Rows([-1])``, or a list of them.
        layers: block indices to keep; None keeps all. Others run without any cost.
        queries: short for ``keep=av.Rows(queries)``.

    Raises:
        ArgumentError, UnknownNameError: what is asked for does not exist on this model.
        CaptureError: the model was compiled before; and, when the block ends, attention that could not be proved.
        NothingCapturedError: when the block ends: the model ran and no attention was seen.
    """
    return Recording(target, processor, keep=keep, layers=layers, queries=queries)


def attach(
    target: Any,
    processor: Any = None,
    *,
    last: int = 1,
    keep: Keep = "maps",
    layers: Sequence[int] | None = None,
    queries: Sequence[int] | None = None,
) -> Recording:
    """The same recording, opened here and closed with ``recording.detach()``: for servers and notebooks.

    Args:
        target, processor, keep, layers, queries: as in :func:`capture`.
        last: how many of the latest runs are kept.

    Problems never disturb the model; they are raised when the traces are read.
    """
    if last < 1:
        raise ArgumentError(f"last={last}: expected how many of the latest runs to keep, 1 or more")
    return Recording(target, processor, keep=keep, layers=layers, queries=queries, last=last).open()


def _model_of(target: Any) -> nn.Module:
    model = target if isinstance(target, nn.Module) else getattr(target, "model", None)
    if not isinstance(model, nn.Module):
        raise ArgumentError(
            f"expected a torch module, a transformers model or a pipeline with a model; got {type(target).__name__}"
        )
    return model


def _processor_of(target: Any) -> Any:
    if isinstance(target, nn.Module):
        return None
    return getattr(target, "processor", None) or getattr(target, "tokenizer", None)


def _reducers(keep: Keep, queries: Sequence[int] | None) -> tuple[Reducer[Any], ...]:
    if queries is None:
        return reducers(keep)
    if keep != "maps":
        raise ArgumentError(f"queries={list(queries)} is short for keep=av.Rows(…); name rows in one of the two places")
    return (Rows(queries),)


def _checked_layers(model: nn.Module, layers: Sequence[int] | None) -> frozenset[int] | None:
    if layers is None:
        return None
    count = block_count(model)
    wrong = [layer for layer in layers if not 0 <= layer < count]
    if wrong or not layers:
        raise UnknownNameError(
            f"layers={list(layers)}: this model has layers 0 to {count - 1}"
            if count
            else "this model has no list of layers"
        )
    return frozenset(layers)


def _refuse_compiled(model: nn.Module) -> None:
    for name, module in model.named_modules():
        compiled = (
            type(module).__name__ == "OptimizedModule"
            or getattr(module, "_compiled_call_impl", None) is not None
            or hasattr(module.forward, "_torchdynamo_orig_callable")
            or isinstance(module, torch.jit.ScriptModule)
        )
        if compiled:
            raise CaptureError(
                f"{name or type(model).__name__} was compiled before the capture, and compiled code passes by every "
                "observer in silence. Capture the model before torch.compile (or compiled._orig_mod), or load it again"
            )


def _matrix(value: Any) -> torch.Tensor | None:
    return value.detach() if isinstance(value, torch.Tensor) and value.dim() == 2 else None


def _length(cache: Any) -> int:
    length = getattr(cache, "get_seq_length", None)
    return int(length()) if length is not None else 0


def _first(value: Any) -> int | None:
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    return None if value is None else int(value)


def _leave(session: scope.Session, module: nn.Module) -> None:
    while session.contexts:
        if session.contexts.pop().module is module:
            break


def _positions(weights: torch.Tensor, stack: str, run: Run, one: Pass) -> tuple[torch.Tensor, torch.Tensor]:
    """The place of each row in its own sequence ``[batch, query]`` (-1: padding), and each sequence's length."""
    batch, queries = weights.shape[0], weights.shape[-2]
    past, mask = (0, run.source_mask) if stack == "encoder" and run.source_mask is not None else (one.past, one.mask)
    if mask is None or tuple(mask.shape) != (batch, past + queries):
        places = torch.arange(past, past + queries).expand(batch, -1)
        return places, torch.full((batch,), past + queries)
    real = mask.bool().cpu()
    places = torch.where(real, real.cumsum(1) - 1, -1)[:, past:]
    return places, real.sum(1)
