"""What each head does on average, labelled."""

from collections.abc import Sequence

import torch

from hf_attnviz import functional
from hf_attnviz.analysis.pooling import pooled
from hf_attnviz.axes import STATISTIC
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result
from hf_attnviz.trace import Trace


def head_statistics(traces: Trace | Sequence[Trace], *, stack: str | None = None) -> Result:
    """Entropy, span, distance and positional shares of each head: ``[statistic, layer, head]``.

    Rows of several traces are pooled. Definitions: :func:`hf_attnviz.functional.head_statistics`.
    """
    data = pooled(traces, stack)
    numbers = functional.head_statistics(
        data.attention,
        valid=data.valid,
        valid_queries=data.valid_queries,
        positions=data.positions,
        causal=data.causal,
    )
    sink = float(numbers["first_token"].nanmean())
    notes = [
        Text(
            f"{sink:.0%} of all weight lies on the first token (mean over heads): read entropy and distance with that "
            "in mind.",
            f"全部权重的 {sink:.0%} 落在第一个词元上（各头平均）：看熵和距离时请记住这一点。",
        )
    ]
    if data.causal:
        notes.append(
            Text(
                "The stack is causal: next_token is impossible there and shown as undefined, not as 0.",
                "这一栈是因果的：next_token 不可能出现，因此显示为未定义，而不是 0。",
            )
        )
    return Result(
        torch.stack(list(numbers.values())),
        (Axis(STATISTIC, tuple(numbers)), data.layer_axis, data.head_axis),
        "head statistics",
        data.what,
        "Clark et al. 2019; Vig & Belinkov 2019; Voita et al. 2019",
        "nats (entropy), tokens (span, distance), shares (all others)",
        tuple(notes),
    )
