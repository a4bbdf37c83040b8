"""How much attention each head parks on one token, labelled."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hf_attnviz import functional
from hf_attnviz.analysis.beside import interval_note, scored
from hf_attnviz.analysis.caveats import CLOSED_FORM, left_out, nan_weights, sampled, undefined
from hf_attnviz.analysis.pooling import PooledRows, SideBySide, listed_traces, pooled, pooled_rows
from hf_attnviz.axes import STATISTIC
from hf_attnviz.functional import Tally
from hf_attnviz.functional.checks import check_share
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result
from hf_attnviz.trace import Trace

_LACKING = Text(
    "No text has such a token, or a row that counts: the row that stands on it, and those after.",
    "没有文本含有该词元，或没有可计入的行：立于该词元之上及其后的行。",
)
_NAMES = {"sink_mass": True, "sink_mass_after_first_row": False}  # name -> whether the first row counts


def sinks(
    traces: Trace | Sequence[Trace], *, stack: str | None = None, position: int = 0, threshold: float = 0.3
) -> Result:
    """The mean weight of all rows on one token: ``[statistic, layer, head]``, with and without the first row.

    A trace that keeps statistics and no weights tells of the first token only.

    The mean over traces of :func:`hf_attnviz.functional.sink_mass`. ``verdict`` is 1 where it is above the threshold,
    ``parameters["sink_fraction"]`` the share of heads above it in each trace, averaged over traces.

    Args:
        position: which token, from 0; default: the first.
        threshold: ε, 0.3 in Gu et al. 2025, section 3.2.
        stack: default: the only one.

    Raises:
        NotKeptError: the trace keeps neither weights nor statistics, or no weights and ``position`` is not 0.
    """
    check_share(threshold, "threshold")
    data, found, even, notes = _measured(traces, stack, position)
    tallies = _tallied(found)
    beside = scored(tallies, None if even is None else _tallied(even))
    values = beside["values"]
    above = {name: (mass > threshold).double().masked_fill(mass.isnan(), torch.nan) for name, mass in found.items()}
    fraction = {name: float(one.mean((0, 2)).nanmean()) for name, one in above.items()}
    return Result(
        axes=(Axis(STATISTIC, tuple(found)), data.layer_axis, data.head_axis),
        method="attention sinks",
        parameters={**data.what, "position": position, "threshold": threshold, "sink_fraction": fraction},
        source="Gu et al. 2025, section 3.2",
        unit="share",
        notes=(
            _fraction_note(data, fraction, threshold, position),
            *undefined(tallies, _LACKING),
            *notes,
            interval_note(len(data.stacks)),
        ),
        verdict=(values > threshold).to(values.dtype).masked_fill(values.isnan(), torch.nan),
        **beside,
    )


_Masses = dict[str, torch.Tensor]  # [layer, batch, head] by name


def _measured(
    traces: Trace | Sequence[Trace], stack: str | None, position: int
) -> tuple[SideBySide, _Masses, _Masses | None, list[Text]]:
    """The masses, what uniform attention gets where that is known, and what was left out."""
    traces = listed_traces(traces)
    rows = pooled_rows(traces, stack) if position == 0 else None
    if rows is not None:
        even = functional.uniform_rows(**rows.masks)["sink"] if rows.known else None
        notes = [*sampled(rows.stacks), *nan_weights(rows.rows["sink"]), *([CLOSED_FORM] if rows.known else [])]
        return rows, _of_first(rows, rows.rows["sink"]), None if even is None else _of_first(rows, even), notes
    data = pooled(traces, stack)
    uniform = functional.uniform_like(data.attention, valid=data.valid)
    return data, _masses(data.attention, data.masks, position), _masses(uniform, data.masks, position), left_out(data)


def _of_first(data: PooledRows, weights: torch.Tensor) -> _Masses:
    """Of weights on the first key ``[layer, batch, head, query]``: as of a map that has no other key."""
    masks = data.masks | {"valid": data.valid[:, :1], "positions": data.positions.clamp_max(0)}
    return _masses(weights[..., None], masks, 0)


def _masses(attention: torch.Tensor, masks: Mapping[str, Any], position: int) -> _Masses:
    told = {name: value for name, value in masks.items() if name != "causal"}
    return {
        name: functional.sink_mass(attention, position=position, first_row=first_row, **told)
        for name, first_row in _NAMES.items()
    }


def _tallied(masses: _Masses) -> dict[str, Tally]:
    return {name: Tally.of_examples(mass.transpose(0, 1)) for name, mass in masses.items()}


def _fraction_note(data: SideBySide, fraction: dict[str, float], threshold: float, position: int) -> Text:
    with_first, without = fraction.values()
    texts = {stack.keys.texts[position] for stack in data.stacks if position < len(stack.keys)}
    named = " ".join(sorted(texts)[:5])
    return Text(
        f"Heads that give more than {threshold:g} to token {position} ({named}): {_percent(with_first).en}; without "
        f"the first row, which in a causal map has no choice: {_percent(without).en}.",
        f"给第 {position} 个词元（{named}）的权重超过 {threshold:g} 的头：{_percent(with_first).zh}；"
        f"不计因果下别无选择的首行：{_percent(without).zh}。",
    )


def _percent(share: float) -> Text:
    return Text("undefined", "未定义") if math.isnan(share) else Text(f"{share:.0%}", f"{share:.0%}")
