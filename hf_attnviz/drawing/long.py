"""A text of any length on one page, from what was kept without its maps."""

import torch

from hf_attnviz import analysis
from hf_attnviz.language import Text
from hf_attnviz.result import Result
from hf_attnviz.trace import AttentionStack, Trace
from hf_attnviz.view import View
from hf_attnviz.views.long import Along, along_view


def long_view(
    trace: Trace, *, stack: str | None = None, layer: int | None = None, title: Text | str | None = None
) -> View:
    """A map of the heads by any statistic and, for the head that is chosen, what it does along the text.

    It needs ``keep="statistics"`` and draws what else was kept: the strongest keys of rows (``av.TopK()``) and rollout
    to groups of keys. Positions beyond some hundred share bins with their least, mean and largest number.

    Args:
        stack: default: the only one.
        layer: the layer whose first head is shown at first; default: the first.
        title: the page's heading.

    Raises:
        NotKeptError: no statistics were kept.
    """
    chosen = trace.stack(stack)
    along = Along(
        analysis.row_statistics(trace, stack=chosen.name),
        analysis.received(trace, stack=chosen.name),
        _rolled(trace, chosen),
        _strongest(chosen),
    )
    count = len(chosen.queries)
    named = Text(f"{trace.model} along {count:,} tokens".strip(), f"{trace.model} 沿 {count:,} 个词元".strip())
    return along_view(along, layer=layer, title=title or named)


def _rolled(trace: Trace, stack: AttentionStack) -> Result | None:
    """Rollout to groups of keys, where it was kept."""
    kept = all("rollout" in m.reduced for m in stack)
    return analysis.rollout(trace, stack=stack.name) if kept else None


def _strongest(stack: AttentionStack) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Weights and places of the strongest keys, ``[layer, head, query, rank]`` each, where they were kept."""
    if not all("topk" in m.reduced for m in stack):
        return None
    kept = [m.reduced["topk"] for m in stack]
    return torch.stack([one.weights for one in kept]), torch.stack([one["keys"] for one in kept])
