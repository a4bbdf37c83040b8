"""How much attention each head parks on one token, labelled."""

import math
from collections.abc import Sequence

import torch

from hf_attnviz import functional
from hf_attnviz.analysis.beside import interval_note, scored
from hf_attnviz.analysis.caveats import left_out, undefined
from hf_attnviz.analysis.pooling import Pooled, pooled
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

    The mean over traces of :func:`hf_attnviz.functional.sink_mass`. ``verdict`` is 1 where it is above the threshold,
    ``parameters["sink_fraction"]`` the share of heads above it in each trace, averaged over traces.

    Args:
        position: which token, from 0; default: the first.
        threshold: ε, 0.3 in Gu et al. 2025, section 3.2.
        stack: default: the only one.
    """
    check_share(threshold, "threshold")
    data = pooled(traces, stack)
    found = _masses(data, data.attention, position)
    uniform = _masses(data, functional.uniform_like(data.attention, valid=data.valid), position)
    tallies, even = (
        {name: Tally.of_examples(mass.transpose(0, 1)) for name, mass in masses.items()} for masses in (found, uniform)
    )
    beside = scored(tallies, even)
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
            *left_out(data),
            interval_note(data.attention.shape[1]),
        ),
        verdict=(values > threshold).to(values.dtype).masked_fill(values.isnan(), torch.nan),
        **beside,
    )


def _masses(data: Pooled, attention: torch.Tensor, position: int) -> dict[str, torch.Tensor]:
    """``[layer, batch, head]`` by name."""
    masks = {name: value for name, value in data.masks.items() if name != "causal"}
    return {
        name: functional.sink_mass(attention, position=position, first_row=first_row, **masks)
        for name, first_row in _NAMES.items()
    }


def _fraction_note(data: Pooled, fraction: dict[str, float], threshold: float, position: int) -> Text:
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
