"""A layer whose attention comes in a shape of its own, read whole: it is run once more on values that are identities.

Whatever a layer does with windows, chunks, buckets or global tokens: as long as its output is linear in its values,
the block of the identity that goes in as values comes out as the weights, at the positions of the whole sequence.
That is the exact grade of the proof, one level above the kernel. What ran is what the layer put out; that the layer
is linear in its values is not believed but checked: weights · V has to be that output.
"""

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hf_attnviz.capturing import scope
from hf_attnviz.capturing.doors import replayed, stand_at
from hf_attnviz.capturing.families import Probe
from hf_attnviz.capturing.proof import prove
from hf_attnviz.capturing.seen import Seen
from hf_attnviz.errors import CaptureError, ProofError
from hf_attnviz.language import Text


@dataclass(frozen=True, eq=False)
class Again:
    """What a second run of a module needs: its arguments, and the state of the random numbers, from before the first.

    A cache is written to by every run, so each run has a copy of its own.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    rng: torch.Tensor

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> "Again":
        """The state now, before the first run."""
        return cls(tuple(map(_own, args)), {name: _own(value) for name, value in kwargs.items()}, torch.get_rng_state())

    def continues(self, module: nn.Module) -> bool:
        """Whether a cache holds values from earlier runs."""
        caches = [value for value in (*self.args, *self.kwargs.values()) if _is_cache(value)]
        return any((cache.get_seq_length(getattr(module, "layer_idx", 0) or 0) or 0) > 0 for cache in caches)


def _is_cache(value: Any) -> bool:
    return hasattr(value, "get_seq_length")


def _own(value: Any) -> Any:
    return copy.deepcopy(value) if _is_cache(value) else value


def probed(module: nn.Module, row: Probe, again: Again, output: Any) -> Seen:
    """The weights of one call of ``module``, ``[batch, head, query, key]``.

    Args:
        module, row: the layer, and how it is read.
        again: how it was called.
        output: what it put out.

    Raises:
        CaptureError: the layer drops weights at random now, or goes on with a cache whose values are not at hand.
        ProofError: a second run is not like the first, or the output is not linear in the values.
    """
    name = type(module).__name__
    if module.training:
        raise CaptureError(
            Text(
                f"{name} is read by a second run, and dropout would change it; call model.eval() first",
                f"{name} 要靠第二次运行来读取，而 dropout 会改变它；请先调用 model.eval()",
            )
        )
    if again.continues(module):
        raise CaptureError(
            Text(
                f"{name} is read by a second run, and goes on with a cache; run it with use_cache=False",
                f"{name} 要靠第二次运行来读取，而它在沿用缓存；请以 use_cache=False 运行",
            )
        )
    with torch.no_grad(), scope.deaf(), replayed(module), torch.random.fork_rng(devices=[]):

        def run(instead: Callable[[torch.Tensor], torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
            torch.set_rng_state(again.rng)
            args = tuple(map(_own, again.args))
            return _run(module, row, args, {key: _own(value) for key, value in again.kwargs.items()}, instead)

        values: list[torch.Tensor] = []

        def listen(value: torch.Tensor) -> torch.Tensor:
            values.append(value.detach())
            return value

        heads = int(getattr(module, row.heads))
        if not torch.equal(run(listen)[0], _first_of(output)):
            raise ProofError(
                Text(
                    f"{name} is read by a second run, and it does not repeat itself (hooks of your own do not run "
                    "again)",
                    f"{name} 要靠第二次运行来读取，而它两次运行的结果不同（你自己的钩子不会再次运行）",
                )
            )
        value = _apart(_turned(values[0], row), heads)

        def kernel(block: torch.Tensor) -> torch.Tensor:
            together = block.transpose(1, 2).flatten(2)
            return _apart(run(lambda _: _turned(together, row))[1], heads).transpose(1, 2)

        # Several layers may make values, each for rows of its own: the same values through all of them.
        proved = prove((), kernel, value, kernel(value), None, exact=True)
    return Seen(lambda: proved, f"{name}, run again on identity values", pads=True)


def unpadded(weights: torch.Tensor, read: int | None) -> torch.Tensor:
    """The weights of what was read, where the layer filled the sequence up with positions that nobody looks at."""
    if read is None or weights.shape[-2] <= read or weights.shape[-2] != weights.shape[-1]:
        return weights
    real = weights[..., :read, :]
    return real[..., :read] if not bool(real[..., read:].any()) else weights


def _run(
    module: nn.Module,
    row: Probe,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    instead: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the layer gives when its values go through ``instead``, and what they were mixed to on the way.

    Both are ``[batch, query, head · size]``.
    """
    mixed: list[torch.Tensor] = []

    def around(following: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return instead(following(*given, **named))

    def reads(following: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        mixed.append(given[0])
        return following(*given, **named)

    with contextlib.ExitStack() as undo:
        for name in row.values:
            if hasattr(module, name):
                undo.callback(stand_at(getattr(module, name), "forward", around))
        if row.output is not None:
            undo.callback(stand_at(getattr(module, row.output), "forward", reads))
        given = _first_of(module.forward(*args, **kwargs))
    return given, mixed[0] if mixed else given


def _first_of(output: Any) -> torch.Tensor:
    found: torch.Tensor = output if isinstance(output, torch.Tensor) else output[0]
    return found


def _turned(value: torch.Tensor, row: Probe) -> torch.Tensor:
    """Batch first, or back to the order in which the layer's values come."""
    return value if row.batch_first else value.transpose(0, 1)


def _apart(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """``[batch, position, head · size]`` as ``[batch, head, position, size]``."""
    return tensor.reshape(*tensor.shape[:2], heads, -1).transpose(1, 2)
