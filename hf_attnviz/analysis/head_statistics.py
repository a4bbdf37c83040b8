"""What each head does on average, labelled."""

from collections.abc import Sequence

from hf_attnviz import functional
from hf_attnviz.analysis.beside import interval_note, scored
from hf_attnviz.analysis.caveats import left_out, parked, undefined
from hf_attnviz.analysis.pooling import pooled
from hf_attnviz.axes import STATISTIC
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result
from hf_attnviz.trace import Trace

_LACKING = Text(
    "No row has what they are about: a place of its own among the keys (cross-attention has none), a neighbour, a row "
    "before it, a second key to choose from.",
    "没有任何一行具备它们所涉的对象：在键中有自己的位置（交叉注意力没有）、有相邻词元、前面还有行、有第二个键可选。",
)


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
    notes = [parked(data), *left_out(data), *undefined(found, _LACKING, told=["next_token"] * data.causal)]
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
