"""Attention and rollout as scores of the input's positions: the rows at which a scalar is read, one meaning for all."""

from collections.abc import Sequence

from torch import Tensor

from hf_attnviz import functional
from hf_attnviz.functional.checks import upcast
from hf_attnviz.trace import AttentionStack, Trace


def attention_row(stack: AttentionStack, rows: Sequence[int]) -> Tensor:
    """Raw attention ``[key]``: last layer, mean over heads, mean over ``rows`` (over all where there are none)."""
    return mean_row(upcast(stack.maps[-1].plain().weights).mean(0), rows)


def rollout_row(trace: Trace, stack: AttentionStack, rows: Sequence[int]) -> Tensor:
    """The same rows of rollout ``[key]``; of cross-attention the last layer, followed through the encoder."""
    if stack.maps[0].kind == "cross":
        encoder = upcast(trace.stack("encoder").whole().stacked())
        return attention_row(stack, rows) @ functional.rollout(encoder[:, None])[-1, 0]
    return mean_row(functional.rollout(upcast(stack.whole().stacked())[:, None])[-1, 0], rows)


def mean_row(weights: Tensor, rows: Sequence[int]) -> Tensor:
    """The mean of some rows of ``[query, key]``, of all where none is named."""
    return weights[list(rows)].mean(0) if len(rows) else weights.mean(0)
