"""Which rows of a generation put out a token, and on which keys each of them could look."""

import torch

from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.errors import NotKeptError
from hf_attnviz.trace import AttentionStack


def producing_rows(one: AttentionMap, what: str) -> list[int]:
    """The rows that put out a token, one a step.

    Raises:
        NotKeptError: a plain forward pass, or rows that ``keep`` left out; ``what`` begins the message.
    """
    if one.produced is None:
        raise NotKeptError(
            f"this trace is of a plain forward pass; {what} needs a generation: capture model.generate()"
        )
    rows = [n for n, text in enumerate(one.produced) if text is not None]
    if [one.steps[n] for n in rows] != list(range(len(rows))) or not rows:
        raise NotKeptError('rows that put out tokens were not kept; capture with keep="maps" or av.Rows([-1])')
    return rows


def rows_by_step(stack: AttentionStack, rows: list[int]) -> list[torch.Tensor]:
    """One map of one row ``[layer, 1, head, 1, key]`` for each step, on the keys that there were by then."""
    weights, ends = stack.stacked(), stack.maps[0].positions
    return [weights[:, None, :, n : n + 1, : None if ends is None else ends[n] + 1] for n in rows]
