"""What each head does on average, labelled."""

from collections.abc import Sequence

from hf_attnviz import functional
from hf_attnviz.analysis.beside import interval_note, scored
from hf_attnviz.analysis.pooling import pooled
from hf_attnviz.axes import STATISTIC
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result
from hf_attnviz.trace import Trace


def head_statistics(traces: Trace | Sequence[Trace], *, stack: str | None = None) -> Result:
    """Entropy, span, distance and positional shares of each head: ``[statistic, layer, head]``.

    Rows of several traces are pooled. Beside each number stand what uniform attention under the same mask gets on the
    same rows, and from five traces on its interval over traces. Definitions:
    :func:`hf_attnviz.functional.head_statistics`.
    """
    data = pooled(traces, stack)
    found = functional.statistics_by_example(data.attention, **data.masks)
    uniform = functional.uniform_like(data.attention, valid=data.valid)
    beside = scored(found, functional.statistics_by_example(uniform, **data.masks))
    sink = float(beside["values"][list(found).index("first_token")].nanmean())
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
        axes=(Axis(STATISTIC, tuple(found)), data.layer_axis, data.head_axis),
        method="head statistics",
        parameters=data.what,
        source="Clark et al. 2019; Vig & Belinkov 2019; Voita et al. 2019",
        unit="nats (entropy), tokens (span, distance), shares (all others)",
        notes=(*notes, interval_note(data.attention.shape[1])),
        **beside,
    )
