"""A block of layers run once more, for us alone, with something else in place of what attention mixed.

A second run must give the very bits of the first one; then what goes by inside it, with other things put in place of
the kernel's output, tells what the block makes of that output. Nothing is known of the block but its modules.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
from torch import nn

from hf_attnviz.capturing import scope, steering
from hf_attnviz.capturing.doors import Ours, replayed
from hf_attnviz.capturing.scope import Session
from hf_attnviz.errors import CaptureError, ProofError
from hf_attnviz.language import Text, told

END: Final = -1
Instead = Callable[[torch.Tensor], "torch.Tensor | None"]


@dataclass(frozen=True, eq=False)
class Event:
    """Something that went by in a block.

    Attributes:
        kind: ``"in"`` (a tensor that a module was given), ``"out"`` (what it gave) or ``"kernel"``.
        module: whose; None for the block itself.
        tensor: the tensor, as it was then.
    """

    kind: str
    module: nn.Module | None
    tensor: torch.Tensor

    def like(self, other: "Event") -> bool:
        """Whether both are the same place in two runs."""
        return (self.kind, self.module, self.tensor.shape) == (other.kind, other.module, other.tensor.shape)


class _EnoughError(Exception):
    """The place that was to be read has been read."""


@dataclass(frozen=True, eq=False)
class Block:
    """One call of a block: its arguments from before, the state of the random numbers, and what it put out."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    rng: torch.Tensor

    @classmethod
    def entered(cls, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> "Block":
        """As it is about to run; the block may go on to change its own input in place.

        A cache is left out: in a plain pass it holds nothing for this block yet, and would only be written to.
        """
        given = {name: _own(value) for name, value in kwargs.items()}
        return cls(module, tuple(map(_own, args)), given, torch.get_rng_state())

    def output(self, edits: Mapping[int, Instead]) -> torch.Tensor:
        """What the block puts out in a second run: its first tensor."""
        return self.run(edits, END)[0].tensor

    def run(self, edits: Mapping[int, Instead], until: int | None = None) -> list[Event]:
        """What goes by in a second run.

        Args:
            edits: what is put in place of the kernels' outputs ``[batch, query, head, size]``, by the kernel's number.
            until: the number of the event to stop at; only that one is given. None: all of them; ``END``: the last.
        """
        events, counts = _Events(until), [0]

        def edit(module: nn.Module, output: torch.Tensor) -> torch.Tensor | None:
            number = counts[0]
            counts[0] += 1
            events.note("kernel", module, output)
            return edits[number](output) if number in edits else None

        with torch.no_grad(), scope.deaf(), replayed(self.module), torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.rng)
            for value in (*self.args, *self.kwargs.values()):
                events.note("in", None, value)
            with events.heard(self.module), steering.instead(edit), contextlib.suppress(_EnoughError):
                events.note("out", None, self.module.forward(*map(_own, self.args), **_owned(self.kwargs)))
        return events.found

    def same(self, events: Sequence[Event], output: Any) -> None:
        """Raise unless the run gave what the block put out.

        Raises:
            ProofError: it did not.
        """
        first = _first(output)
        last = events[-1].tensor if events else None
        if first is None or last is None or not torch.equal(last.flatten(), first.flatten()):
            raise ProofError(
                Text(
                    f"{type(self.module).__name__} is to run again, and does not repeat itself (a cache, hooks of your "
                    "own, an intervention, gradients=True, chance); run the model plainly, and capture gradients in a "
                    "run of their own",
                    f"{type(self.module).__name__} 需要再运行一次，而它两次运行的结果不同（缓存、你自己的钩子、干预、"
                    "gradients=True、随机性）；请原样运行模型，梯度请另外单独捕获",
                )
            )


class _Events:
    """What goes by, in order; whole runs keep all of it, others one event only."""

    def __init__(self, until: int | None) -> None:
        self.until, self.count, self.found = until, 0, list[Event]()

    def note(self, kind: str, module: nn.Module | None, value: Any) -> None:
        tensor = _first(value)
        if tensor is None or tensor.dim() < 2 or not tensor.is_floating_point():
            return
        tensor = tensor[None] if tensor.dim() == 2 else tensor  # pictures laid end to end, without a batch
        number, self.count = self.count, self.count + 1
        last = self.until == END and kind == "out" and module is None
        if self.until is None or number == self.until or last:
            self.found.append(Event(kind, module, tensor.detach().clone()))  # it may be changed in place later
        if number == self.until:
            raise _EnoughError

    @contextlib.contextmanager
    def heard(self, block: nn.Module) -> Iterator[None]:
        """Inside, every module of the block tells what it is given and what it gives."""

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if scope.is_replaying():
                for value in (*args, *kwargs.values()):
                    self.note("in", module, value)

        def after(module: nn.Module, args: Any, output: Any) -> None:
            if scope.is_replaying():
                self.note("out", module, output)

        with contextlib.ExitStack() as undo:
            for part in block.modules():
                if part is not block:
                    undo.callback(part.register_forward_pre_hook(Ours(before), with_kwargs=True).remove)
                    undo.callback(part.register_forward_hook(Ours(after)).remove)
            yield


def put_first(rows: torch.Tensor, vectors: torch.Tensor | None, output: torch.Tensor) -> torch.Tensor:
    """Zeros like ``output`` ``[batch, query, head, size]``, with ``vectors`` ``[row, head, size]`` in the first rows.

    Args:
        rows: ``[row, 2]``: the batch and the query of each.
    """
    filled = torch.zeros_like(output)
    if vectors is not None:
        filled[rows[: len(vectors)].T.unbind()] = vectors.to(output)
    return filled


@dataclass(frozen=True, eq=False)
class Kernel:
    """One kernel of a block that has run.

    Attributes:
        block: the block.
        real: all that went by in it, as it was.
        event: the number of the event that is the kernel.
        number: which kernel of the block it is.
    """

    block: Block
    real: Sequence[Event]
    event: int
    number: int

    @property
    def mixed(self) -> torch.Tensor:
        """What was mixed, ``[batch, query, head, size]``."""
        return self.real[self.event].tensor


NO_BLOCK: Final = Text("it stands in no list of blocks", "它不在任何块列表中")


class ReadAtTheEnd(Protocol):
    """What is kept of an attention call, and completed when the block ends in which the call ran."""

    refusal: Text | None

    def read(self, kernel: Kernel, known: dict[Any, Any]) -> None:
        """Complete it; ``known`` holds what was found in earlier calls. An error becomes the refusal."""
        ...


def until_its_block_ends(session: Session, module: nn.Module, kept: ReadAtTheEnd, cached: bool) -> None:
    """Let the block in which an attention call runs complete, when it ends, what is kept of the call."""
    if cached or (session.current is not None and session.current.prefix is not None):
        kept.refusal = Text(
            "layers are run again in plain passes, and this was a step of a generation; run the model once over the "
            "whole sequence: model(input_ids=generated)",
            "各层会在普通前向中再次运行，而这是生成的一步；请对整条序列运行模型一次：model(input_ids=generated)",
        )
        return
    for context in reversed(session.contexts):
        if context.block is not None:
            context.kernels.append((module, kept))
            return


def at_the_end(
    block: Block, output: Any, kernels: Sequence[tuple[nn.Module, ReadAtTheEnd]], known: dict[Any, Any]
) -> None:
    """Complete what is kept of the attention calls of a block that has just run; or say why that cannot be.

    Args:
        block: how it was called.
        output: what it put out.
        kernels: the attention calls that ran in it: their modules, and what is kept of them.
        known: what was found in earlier calls.
    """
    try:
        if block.module.training:
            name = type(block.module).__name__
            raise CaptureError(
                Text(
                    f"{name} is to run again, and dropout would change it; call model.eval() first",
                    f"{name} 需要再运行一次，而 dropout 会改变它；请先调用 model.eval()",
                )
            )
        real = block.run({})
        block.same(real, output)
    except Exception as problem:  # ours, and never the model's
        for _, kept in kernels:
            kept.refusal = _told(problem)
        return
    places = [n for n, event in enumerate(real) if event.kind == "kernel"]
    turns: dict[int, int] = {}
    for module, kept in kernels:
        turn = turns[id(module)] = turns.get(id(module), -1) + 1
        own = [n for n, place in enumerate(places) if real[place].module is module]
        try:
            if turn >= len(own):
                raise CaptureError(
                    Text(
                        "it mixes in a way in which nothing can be put in place of what it mixed",
                        "它混合的方式使得无法用别的东西替换所混合的内容",
                    )
                )
            kept.read(Kernel(block, real, places[own[turn]], own[turn]), known)
            kept.refusal = None
        except Exception as problem:
            kept.refusal = _told(problem)


def _told(problem: Exception) -> Text:
    """The reason in words; of what is none of ours, its kind too."""
    if isinstance(problem, CaptureError):
        return told(problem)
    what = f"{type(problem).__name__}: {problem}"
    return Text(f"it cannot be run again on something else ({what})", f"它无法用别的内容再次运行（{what}）")


def _first(value: Any) -> torch.Tensor | None:
    if isinstance(value, (tuple, list)) and value:
        value = value[0]
    elif hasattr(value, "to_tuple"):
        value = value.to_tuple()[0]
    return value if isinstance(value, torch.Tensor) else None


def _own(value: Any) -> Any:
    """An argument for one run alone: streams are copied, caches left out."""
    if hasattr(value, "get_seq_length"):
        return None
    streams = isinstance(value, torch.Tensor) and value.is_floating_point() and value.dim() in (2, 3)
    return value.detach().clone() if streams else value


def _owned(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _own(value) for name, value in kwargs.items()}
