"""The rule by which a ranking earns trust, and what is measured for it.

A ranking earns *trust* if and only if both its comprehensiveness and its sufficiency beat the 95th percentile of random
rankings, under deletion and under replacement: four tests. *Do not* trust it if it beats none of the four. Else it is
*undecided*; so is what cannot be measured, with the reason.

"Beat" is strict, and by more than rounding. A test that not even the best ranking can win proves nothing against one
that does as well: in a short text chance hits the one telling token too often, and where removal changes nothing,
nobody beats anybody. A ranking that wins no test, but does so well, is undecided, with that reason.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from hf_attnviz import functional
from hf_attnviz.errors import ArgumentError
from hf_attnviz.explaining.prediction import Prediction
from hf_attnviz.explaining.removal import WAYS, Removal, measure
from hf_attnviz.functional.faithfulness import BINS
from hf_attnviz.language import Text

TRUST: Final = "trust"
DO_NOT: Final = "do not"
UNDECIDED: Final = "undecided"
MEASURES: Final = ("comprehensiveness", "sufficiency")


@dataclass(frozen=True)
class TrustRule:
    """What a ranking is measured by.

    Attributes:
        bins: the shares of the tokens that are taken (ERASER, DeYoung et al. 2020).
        draws: how many random rankings it is held against.
        percentile: which of their results it has to beat.
        alike: the share of the prediction by which two results may differ and be as good as each other, when it is
            asked whether a test can be won at all.
    """

    bins: tuple[float, ...] = BINS
    draws: int = 100
    percentile: float = 95.0
    alike: float = 0.01

    def __post_init__(self) -> None:
        functional.top_counts(1, self.bins)
        if not self.bins or self.draws < 20 or not 50 <= self.percentile < 100 or not 0 <= self.alike < 1:
            raise ArgumentError(
                Text(
                    "expected one share or more, 20 random rankings or more, a percentile from 50 up to 100 and alike "
                    f"from 0 up to 1, got {self}",
                    f"占比应至少一个，随机排序应不少于 20 个，百分位应为 50 到 100，alike 应为 0 到 1，得到 {self}",
                )
            )


@dataclass(frozen=True, eq=False)
class Measured:
    """What removal did to the prediction.

    Attributes:
        curves: ``[measure, way, ranking, bin]``, NaN where a ranking has no order.
        random: ``[measure, way, draw, bin]``.
        rounding: differences up to this are none.
        size: how large the prediction is that they change.
        missing: why a ranking has no order.
    """

    curves: torch.Tensor
    random: torch.Tensor
    rounding: float
    size: float
    missing: Mapping[str, Text]


def measured(
    prediction: Prediction,
    positions: Sequence[int],
    scores: Mapping[str, torch.Tensor],
    rule: TrustRule,
    *,
    replacement: int,
    seed: int,
    missing: Mapping[str, Text],
) -> Measured:
    """Measure each ranking ``[key]`` and the random ones, by deletion and by replacement.

    Equal scores are put in a random order, the same for every ranking. Torch's own random numbers are untouched.
    """
    places = torch.tensor(list(positions), dtype=torch.long)
    generator = torch.Generator().manual_seed(seed)
    draws = [torch.randperm(len(places), generator=generator).double() for _ in range(rule.draws)]
    chance = torch.randperm(len(places), generator=generator)
    ranked = {name: _ordered(values[places], chance) for name, values in scores.items()}
    known = [order for order in ranked.values() if order is not None] + (draws if len(places) else [])
    removals = [Removal(prediction, positions, way, replacement) for way in WAYS]
    if known:
        top = torch.cat([functional.top_shares(order, rule.bins) for order in known])
        measure([(removal, torch.cat([top, ~top])) for removal in removals])
    curves = [_curves(list(ranked.values()), removals, rule), _curves(draws, removals, rule, none=not len(places))]
    why = dict(missing)
    for name, order in ranked.items():
        if order is None and name not in why:
            why[name] = _unordered(scores[name][places])
    return Measured(curves[0], curves[1], _rounding(prediction), abs(prediction.probability), why)


def _ordered(scores: torch.Tensor, chance: torch.Tensor) -> torch.Tensor | None:
    """Ranks, the best the highest; equal scores in the order of ``chance``; None where there is no order."""
    if not len(scores) or not bool(scores.isfinite().all()) or bool((scores == scores[0]).all()):
        return None
    order = chance[scores[chance].argsort(stable=True)]
    ranks = torch.empty_like(scores)
    ranks[order] = torch.arange(len(scores), dtype=scores.dtype)
    return ranks


def _unordered(scores: torch.Tensor) -> Text:
    if not len(scores):
        return Text("no token is left to rank", "没有可排序的词元")
    if not bool(scores.isfinite().all()):
        return Text("some of its scores are no numbers", "部分得分不是有限数值")
    return Text("it gives every token the same score, which is no ranking", "它给每个词元相同的得分，不构成排序")


def _curves(
    rankings: Sequence[torch.Tensor | None], removals: Sequence[Removal], rule: TrustRule, none: bool = False
) -> torch.Tensor:
    """``[measure, way, ranking, bin]``."""
    undefined = torch.full((len(rule.bins),), torch.nan, dtype=torch.float64)
    functions = (functional.comprehensiveness, functional.sufficiency)
    return torch.stack(
        [
            torch.stack(
                [
                    torch.stack(
                        [undefined if r is None or none else f(removal, r, bins=rule.bins) for r in rankings]
                        or [undefined]
                    )
                    for removal in removals
                ]
            )
            for f in functions
        ]
    )


def _rounding(prediction: Prediction) -> float:
    """A few units in the last place of what the model computes in."""
    dtype = getattr(prediction.model, "dtype", None)
    dtype = dtype if isinstance(dtype, torch.dtype) and dtype.is_floating_point else torch.float32
    size = abs(prediction.probability)  # beyond 1 where a function of the user's own is explained
    return 4 * torch.finfo(dtype).eps * (max(1.0, size) if math.isfinite(size) else 1.0)


def beats(measured: Measured, rule: TrustRule) -> torch.Tensor:
    """Whether each ranking beats chance, Bool ``[measure, way, ranking]``: by more, where more is better
    (comprehensiveness), by less, where less is (sufficiency).

    The percentile is the next result above it, not one between two: a shuffled ranking then beats 100 others' 95th
    percentile in 5 of 101 cases; between two it would in 5.9 %.
    """
    own, random = _oriented(measured)
    return own > _bar(random, rule) + measured.rounding


def beyond_telling(measured: Measured, rule: TrustRule) -> torch.Tensor:
    """Where a ranking does as well as the best, and even the best is no better than chance.

    Bool ``[measure, way, ranking]``. The best is the best of all rankings, the random ones among them.
    """
    own, random = _oriented(measured)
    best = torch.maximum(own.nan_to_num(-torch.inf).amax(-1, keepdim=True), random.amax(-1, keepdim=True))
    margin = max(measured.rounding, rule.alike * measured.size)
    return (best <= _bar(random, rule) + margin) & (own >= best - margin)


def _oriented(measured: Measured) -> tuple[torch.Tensor, torch.Tensor]:
    """The results of the rankings and of chance ``[measure, way, ranking]``, turned so that more is better."""
    better = torch.tensor([1.0, -1.0], dtype=torch.float64)[:, None, None]
    return functional.aopc(measured.curves) * better, functional.aopc(measured.random) * better


def _bar(random: torch.Tensor, rule: TrustRule) -> torch.Tensor:
    return random.quantile(rule.percentile / 100, dim=-1, keepdim=True, interpolation="higher")


def percentiles(measured: Measured) -> torch.Tensor:
    """The share of random rankings that each ranking beats, ``[measure, way, ranking]``; NaN where it has no order."""
    own, random = _oriented(measured)
    share = (own[..., None] > random[..., None, :] + measured.rounding).double().mean(-1)
    return share.masked_fill(own.isnan(), torch.nan)


def verdicts(
    names: Sequence[str], measured: Measured, rule: TrustRule, tokens: int
) -> dict[str, tuple[str, Text | None]]:
    """For each ranking the verdict, and the reason where nothing could be decided for a reason of its own."""
    won, untold, found = beats(measured, rule), beyond_telling(measured, rule), {}
    powerless = _powerless(tokens, rule)
    for n, name in enumerate(names):
        reason = measured.missing.get(name) or powerless
        if reason is None and not bool(measured.curves[:, :, n].isfinite().all() & measured.random.isfinite().all()):
            reason = Text("the model gave a probability that is no number", "模型给出的概率不是有限数值")
        count, open_ = int(won[:, :, n].sum()), int(untold[:, :, n].sum())
        if reason is None and count == 0 and open_:
            reason = _untold(open_, won[:, :, n].numel(), tokens)
        earned = TRUST if count == won[:, :, n].numel() else DO_NOT if count == 0 else UNDECIDED
        found[name] = (UNDECIDED if reason is not None else earned, reason)
    return found


def _untold(tests: int, of: int, tokens: int) -> Text:
    return Text(
        f"in {tests} of {of} tests it does as well as the best ranking, and so do too many random ones: with {tokens} "
        "tokens to rank nothing stands out from chance",
        f"{of} 项检验中有 {tests} 项与最好的排序不相上下，而过多的随机排序也是如此："
        f"可排序的词元只有 {tokens} 个，难以与随机区分",
    )


def _powerless(tokens: int, rule: TrustRule) -> Text | None:
    """Why with so few tokens nothing can stand out from chance, or None."""
    needed = math.ceil(round(100 / (100 - rule.percentile), 9))
    possible = functional.outcomes(tokens, rule.bins) if tokens else 0
    if possible >= needed:
        return None
    return Text(
        f"with {tokens} tokens to rank, only {possible} rankings differ in what they remove, and chance hits the best "
        f"of them too often ({needed} are needed)",
        f"可排序的词元只有 {tokens} 个，移除结果不同的排序仅 {possible} 种，"
        f"随机排序太容易碰上最好的一种（至少需 {needed} 种）",
    )
