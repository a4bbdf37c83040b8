"""Where something other than what the kernel mixed goes on through the model: the one place for all interventions.

Whoever sees attention (the interface, ``scaled_dot_product_attention``, a product of weights and values) shows what was
mixed here before the model goes on with it. Recordings that intervene change it, and so does whoever runs a layer
again to find out what it makes of it. Nobody else is asked, and then nothing is touched.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from hf_attnviz.capturing.scope import Session
from hf_attnviz.capturing.seen import Seen

Edit = Callable[[nn.Module, torch.Tensor], "torch.Tensor | None"]
"""``edit(module, output)``: what goes on instead of ``output`` ``[batch, query, head, size]``; None leaves it."""


@dataclass(frozen=True, eq=False)
class Mixed:
    """What one call of attention has mixed.

    Attributes:
        output: ``[batch, query, head, size]``, before the output projection.
        keys: over how many keys.
        see: gives the weights of the call, proved, and its vectors.
        weights: ``[batch, head, query, key]`` by which it was mixed instead of those seen, where these were changed.
        changed: whether ``output`` is another than what the kernel mixed.
        forbidden: ``[batch, head, query, key]``, which weights may not be, where somebody forbids some.
        masked: gives the output and the weights that the model's own function has with these forbidden by its mask;
            None where the function takes no such mask.
    """

    output: torch.Tensor
    keys: int
    see: Callable[[], Seen]
    weights: torch.Tensor | None = None
    changed: bool = False
    forbidden: torch.Tensor | None = None
    masked: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor] | None] = lambda _: None

    @property
    def shape(self) -> torch.Size:
        """The shape of the weights."""
        batch, queries, heads, _ = self.output.shape
        return torch.Size((batch, heads, queries, self.keys))

    def seeing(self, see: Callable[[], Seen]) -> Callable[[], Seen]:
        """What a recording that listens is shown: the weights and the outputs by which the model went on."""
        if not self.changed:
            return see

        def changed() -> Seen:
            seen = see()
            if self.weights is not None:
                way = f"{seen.proved.way}, then changed"
                proved = replace(seen.proved, weights=self.weights, way=way)
                seen = replace(seen, prove=lambda: proved)
            return replace(seen, vectors=partial(self._vectors, seen.vectors), ran=None)

        return changed

    def _vectors(self, vectors: Callable[[], Mapping[str, torch.Tensor]]) -> Mapping[str, torch.Tensor]:
        seen = vectors()
        return {**seen, "output": self.output.detach().transpose(1, 2)} if "output" in seen else seen

    def put(self, result: torch.Tensor, back: Callable[[torch.Tensor], torch.Tensor] | None = None) -> torch.Tensor:
        """The kernel's result as the model goes on with it: ``result`` itself where nothing was changed.

        Args:
            result: the kernel's result, in the kernel's own shape.
            back: brings an output into the order of that shape; None: it is in that order.
        """
        if not self.changed:
            return result
        put = (self.output if back is None else back(self.output)).reshape(result.shape)
        if put.stride() == result.stride():
            return put
        return torch.empty_like(result).copy_(put)  # models go on with views, which hang on how it lies in memory


class _Thread(threading.local):
    def __init__(self) -> None:
        self.edits: tuple[Edit, ...] = ()


_thread = _Thread()


def active() -> bool:
    """Whether somebody in this thread puts something else in place of what is mixed, also while observers are deaf."""
    return bool(_thread.edits)


def wanted(sessions: Sequence[Session]) -> bool:
    """Whether anybody would change what is mixed now."""
    return active() or any(session.recording.intervenes for session in sessions)


def steered(module: nn.Module, mixed: Mixed, sessions: Sequence[Session]) -> Mixed:
    """What the model goes on with."""
    for edit in _thread.edits:
        changed = edit(module, mixed.output)
        mixed = mixed if changed is None else replace(mixed, output=changed, changed=True)
    for session in sorted(sessions, key=lambda one: not one.recording.reweighs):  # first weights, then what they mix
        mixed = session.recording.steer(session, module, mixed)
    return mixed


@contextmanager
def instead(edit: Edit) -> Iterator[None]:
    """Inside, whatever this thread mixes goes through ``edit``; while a recording is open, and deaf observers too."""
    before, _thread.edits = _thread.edits, (*_thread.edits, edit)
    try:
        yield
    finally:
        _thread.edits = before


@contextmanager
def paused() -> Iterator[None]:
    """Inside, nothing goes through an edit: the kernel that a module asked for runs as one."""
    before, _thread.edits = _thread.edits, ()
    try:
        yield
    finally:
        _thread.edits = before
