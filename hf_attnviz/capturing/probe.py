"""A layer whose attention comes in a shape of its own, read whole: it is run once more on values that are identities.

Whatever a layer does with windows, chunks, buckets or global tokens: as long as its output is linear in its values,
the block of the identity that goes in as values comes out as the weights, at the positions of the whole sequence.
That is the exact grade of the proof, one level above the kernel. What ran is what the layer put out; that the layer
is linear in its values is not believed but checked: weights · V has to be that output.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hf_attnviz.capturing import scope
from hf_attnviz.capturing.doors import stand_at
from hf_attnviz.capturing.families import Probe
from hf_attnviz.capturing.proof import prove
from hf_attnviz.capturing.seen import Seen
from hf_attnviz.errors import CaptureError, ProofError


def probed(
    module: nn.Module, row: Probe, args: Sequence[Any], kwargs: Mapping[str, Any], rng: torch.Tensor, output: Any
) -> Seen:
    """The weights of one call of ``module``, ``[batch, head, query, key]``.

    Args:
        module, row: the layer, and how it is read.
        args, kwargs, rng: its arguments, and the random numbers' state before it ran.
        output: what it put out.

    Raises:
        CaptureError: the layer drops weights at random now, so that no second run is like the first.
        ProofError: a second run is not like the first, or the output is not linear in the values.
    """
    if module.training:
        raise CaptureError(
            f"{type(module).__name__} is read by a second run, and dropout would change it: model.eval()"
        )
    with torch.no_grad(), scope.deaf(), torch.random.fork_rng(devices=[]):

        def run(instead: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
            torch.set_rng_state(rng)
            return _run(module, row, args, kwargs, instead)

        values: list[torch.Tensor] = []

        def listen(value: torch.Tensor) -> torch.Tensor:
            values.append(value.detach())
            return value

        heads = int(getattr(module, row.heads))
        if not torch.equal(run(listen), _context(output)):
            raise ProofError(f"{type(module).__name__} is read by a second run, and it does not repeat itself")
        value = _apart(_first(values[0], row), heads)

        def kernel(block: torch.Tensor) -> torch.Tensor:
            together = block.transpose(1, 2).flatten(2)
            context = run(lambda _: _first(together, row))
            return _apart(context, heads).transpose(1, 2)

        # Several layers may make values, each for rows of its own: the same values through all of them.
        proved = prove((), kernel, value, kernel(value), None, exact=True)
    return Seen(proved, f"{type(module).__name__}, run again on identity values", pads=True)


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
) -> torch.Tensor:
    """What the layer puts out, ``[batch, query, head · size]``, when its values go through ``instead``."""

    def around(following: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return instead(following(*given, **named))

    leave = [stand_at(getattr(module, name), "forward", around) for name in row.values if hasattr(module, name)]
    try:
        output = module.forward(*args, **kwargs)
    finally:
        for undo in leave:
            undo()
    return _context(output)


def _context(output: Any) -> torch.Tensor:
    found: torch.Tensor = output if isinstance(output, torch.Tensor) else output[0]
    return found


def _first(value: torch.Tensor, row: Probe) -> torch.Tensor:
    """Batch first, or back to the order in which the layer's values come."""
    return value if row.batch_first else value.transpose(0, 1)


def _apart(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """``[batch, position, head · size]`` as ``[batch, head, position, size]``."""
    return tensor.reshape(*tensor.shape[:2], heads, -1).transpose(1, 2)
