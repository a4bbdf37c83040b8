"""Which rows of a generation put out a token, and on which keys each of them could look."""

import torch

from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.errors import NotKeptError
from hf_attnviz.language import Text
from hf_attnviz.trace import AttentionStack


def producing_rows(one: AttentionMap, what: Text) -> list[int]:
    """The rows that put out a token, one a step.

    Raises:
        NotKeptError: a plain forward pass, or rows that ``keep`` left out; ``what`` begins the message.
    """
    if one.produced is None:
        raise NotKeptError(
            Text(
                f"this trace is of a plain forward pass; {what.en} needs a generation: capture model.generate()",
                f"这个 trace 来自普通前向；{what.zh}需要一次生成：请捕获 model.generate()",
            )
        )
    rows = [n for n, text in enumerate(one.produced) if text is not None]
    if [one.steps[n] for n in rows] != list(range(len(rows))) or not rows:
        raise NotKeptError(
            Text(
                'rows that put out tokens were not kept; capture with keep="maps" or av.Rows([-1])',
                '没有保留产出词元的行；请以 keep="maps" 或 av.Rows([-1]) 捕获',
            )
        )
    return rows


def rows_by_step(stack: AttentionStack, rows: list[int]) -> list[torch.Tensor]:
    """One map of one row ``[layer, 1, head, 1, key]`` for each step, on the keys that there were by then."""
    weights, ends = stack.stacked(), stack.maps[0].positions
    return [weights[:, None, :, n : n + 1, : None if ends is None else ends[n] + 1] for n in rows]
