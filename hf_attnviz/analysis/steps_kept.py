"""Numbers of decoding steps of traces without weights: as they were made while the model ran, or out of statistics."""

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from hf_attnviz.errors import NotKeptError, ShapeError
from hf_attnviz.functional.evolution import uniform_drifts
from hf_attnviz.language import Text
from hf_attnviz.trace import AttentionStack

FROM_STATISTICS: Final = Text(
    "Only statistics were kept: what needs the row itself (lookback ratio, drift, argmax …) is left out; for it "
    'capture with keep="evolution".',
    '只保留了统计量：需要整行权重的数（回看比、漂移、argmax 等）略去；若需要，请以 keep="evolution" 捕获。',
)


def kept_as(stack: AttentionStack) -> str | None:
    """Under which name a stack without weights keeps numbers of each row; None where it keeps none, or weights."""
    maps = [] if all(m.has_weights for m in stack.maps) else stack.maps
    return next((name for name in ("evolution", "statistics") if maps and all(name in m.reduced for m in maps)), None)


def kept_numbers(stack: AttentionStack, rows: Sequence[int], name: str) -> dict[str, Tensor]:
    """What :func:`hf_attnviz.functional.evolution` tells of these rows, each ``[step, layer, head]``.

    Raises:
        ShapeError: layers that differ in heads.
    """
    if len({m.heads for m in stack.maps}) > 1:
        raise ShapeError(
            Text(
                f"the layers of stack {stack.name!r} cannot be stacked, they differ in heads",
                f"堆栈 {stack.name!r} 的各层头数不同，无法堆叠",
            )
        )
    keys = _keys(stack, rows)

    def of(value: str) -> Tensor:
        return torch.stack([m.reduced[name][value][:, list(rows)] for m in stack.maps]).permute(2, 0, 1)

    if name == "evolution":
        found = {value: of(value) for value in stack.maps[0].reduced[name]}
        even = uniform_drifts(keys).to(found["drift"])[:, None, None].expand_as(found["drift"])
        return {**found, "argmax": found["argmax"].long(), "uniform_drift": even}
    entropy = of("entropy")
    choice = torch.tensor([math.log(count) or torch.nan for count in keys]).to(entropy)[:, None, None]
    found = {} if stack.maps[0].positions is None else {"distance": of("distance")}
    spread = {"entropy": entropy, "normalised_entropy": entropy / choice, "effective_span": entropy.exp()}
    return {**found, "first_token": of("sink"), **spread}


def argmax_of(numbers: dict[str, Tensor]) -> Tensor:
    """The strongest keys.

    Raises:
        NotKeptError: statistics do not tell them.
    """
    if "argmax" not in numbers:
        raise NotKeptError(
            Text(
                'argmax paths need rows of weights, of which only statistics were kept: capture with keep="evolution" '
                "or "
                'keep="maps"',
                'argmax_paths 需要各行的权重，而这里只保留了统计量：请以 keep="evolution" 或 keep="maps" 捕获',
            )
        )
    return numbers["argmax"]


def _keys(stack: AttentionStack, rows: Sequence[int]) -> list[int]:
    """How many keys there were at each step."""
    ends = stack.maps[0].positions
    return [len(stack.keys) if ends is None else ends[row] + 1 for row in rows]
