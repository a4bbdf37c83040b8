"""Where a recording stands on its model: at the doors of the target, and on the hooks of the modules inside it.

The door of ``forward`` opens a session and begins a pass; the door of ``generate`` makes one run of many passes; hooks
on the modules inside say where we are. torch's own attention layers take a faster way when no hook and no mode is
about, so they get a door instead of a hook, and are run apart from the observers.
"""

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hf_attnviz.capturing import interface, scope
from hf_attnviz.capturing.address import named_arguments, parameters
from hf_attnviz.capturing.doors import stand_at
from hf_attnviz.capturing.families import ASIDES, ATTENTION_CLASS, DRAFTING
from hf_attnviz.capturing.function import FunctionObserver
from hf_attnviz.capturing.positions import media_of
from hf_attnviz.capturing.runs import Generated, Run, Side
from hf_attnviz.errors import CaptureError

if TYPE_CHECKING:
    from hf_attnviz.capturing.recording import Recording

_TORCH_ATTENTION = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)


class Listener:
    """The hooks and doors of one open recording; :meth:`close` takes all of them off."""

    def __init__(self, recording: "Recording") -> None:
        self.recording, self.model = recording, recording.model
        self.two_sided = bool(getattr(getattr(self.model, "config", None), "is_encoder_decoder", False))
        self._attending = _attending(self.model)
        with contextlib.ExitStack() as undo:  # whatever fails half-way, everything already put on comes off
            self._open(undo)
            self._undo = undo.pop_all()

    def close(self) -> None:
        """Take every hook and door off."""
        self._undo.close()

    def _open(self, undo: contextlib.ExitStack) -> None:
        if self.recording.pieces is not None:
            self.recording.pieces.open(undo)
        interface.install()
        undo.callback(interface.remove)
        undo.callback(stand_at(self.model, "forward", self._forward))
        for name, around in (("generate", self._generate), ("prepare_inputs_for_generation", self._prepare)):
            if callable(getattr(self.model, name, None)):
                undo.callback(stand_at(self.model, name, around))
        for name in ASIDES:
            if callable(getattr(self.model, name, None)):
                undo.callback(stand_at(self.model, name, functools.partial(self._aside, name)))
        for module in self.model.modules():
            if isinstance(module, _TORCH_ATTENTION):
                undo.callback(stand_at(module, "forward", _Apart(self.recording, module)))
            elif module is not self.model and not type(module).__module__.startswith("torch.nn."):
                undo.callback(module.register_forward_pre_hook(self._enter_module, with_kwargs=True).remove)
                undo.callback(module.register_forward_hook(self._leave_module, always_call=True).remove)
        for side, reads in (("get_encoder", self._read_source), ("get_decoder", self._read_target)):
            part = getattr(self.model, side)() if self.two_sided and hasattr(self.model, side) else None
            if isinstance(part, nn.Module):
                undo.callback(part.register_forward_pre_hook(reads, with_kwargs=True).remove)

    # ---- sessions: while the target runs in this thread

    @contextlib.contextmanager
    def _session(self, cache: Any = None) -> Iterator[scope.Session]:
        session = scope.session_of(self.recording)
        if session is None:
            run = self.recording.continued(cache) or self.recording.new_run(self.two_sided)
            session = scope.Session(self.recording, run)
            scope.begin(session, FunctionObserver)
        session.depth += 1
        try:
            yield session
        except BaseException:
            session.run.failed = True
            raise
        finally:
            session.depth -= 1
            if session.depth == 0:
                self._end(session)

    def _end(self, session: scope.Session) -> None:
        observer = scope.close(session)
        if getattr(observer, "compiled", False):
            problem = CaptureError("a part of the model is compiled, and compiled code passes by every observer")
            session.run.problems.setdefault("torch.compile", problem)
        session.run.done = True

    # ---- doors

    def _forward(self, following: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if scope.is_deaf():
            return following(*args, **kwargs)
        given = named_arguments(self.model, args, kwargs)
        with self._session(given.get("past_key_values")) as session:
            session.current = one = session.run.begin_pass()
            one.batch = next((len(a) for a in given.values() if isinstance(a, torch.Tensor) and a.dim()), None)
            one.side = _side(given)
            _note_media(session, given)
            upcoming, session.upcoming = session.upcoming, None
            if upcoming is not None:
                one.prefix, mask = upcoming
                if one.side.mask is None and not self.two_sided:
                    one.side = replace(one.side, mask=mask)
            if self.two_sided:
                if session.run.source.mask is None:
                    session.run.source = replace(session.run.source, mask=one.side.mask)
                one.side = Side()  # the decoder's own hook says what it reads
            session.contexts.append(scope.Context(self.model, args, kwargs))
            try:
                output = following(*args, **kwargs)
            finally:
                session.leave(self.model)
            _remember(session.run, getattr(output, "past_key_values", None))
            return output

    def _aside(self, name: str, following: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A part of the target that is run by a method of its own: a run like any other."""
        if scope.is_deaf() or scope.session_of(self.recording) is not None:
            return following(*args, **kwargs)
        given = dict(zip(parameters(getattr(type(self.model), name)), args, strict=False)) | kwargs
        with self._session() as session:
            session.current = one = session.run.begin_pass()
            one.batch = next((len(a) for a in given.values() if isinstance(a, torch.Tensor) and a.dim()), None)
            one.side = _side(given)
            _note_media(session, given)
            return following(*args, **kwargs)

    def _generate(self, following: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``generate()`` of the target: the same call, the same result, one run."""
        if scope.is_deaf():
            return following(*args, **kwargs)
        setting = _settings(self.model, args, kwargs)
        with self._session() as session:
            first = {"inputs": args[0]} if args else {}
            named = {getattr(self.model, "main_input_name", "inputs"): (kwargs | first).get("inputs")}
            session.run.media += [media for media in [media_of(named | kwargs)] if media]
            asked = [name for name in DRAFTING if setting(name) is not None]
            if asked:
                session.run.problems["generate"] = CaptureError(
                    f"generate() with {asked[0]} drafts tokens and rejects some; expected plain greedy, sampling or "
                    "beam search. Leave that setting out to capture, or call generate() outside the block"
                )
                with scope.deaf():
                    return following(*args, **kwargs)
            output = following(*args, **kwargs)
            sequences = output if isinstance(output, torch.Tensor) else getattr(output, "sequences", None)
            if isinstance(sequences, torch.Tensor) and sequences.dim() == 2:
                ends = setting("eos_token_id")
                session.run.generated = Generated(
                    sequences.detach().cpu(),
                    int(setting("num_return_sequences") or 1),
                    () if ends is None else tuple(torch.as_tensor(ends).reshape(-1).tolist()),
                    _first(setting("pad_token_id")),
                )
            return output

    def _prepare(self, following: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Reads what every row has by now: the rows of a beam are in another order at every step."""
        session = scope.session_of(self.recording)
        if session is not None:
            prefix = _matrix(args[0] if args else kwargs.get("input_ids"))
            mask = _matrix(kwargs.get("attention_mask"))
            session.upcoming = (None if prefix is None else prefix.cpu().clone(), mask)
        return following(*args, **kwargs)

    # ---- hooks

    def _enter_module(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        session = scope.session_of(self.recording)
        if session is not None:
            session.contexts.append(scope.Context(module, args, kwargs))
        elif id(module) in self._attending and not scope.is_deaf() and torch._C._current_graph_task_id() == -1:
            # not while gradients flow back: checkpointing then runs blocks again, whose maps are recorded already
            self.recording.note_outside(module)

    def _leave_module(self, module: nn.Module, args: Any, output: Any) -> None:
        session = scope.session_of(self.recording)
        if session is None:
            return
        context = session.leave(module)
        attends = id(module) in self._attending and self.recording.wants(module)
        if context is not None and attends and not context.attended and not scope.is_deaf():
            problem = CaptureError(
                f"this {type(module).__name__} ran and no attention was seen in it: it computes it in a way that the "
                "observers do not know. Capture another part of the model, or teach them with an issue"
            )
            self.recording.blame(session, module, problem)

    def _read_source(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        session = scope.session_of(self.recording)
        if session is not None:
            given = named_arguments(module, args, kwargs)
            session.run.source = _side(given)
            _note_media(session, given)

    def _read_target(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        session = scope.session_of(self.recording)
        if session is not None and session.current is not None:
            session.current.side = _side(named_arguments(module, args, kwargs))


class _Apart:
    """The door of a torch layer that takes a faster way when nobody looks.

    It is run apart from the observers, so that it takes the way it always takes; then once more under them, for the
    weights, and both outputs must agree.
    """

    def __init__(self, recording: "Recording", module: nn.Module) -> None:
        self.recording, self.module = recording, module

    def __call__(self, following: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        session = scope.session_of(self.recording)
        if session is None or scope.is_deaf():
            return following(*args, **kwargs)
        session.contexts.append(scope.Context(self.module, args, kwargs))
        try:
            if scope.is_replaying() or self.module.training or torch.is_grad_enabled():
                return following(*args, **kwargs)  # the slow way, whoever looks
            with scope.deaf(), torch._C.DisableTorchFunction():
                output = following(*args, **kwargs)
            try:
                with scope.replaying():
                    _compare(following(*args, **kwargs), output)
            except Exception as problem:  # ours, and never the model's
                self.recording.blame(session, self.module, problem)
            return output
        finally:
            session.leave(self.module)


def _compare(replayed: Any, output: Any) -> None:
    """The two ways differ by rounding; where the fast one leaves padding out, it puts zeros."""
    one, other = (value[0] if isinstance(value, tuple) else value for value in (replayed, output))
    rows = other.abs().sum(-1) > 0
    deviation = (one - other)[rows].abs().max() if rows.any() else torch.zeros(())
    bound = 1e-4 * max(1.0, float(other.abs().max()))
    if not float(deviation) <= bound:
        raise CaptureError(f"the fast and the slow way of this layer differ by {float(deviation):.2g}")


def _attending(model: nn.Module) -> set[int]:
    """The modules that attend themselves, by their class' name: those without another such module inside."""

    def named(module: nn.Module) -> bool:
        return ATTENTION_CLASS.search(type(module).__name__) is not None

    modules = [m for m in model.modules() if m is not model and named(m)]
    return {id(m) for m in modules if not any(named(part) for part in list(m.modules())[1:])}


def _side(given: dict[str, Any]) -> Side:
    """What a call reads, by its arguments."""
    ids, embedded, cache = _matrix(given.get("input_ids")), given.get("inputs_embeds"), given.get("past_key_values")
    new = None if ids is None else ids.shape[1]
    if ids is None and isinstance(embedded, torch.Tensor) and embedded.dim() == 3:
        new = embedded.shape[1]
    length = getattr(cache, "get_seq_length", None)
    past = int(length()) if length is not None else 0
    types = given.get("token_type_ids")
    if isinstance(types, torch.Tensor) and types.dim() == 3:
        types = types[..., 0]  # TAPAS: segment, column, row …
    return Side(ids, _matrix(given.get("attention_mask")), past, new, cache is not None, _matrix(types))


def _note_media(session: scope.Session, given: dict[str, Any]) -> None:
    """Pictures and sound that a forward is given; ``generate()`` has told already what its forwards get."""
    media = media_of(given)
    if media and session.depth == 1:
        session.run.media.append(media)


def _settings(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[str], Any]:
    """What ``generate()`` will use: its arguments, then the configuration given, then the model's own."""
    given = kwargs.get("generation_config") or (args[1] if len(args) > 1 else None)
    configs = [config for config in (given, getattr(model, "generation_config", None)) if config is not None]

    def setting(name: str) -> Any:
        found = [kwargs.get(name), *(getattr(config, name, None) for config in configs)]
        return next((value for value in found if value is not None), None)

    return setting


def _remember(run: Run, cache: Any) -> None:
    if cache is not None:
        with contextlib.suppress(TypeError):  # a tuple cannot be referred to weakly
            run.cache = weakref.ref(cache)


def _matrix(value: Any) -> torch.Tensor | None:
    return value.detach() if isinstance(value, torch.Tensor) and value.dim() == 2 else None


def _first(value: Any) -> int | None:
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    return None if value is None else int(value)
