"""Where a recording stands on its model: at the doors of the target, and on the hooks of the modules inside it.

The door of ``forward`` opens a session and begins a pass; the door of ``generate`` makes one run of many passes; hooks
on the modules inside say where we are. torch's own attention layers take a faster way when no hook and no mode is
about, so they get a door instead of a hook, and are run apart from the observers.
"""

import contextlib
import functools
import re
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from hf_attnviz.capturing import interface, scope, strides
from hf_attnviz.capturing.address import blocks, named_arguments, of_transformers, parameters
from hf_attnviz.capturing.apart import TORCH_ATTENTION, Apart
from hf_attnviz.capturing.blocks import Block, at_the_end
from hf_attnviz.capturing.doors import Ours, stand_at
from hf_attnviz.capturing.families import ASIDES, ATTENDS, ATTENTION_CLASS, PROBES, other_mixer
from hf_attnviz.capturing.function import FunctionObserver
from hf_attnviz.capturing.generated import Generated, planned
from hf_attnviz.capturing.given import first_number, matrix, note_media, note_prompt, settings, side_of, spread
from hf_attnviz.capturing.pipeline import TextsRead
from hf_attnviz.capturing.probe import Again, probed
from hf_attnviz.capturing.registry import extract_of, stated
from hf_attnviz.capturing.runs import Filled, Run, Side
from hf_attnviz.capturing.wrappers import uncompiled, untraced
from hf_attnviz.errors import CaptureError
from hf_attnviz.language import Text

if TYPE_CHECKING:
    from hf_attnviz.capturing.recording import Recording


_NONE: Final[Mapping[str, Any]] = MappingProxyType({})


class Listener:
    """The hooks and doors of one open recording; :meth:`close` takes all of them off."""

    def __init__(self, recording: "Recording") -> None:
        self.recording, self.model = recording, recording.model
        self.two_sided = bool(getattr(getattr(self.model, "config", None), "is_encoder_decoder", False))
        self._attending, self._texts = _attending(self.model, ATTENTION_CLASS), TextsRead()
        self._named = _attending(self.model, ATTENDS)
        self._others = {id(m): text for m in self.model.modules() if (text := other_mixer(m)) is not None}
        self._probes = {id(m): PROBES[type(m).__name__] for m in self.model.modules() if type(m).__name__ in PROBES}
        self._blocks = blocks(self.model) if recording.replays else frozenset()
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
        doors = {"generate": self._generate, "prepare_inputs_for_generation": self._prepare}
        for name, around in (doors | {"_get_candidate_generator": self._drafts}).items():
            if callable(getattr(self.model, name, None)):
                undo.callback(stand_at(self.model, name, around))
        for name in ASIDES:
            if callable(getattr(self.model, name, None)):
                undo.callback(stand_at(self.model, name, functools.partial(self._aside, name)))
        for module in self.model.modules():
            if isinstance(module, TORCH_ATTENTION) and extract_of(module) is None:
                undo.callback(stand_at(module, "forward", Apart(self.recording, module)))
            elif isinstance(module, TORCH_ATTENTION) and module is not self.model:
                undo.callback(stand_at(module, "forward", functools.partial(self._through, module)))
            elif module is not self.model and not _plain(module):
                undo.callback(module.register_forward_pre_hook(Ours(self._enter_module), with_kwargs=True).remove)
                undo.callback(module.register_forward_hook(Ours(self._leave_module), always_call=True).remove)
        for reader in self.recording.readers:
            undo.callback(reader.register_forward_hook(Ours(self._texts.note), with_kwargs=True).remove)
        for side, reads in (("get_encoder", self._read_source), ("get_decoder", self._read_target)):
            part = getattr(self.model, side)() if self.two_sided and hasattr(self.model, side) else None
            if isinstance(part, nn.Module):
                undo.callback(part.register_forward_pre_hook(Ours(reads), with_kwargs=True).remove)

    # ---- sessions: while the target runs in this thread

    @contextlib.contextmanager
    def _session(self, cache: Any = None, *, compiles: bool = False) -> Iterator[scope.Session]:
        session = scope.session_of(self.recording)
        if session is None:
            run = self.recording.continued(cache) or self.recording.new_run(self.two_sided)
            session = scope.Session(self.recording, run)
            scope.begin(session, FunctionObserver)
        session.depth += 1
        try:
            with uncompiled(self.model, compiles) if session.depth == 1 else contextlib.nullcontext():
                yield session
        except BaseException:
            session.run.failed = True
            raise
        finally:
            session.depth -= 1
            if session.depth == 0:
                self._end(session)

    def _end(self, session: scope.Session) -> None:
        if not session.run.failed:
            strides.reduce(session)
        observer = scope.close(session)
        if getattr(observer, "compiled", False):
            problem = CaptureError(
                Text(
                    "a part of the model is compiled, and compiled code passes by every observer",
                    "模型的一部分已编译，而编译后的代码绕过所有观察者",
                )
            )
            session.run.problems.setdefault("torch.compile", problem)
        session.run.done = True

    # ---- doors

    @untraced
    def _forward(self, following: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not scope.hears(self.recording):
            return following(*args, **kwargs)
        given = spread(named_arguments(self.model, args, kwargs))
        with self._session(given.get("past_key_values")) as session:
            outer = session.current
            session.current = one = session.run.begin_pass()
            first = next((a for a in given.values() if isinstance(a, torch.Tensor) and a.dim()), None)
            one.batch = None if first is None else first.size(0)
            # Models of transformers put the batch first; others may not. Two axes of numbers: a batch of one.
            if first is not None and first.dim() >= 2 and not first.is_nested and not of_transformers(self.model):
                one.second = 1 if first.dim() == 2 and first.is_floating_point() else first.size(1)
            one.side = self._reads(session, given)
            note_media(session, given)
            upcoming, session.upcoming = session.upcoming, None
            if upcoming is not None:
                one.prefix, mask = upcoming
                one.step = len(session.run.forwards) - 1  # asides are no steps
                if one.side.mask is None and not self.two_sided:
                    one.side = replace(one.side, mask=mask)
            if self.recording.readers:
                session.run.source = Side(ids=self._texts.ids_of(given.get("encoder_hidden_states")))
            if self.two_sided:
                if session.run.source.mask is None and not session.run.is_aside(one):
                    session.run.source = replace(session.run.source, mask=one.side.mask)
                one.side = Side()  # the decoder's own hook says what it reads
            session.cache = given.get("past_key_values")
            if not self.two_sided:  # else the decoder's own hook says what it reads
                strides.begin(session, one)
            session.contexts.append(_context(session, self.model, args, kwargs))
            try:
                with scope.at_rest():
                    output = following(*args, **kwargs)
                self._hear(session, self.model, output)
                strides.end(session, one)
            finally:
                session.striding = False
                session.leave(self.model)
                session.current = outer
            _remember(session.run, getattr(output, "past_key_values", None))
            return output

    @untraced
    def _aside(self, name: str, following: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A part of the target that is run by a method of its own: a run like any other."""
        if not scope.hears(self.recording) or scope.session_of(self.recording) is not None:
            return following(*args, **kwargs)
        given = dict(zip(parameters(getattr(type(self.model), name)), args, strict=False)) | kwargs
        with self._session() as session:
            session.current = one = session.run.begin_pass()
            one.batch = next((len(a) for a in given.values() if isinstance(a, torch.Tensor) and a.dim()), None)
            one.side = self._reads(session, given)
            note_media(session, given)
            return following(*args, **kwargs)

    @untraced
    def _generate(self, following: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``generate()`` of the target: the same call, the same result, one run."""
        if not scope.hears(self.recording):
            return following(*args, **kwargs)
        setting = settings(self.model, args, kwargs)
        with self._session(compiles=setting("compile_config") is not None) as session:
            note_prompt(self.model, session, args, kwargs)
            session.run.planned = planned(setting) if session.depth == 1 else session.run.planned
            output = following(*args, **kwargs)
            sequences = output if isinstance(output, torch.Tensor) else getattr(output, "sequences", None)
            if isinstance(sequences, torch.Tensor) and sequences.dim() == 2:
                ends = setting("eos_token_id")
                session.run.generated = Generated(
                    sequences.detach().cpu(),
                    int(setting("num_return_sequences") or 1),
                    () if ends is None else tuple(torch.as_tensor(ends).reshape(-1).tolist()),
                    first_number(setting("pad_token_id")),
                )
            return output

    def _prepare(self, following: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Reads what every row has by now: the rows of a beam are in another order at every step."""
        session = scope.session_of(self.recording)
        if session is not None and not scope.is_deaf():
            prefix = matrix(args[0] if args else kwargs.get("input_ids"))
            mask = matrix(kwargs.get("attention_mask"))
            session.upcoming = (None if prefix is None else prefix.cpu().clone(), mask)
        return following(*args, **kwargs)

    def _drafts(self, following: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What drafts tokens in assisted decoding: it works unheard, also where it is a part of the target itself."""
        session = scope.session_of(self.recording)
        if session is None or scope.is_deaf():
            return following(*args, **kwargs)
        with scope.deaf():  # an encoder-decoder that drafts reads the source at once
            drafter = following(*args, **kwargs)
        draft, prompt = drafter.get_candidates, matrix(kwargs.get("input_ids"))

        def unheard(*args: Any, **kwargs: Any) -> Any:
            with scope.deaf():
                return draft(*args, **kwargs)

        drafter.get_candidates = unheard  # of this one generate() alone: nobody else holds it
        if prompt is None:
            problem = CaptureError(
                Text(
                    "generate() drafts tokens, and where its prompt ends is not known",
                    "generate() 会起草词元，而提示在哪里结束不得而知",
                )
            )
            session.run.problems.setdefault("generate", problem)
        else:
            session.run.drafted_from = prompt.shape[1]
        if any(row < 0 for reducer in self.recording.reducers for row in getattr(reducer, "queries", ())):
            problem = CaptureError(
                Text(
                    "rows that count from the end of each forward may be drafts that were rejected; keep the maps, or "
                    "rows that count from the start",
                    "从每次前向末尾数起的行可能是被否决的草稿；请保留注意力图，或从开头数起的行",
                )
            )
            session.run.problems.setdefault("generate", problem)
        return drafter

    def _through(
        self, module: nn.Module, following: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The door of a registered layer of torch: a hook would switch the faster way off for those around it."""
        session = scope.session_of(self.recording)
        if session is None:
            return following(*args, **kwargs)
        session.contexts.append(_context(session, module, args, kwargs))
        try:
            output = following(*args, **kwargs)
            self._hear(session, module, output)
            return output
        finally:
            session.leave(module)

    # ---- hooks

    def _enter_module(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] = _NONE) -> None:
        # torch puts a hook on before it notes that it takes kwargs; another thread may come by in between
        if torch.compiler.is_compiling():  # the code made from this trace serves others, too
            return
        session = scope.session_of(self.recording)
        if session is not None and session.striding:
            return
        if session is not None:
            context = _context(session, module, args, kwargs)
            if id(module) in self._probes and not scope.is_deaf():
                context.again = Again.of(args, kwargs)
            if id(module) in self._blocks and not scope.is_deaf():
                context.block = Block.entered(module, args, kwargs)
            session.contexts.append(context)
        elif id(module) in self._named and scope.hears(self.recording) and torch._C._current_graph_task_id() == -1:
            # not while gradients flow back: checkpointing then runs blocks again, whose maps are recorded already
            self.recording.note_outside(module)

    def _leave_module(self, module: nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        session = scope.session_of(self.recording)
        if session is None or session.striding:
            return
        if output is not None:  # None: it raised an error
            self._hear(session, module, output)
        silent = session.stated
        context = session.leave(module)
        if context is not None and not context.attended and not silent and not scope.is_deaf():
            self._unseen(session, module, context.mixed)

    def _unseen(self, session: scope.Session, module: nn.Module, mixed: bool) -> None:
        """A module has ended and no attention was seen in it: is that as it should be?"""
        name = type(module).__name__
        if id(module) in self._others:
            self.recording.note_other(session, module, self._others[id(module)])
        elif mixed and id(module) in self._attending and self.recording.wants(module):
            problem = CaptureError(
                Text(
                    f"this {name} ran and no attention was seen in it: it computes it in a way that the observers do "
                    "not know. Capture another part of the model, or say what its weights are with "
                    f"av.register_attention({name}, extract=…)",
                    f"这个 {name} 运行了，其中却没有看到注意力：它的计算方式是观察者不认识的。请捕获模型的另一部分，"
                    f"或用 av.register_attention({name}, extract=…) 说明其权重",
                )
            )
            self.recording.blame(session, module, problem)

    def _hear(self, session: scope.Session, module: nn.Module, output: Any) -> None:
        """Record what a user has registered for this call of a module, or what a probe reads of it."""
        context = session.context(module)
        probe = self._probes.get(id(module))
        if probe is not None and context.again is not None and not scope.is_deaf():
            see = functools.partial(probed, module, probe, context.again, output)
            self.recording.receive(session, module, see)
        if context.block is not None and context.kernels:
            at_the_end(context.block, output, context.kernels, self.recording.known)
        extract, context.extract = context.extract, None
        if extract is not None and self.recording.wants(module):
            see = functools.partial(stated, extract, module, context.args, context.kwargs, output)
            self.recording.receive(session, module, see)

    def _reads(self, session: scope.Session, given: dict[str, Any]) -> Side:
        """What a call reads; where a cache of the user's own cannot tell, the model runs all the same."""
        try:
            return side_of(given)
        except Exception as problem:
            self.recording.blame(session, None, problem)
            return Side()

    def _read_source(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling():
            return
        session = scope.session_of(self.recording)
        if session is not None and not (session.current is not None and session.run.is_aside(session.current)):
            given = named_arguments(module, args, kwargs)
            session.run.source = self._reads(session, given)
            note_media(session, given)

    def _read_target(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling():
            return
        session = scope.session_of(self.recording)
        if session is not None and session.current is not None:
            session.current.side = self._reads(session, named_arguments(module, args, kwargs))
            strides.begin(session, session.current)


def _context(
    session: scope.Session, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> scope.Context:
    """A call that begins; inside a module that a user speaks for, and on our own side paths, no other is asked."""
    extract = None if session.stated or scope.is_deaf() else extract_of(module)
    return scope.Context(module, args, kwargs, extract=extract)


def _plain(module: nn.Module) -> bool:
    """A module of torch that nobody asks about."""
    return type(module).__module__.startswith("torch.nn.") and extract_of(module) is None


def _attending(model: nn.Module, name: re.Pattern[str]) -> set[int]:
    """The modules that attend themselves, by their class' name: those without another such module inside."""

    def named(module: nn.Module) -> bool:
        return name.search(type(module).__name__) is not None or extract_of(module) is not None

    modules = [m for m in model.modules() if m is not model and named(m)]
    return {id(m) for m in modules if not any(named(part) for part in list(m.modules())[1:])}


def _remember(run: Run, cache: Any) -> None:
    if cache is not None:
        with contextlib.suppress(Exception):  # a tuple cannot be referred to weakly; another cache may fail
            run.cache, run.filled = weakref.ref(cache), Filled.of(cache)
