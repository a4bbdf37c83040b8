"""Who is listening, in which thread, and inside which module.

The observers speak only inside a session: while the target's own forward or generate() runs in this thread. Two
threads with two models never see each other's calls, for sessions are kept by thread.
"""

import contextvars
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from hf_attnviz.capturing.blocks import Block, ReadAtTheEnd
    from hf_attnviz.capturing.decoding import Lane, Lanes
    from hf_attnviz.capturing.probe import Again
    from hf_attnviz.capturing.recording import Recording
    from hf_attnviz.capturing.runs import Pass, Run


@dataclass(eq=False)
class Context:
    """One call of a module, while it runs.

    Attributes:
        module, args, kwargs: what is called, and with what.
        maps: how many maps were seen of it.
        attended: whether any attention was seen in it or inside it.
        mixed: whether anything ran in it that could have been attention: a product, a softmax.
        extract: what a user has registered for the module: it states the attention, and the observers are silent.
        again: for a module that is to run again: its arguments, and the state of the random numbers, as they were.
        block: the same for a block of layers, where something is to be read when it ends.
        kernels: the attention calls in it that wait for that.
    """

    module: nn.Module
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    maps: int = 0
    attended: bool = False
    mixed: bool = False
    extract: Callable[..., Any] | None = None
    again: "Again | None" = None
    block: "Block | None" = None
    kernels: "list[tuple[nn.Module, ReadAtTheEnd]]" = field(default_factory=list)


@dataclass(eq=False)
class Session:
    """A recording that listens in this thread: its run, the pass under way, and the modules being called.

    ``upcoming`` holds the tokens and the mask that ``generate()`` has made ready for the next pass. ``woke``: it began
    while the observer of functions was at rest. ``lanes``: what steps of decoding have left behind, and whether the
    pass under way is such a step (``striding``).
    """

    recording: "Recording"
    run: "Run"
    depth: int = 0
    current: "Pass | None" = None
    upcoming: "tuple[torch.Tensor | None, torch.Tensor | None] | None" = None
    woke: bool = False
    lanes: "Lanes | None" = None
    striding: bool = False
    cache: Any = None
    contexts: list[Context] = field(default_factory=list)

    def context(self, module: nn.Module) -> Context:
        """The innermost call of ``module`` that is under way."""
        for context in reversed(self.contexts):
            if context.module is module:
                return context
        self.contexts.insert(0, Context(module))  # a module that takes no hook of ours
        return self.contexts[0]

    @property
    def stated(self) -> bool:
        """Whether a user's own function speaks for the module under way."""
        return any(context.extract is not None for context in self.contexts)

    def leave(self, module: nn.Module) -> Context | None:
        """End the innermost call of ``module``, and whatever an error left open inside it.

        A pass remembers its calls, to count them; what they were given must not live on with it.
        """
        while self.contexts:
            context = self.contexts.pop()
            context.args, context.kwargs, context.again, context.block = (), {}, None, None
            context.kernels = []
            if context.module is module:
                return context
        return None


class _Thread(threading.local):
    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.observer: AbstractContextManager[Any] | None = None
        self.deaf = 0
        self.resting = False
        self.replaying = 0
        self.strangers: tuple[Recording, ...] | None = None


_thread = _Thread()

# The blocks `with av.capture(…)` that the running task or thread stands in; tasks and to_thread() inherit them.
_blocks: contextvars.ContextVar[tuple["weakref.ref[Recording]", ...]] = contextvars.ContextVar("_blocks", default=())


def enter_block(recording: "Recording") -> None:
    """The running task stands in the block of a recording from now on."""
    _blocks.set((*_blocks.get(), weakref.ref(recording)))


def leave_block(recording: "Recording") -> None:
    """It does no longer; a generator may leave the block in another context than the one that entered it."""
    _blocks.set(tuple(block for block in _blocks.get() if block() not in (recording, None)))


def hears(recording: "Recording") -> bool:
    """Whether a recording hears what runs here and now.

    Two blocks on one model in two tasks or threads hear their own runs only. A recording attached by hand hears all,
    and a thread that stands in no block is heard by all: it may be anybody's helper.
    """
    if _thread.deaf or not recording.is_open:  # a call may be under way at a door that somebody has just left
        return False
    blocks = [block for ref in _blocks.get() if (block := ref()) is not None and block.in_block and block.is_open]
    if _thread.strangers is not None and not recording.intervenes:
        return recording in blocks and recording not in _thread.strangers
    return not blocks or recording in blocks or not recording.in_block


def sessions() -> list[Session]:
    """The sessions open in this thread; none while the observers work themselves."""
    return [] if _thread.deaf else _thread.sessions


def all_sessions() -> list[Session]:
    """The sessions open in this thread, also while the observers work."""
    return _thread.sessions


def session_of(recording: "Recording") -> Session | None:
    """The session of a recording in this thread, if it is open."""
    return next((session for session in _thread.sessions if session.recording is recording), None)


def begin(session: Session, observer: Callable[[], AbstractContextManager[Any]]) -> None:
    """Open a session in this thread; the first one brings the observer of functions with it."""
    if _thread.observer is None:
        _thread.observer = observer()
        _thread.observer.__enter__()
    elif _thread.resting:
        session.woke, _thread.resting = True, False
        _thread.observer.__enter__()
    _thread.sessions.append(session)


def close(session: Session) -> object:
    """Close a session of this thread, and give the observer of functions; the last one takes it away."""
    if session in _thread.sessions:
        _thread.sessions.remove(session)
    observer = _thread.observer
    if session.woke and observer is not None:
        _thread.resting = True
        observer.__exit__(None, None, None)
    if not _thread.sessions and observer is not None:
        _thread.observer = None
        observer.__exit__(None, None, None)
    return observer


@contextmanager
def at_rest() -> Iterator[None]:
    """Inside, functions of torch are not looked at, which costs more than a small model's step of decoding.

    Only where the run of every session has shown that its attention comes through transformers' interface alone.
    """
    modes = torch.overrides._get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    alone = bool(modes) and modes[-1] is _thread.observer and not _thread.resting
    if not alone or not all(session.run.rests for session in _thread.sessions):
        yield
        return
    _thread.resting = True
    try:
        with torch.overrides._pop_mode_temporarily():
            yield
    finally:
        _thread.resting = False


def lane(module: nn.Module) -> "Lane | None":
    """Where a module leaves its row behind in the step of decoding that is under way; None: it is kept at once."""
    if len(_thread.sessions) != 1 or _thread.deaf or not _thread.sessions[0].striding:
        return None
    lanes = _thread.sessions[0].lanes
    return None if lanes is None else lanes.lanes.get(id(module))


def listeners(module: nn.Module) -> list[Session]:
    """The open sessions that want what happens in ``module``."""
    return [session for session in sessions() if session.recording.wants(module) and not session.stated]


def innermost_listeners() -> list[Session]:
    """The sessions that want what happens in the module each of them is in."""
    open_ones = [session for session in sessions() if session.contexts and not session.stated]
    return [session for session in open_ones if session.recording.wants(session.contexts[-1].module)]


def note_mixing() -> None:
    """Something ran that may have been attention."""
    for session in sessions():
        for context in session.contexts:
            context.mixed = True


def note_by_hand() -> None:
    """A model called a function that attention is written with."""
    for session in sessions():
        session.run.by_functions |= bool(session.contexts)


def is_deaf() -> bool:
    """Whether the observers of this thread are to hear nothing."""
    return _thread.deaf > 0


def is_replaying() -> bool:
    """Whether a layer runs once more, for the observers alone."""
    return _thread.replaying > 0


@contextmanager
def replaying() -> Iterator[None]:
    """Inside, a layer runs once more, for the observers alone."""
    _thread.replaying += 1
    try:
        yield
    finally:
        _thread.replaying -= 1


@contextmanager
def alone() -> Iterator[None]:
    """Inside, a model runs for us: only what is opened here records it. Interventions are part of the model, and stay.

    Nobody who records a model wants the hundred runs by which it is explained; who changed it wants that explained.
    """
    before = _thread.strangers
    _thread.strangers = tuple(block for ref in _blocks.get() if (block := ref()) is not None)
    try:
        yield
    finally:
        _thread.strangers = before


@contextmanager
def deaf() -> Iterator[None]:
    """Inside, the observers of this thread hear nothing: for kernels run whole, and for our own side paths."""
    _thread.deaf += 1
    try:
        yield
    finally:
        _thread.deaf -= 1
