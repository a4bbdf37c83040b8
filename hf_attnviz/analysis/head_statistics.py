"""What each head does on average, labelled."""

from collections.abc import Sequence

from hf_attnviz import functional
from hf_attnviz.analysis.beside import interval_note, scored
from hf_attnviz.analysis.caveats import (
    CLOSED_FORM,
    left_out,
    nan_weights,
    parked,
    parked_received,
    sampled,
    special_keys,
    undefined,
)
from hf_attnviz.analysis.pooling import PooledRows, SideBySide, listed_traces, pooled, pooled_rows
from hf_attnviz.axes import STATISTIC
from hf_attnviz.functional import Tally
from hf_attnviz.functional.statistics import STATISTICS
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result
from hf_attnviz.trace import Trace

_LACKING = Text(
    "No row has what they are about: a place of its own among the keys (cross-attention has none), a neighbour, a row "
    "before it, a second key to choose from.",
    "没有任何一行具备它们所涉的对象：在键中有自己的位置（交叉注意力没有）、有相邻词元、前面还有行、有第二个键可选。",
)
_CAUSAL = Text(
    "The stack is causal: next_token is impossible there and shown as undefined, not as 0.",
    "这一栈是因果的：next_token 不可能出现，因此显示为未定义，而不是 0。",
)
_NO_BASELINE = Text(
    "Without baseline and normalised_entropy: it is not known which keys a row may see, or that differs by layer.",
    "没有基线与 normalised_entropy：不清楚一行可以看哪些键，或各层不同。",
)


def head_statistics(traces: Trace | Sequence[Trace], *, stack: str | None = None) -> Result:
    """Entropy, span, distance and positional shares of each head: ``[statistic, layer, head]``.

    Rows of several traces are pooled. Beside each number stand what uniform attention under the same mask gets on the
    same rows, and from five traces on its interval over traces. Definitions:
    :func:`hf_attnviz.functional.head_statistics`. Of a trace that keeps statistics and no weights: those of them that
    follow from the entropy, distance and first key's weight of each row.

    Raises:
        NotKeptError: the trace keeps neither weights nor statistics.
    """
    traces = listed_traces(traces)
    rows = pooled_rows(traces, stack)
    if rows is not None:
        return _from_rows(rows)
    data = pooled(traces, stack)
    found = functional.statistics_by_example(data.attention, **data.masks)
    even = functional.uniform_like(data.attention, valid=data.valid)
    uniform = functional.statistics_by_example(even, **data.masks)
    notes = [parked(data), *left_out(data), *undefined(found, _LACKING, told=["next_token"] * data.causal)]
    return _told(data, found, uniform, notes + [_CAUSAL] * data.causal)


def _from_rows(data: PooledRows) -> Result:
    found = functional.statistics_of_rows(data.rows, **data.masks)
    if not data.known:
        del found["normalised_entropy"]
    even = functional.uniform_rows(**data.masks) if data.known else None
    uniform = None if even is None else functional.statistics_of_rows(even, **data.masks)
    notes = [
        parked_received(data.received, special_keys(data), int(data.valid_queries.sum())),
        _missing([name for name in STATISTICS if name not in found]),
        *sampled(data.stacks),
        *nan_weights(data.rows["entropy"]),
        *undefined(found, _LACKING),
        CLOSED_FORM if data.known else _NO_BASELINE,
    ]
    return _told(data, found, uniform, notes)


def _missing(names: Sequence[str]) -> Text:
    return Text(
        f'Made of what was kept of each row; with the weights (keep="maps") also: {", ".join(names)}.',
        f'由每一行保留的数值得出；若保留权重（keep="maps"）还有：{"、".join(names)}。',
    )


def _told(data: SideBySide, found: dict[str, Tally], uniform: dict[str, Tally] | None, notes: Sequence[Text]) -> Result:
    return Result(
        axes=(Axis(STATISTIC, tuple(found)), data.layer_axis, data.head_axis),
        method="head statistics",
        parameters=data.what,
        source="Clark et al. 2019; Vig & Belinkov 2019; Voita et al. 2019",
        unit="nats (entropy), tokens (span, distance), shares (all others)",
        notes=(*notes, interval_note(len(data.stacks))),
        **scored(found, uniform),
    )
