"""What stands beside the numbers of a result: the interval over examples, and what uniform attention gets."""

from collections.abc import Mapping

import torch

from hf_attnviz.functional import Tally
from hf_attnviz.functional.bootstrap import FEWEST, RESAMPLES
from hf_attnviz.language import Text


def scored(found: Mapping[str, Tally], uniform: Mapping[str, Tally] | None) -> dict[str, torch.Tensor]:
    """``values``, ``low``, ``high`` and ``baseline`` of a result ``[statistic, …]``, statistics in the order given.

    ``uniform`` holds the same tallies of uniform attention under the same mask, which has one head; None where that is
    not known, and then there is no baseline.
    """
    values = torch.stack([tally.mean() for tally in found.values()])
    low, high = (torch.stack(ends) for ends in zip(*(tally.interval() for tally in found.values()), strict=True))
    beside = {"values": values, "low": low, "high": high}
    if uniform is None:
        return beside
    baseline = torch.stack([uniform[name].mean() for name in found]).to(values.dtype)
    return beside | {"baseline": baseline.expand_as(values).contiguous()}


def interval_note(examples: int) -> Text:
    """How the intervals came about, or why there are none."""
    if examples < FEWEST:
        return Text(
            f"No intervals: they need {FEWEST} examples, here are {examples}. Give several traces for them.",
            f"没有区间：至少需要 {FEWEST} 个样本，这里只有 {examples} 个。请给出多条 trace。",
        )
    return Text(
        f"Intervals: 95 %, bootstrap over the {examples} examples, {RESAMPLES:,} resamples, seed 0; undefined where "
        f"fewer than {FEWEST} examples have a row that counts.",
        f"区间：95%，对 {examples} 个样本自助抽样 {RESAMPLES:,} 次，种子 0；有效样本少于 {FEWEST} 个处未定义。",
    )
