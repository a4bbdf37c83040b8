"""Whether a ranking of the inputs names the evidence: what becomes of the prediction when the top of it is taken away.

Source: DeYoung et al., "ERASER: A Benchmark to Evaluate Rationalized NLP Models" (2020), section 4: comprehensiveness,
sufficiency, and their area over the perturbation curve. Kendall's τ-b (1945) for two rankings of the same inputs.

Steps: order the tokens by score, highest first; for each share take the top k = ceil(share·n); ask ``predict`` for the
probability without them (comprehensiveness) or with nothing but them (sufficiency); subtract it from that of the whole.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from hf_attnviz.errors import ArgumentError, ShapeError
from hf_attnviz.functional.checks import upcast
from hf_attnviz.language import Text

BINS: Final = (0.01, 0.05, 0.1, 0.2, 0.5)
Predict = Callable[[Tensor], Tensor | float]


def top_shares(scores: Tensor, bins: Sequence[float] = BINS) -> Tensor:
    """True for the top k = ceil(share·n) of `scores` `[token]`, for each share: Bool `[bin, token]`.

    The highest score comes first, whatever its sign; equal scores come in the order of the tokens, so whoever wants no
    such preference breaks the ties first. Raises ShapeError for scores of other axes, ArgumentError for scores that
    are no numbers and for shares outside (0, 1].

    >>> top_shares(torch.tensor([0.1, 0.7, 0.2]), (0.1, 0.5)).int()
    tensor([[0, 1, 0],
            [0, 1, 1]], dtype=torch.int32)
    """
    if scores.ndim != 1 or not len(scores):
        raise ShapeError(
            Text(
                f"expected scores [token], one or more, got shape {tuple(scores.shape)}; rank one example",
                f"应为 scores [token]，至少一个，得到的形状为 {tuple(scores.shape)}；请对一个样本排序",
            )
        )
    if bool(scores.isnan().any()):
        raise ArgumentError(
            Text(
                "some scores are NaN, which have no rank; leave their tokens out",
                "有些分数是 NaN，无法排名；请去掉那些词元",
            )
        )
    order = scores.argsort(descending=True, stable=True)
    taken = torch.zeros(len(bins), len(scores), dtype=torch.bool, device=scores.device)
    for row, count in zip(taken, top_counts(len(scores), bins), strict=True):
        row[order[:count]] = True
    return taken


def top_counts(tokens: int, bins: Sequence[float] = BINS) -> tuple[int, ...]:
    """k = ceil(share·n) for each share.

    >>> top_counts(35, (0.01, 0.2, 0.5))
    (1, 7, 18)
    """
    if not bins:
        raise ArgumentError(
            Text(
                f"expected at least one share of the tokens, got none; {BINS} is usual",
                f"应至少给出一个词元占比，得到零个；通常为 {BINS}",
            )
        )
    for share in bins:
        if not 0 < share <= 1:
            raise ArgumentError(
                Text(
                    f"expected shares above 0 and up to 1, got {share}; 0.1 is the top tenth",
                    f"占比应大于 0 且不超过 1，得到 {share}；0.1 即前十分之一",
                )
            )
    return tuple(math.ceil(round(share * tokens, 9)) for share in bins)  # 0.2 · 35 is 7.000000000000001


def comprehensiveness(predict: Predict, scores: Tensor, *, bins: Sequence[float] = BINS) -> Tensor:
    """p(all) − p(without the top k), for each share: `[bin]`. High is better: the prediction needed what was taken.

    predict: from Bool `[token]`, True for what is kept, to the probability of what is explained.
    scores: `[token]`, highest first; see :func:`top_shares`.

    >>> comprehensiveness(lambda keep: 0.2 + 0.6 * float(keep[1]), torch.tensor([0.1, 0.7, 0.2]), bins=(0.1, 0.5))
    tensor([0.6000, 0.6000])
    """
    top = top_shares(scores, bins)
    return _differences(predict, torch.ones_like(top[0]), ~top)


def sufficiency(predict: Predict, scores: Tensor, *, bins: Sequence[float] = BINS) -> Tensor:
    """p(all) − p(the top k alone), for each share: `[bin]`. Low is better: the top alone carries the prediction.

    It may be negative, where the top alone predicts more surely than the whole. Arguments as in
    :func:`comprehensiveness`.

    >>> sufficiency(lambda keep: 0.2 + 0.6 * float(keep[1]), torch.tensor([0.1, 0.7, 0.2]), bins=(0.1, 0.5))
    tensor([0., 0.])
    """
    top = top_shares(scores, bins)
    return _differences(predict, torch.ones_like(top[0]), top)


def aopc(differences: Tensor) -> Tensor:
    """The area over the perturbation curve of `[..., bin]`: the mean over the bins.

    ERASER divides by one more than there are bins, for the empty one; that changes no comparison.
    """
    return upcast(differences).mean(-1)


def outcomes(tokens: int, bins: Sequence[float] = BINS) -> int:
    """How many rankings of so many tokens can differ in their top shares at all.

    Below 20 not even the best one stands out from chance at 5 %, for chance itself hits it more often.

    >>> [outcomes(n) for n in (2, 3, 4, 5, 6)]
    [2, 6, 12, 30, 120]
    """
    ends = [0, *sorted(set(top_counts(tokens, bins))), tokens]
    return math.factorial(tokens) // math.prod(
        math.factorial(after - before) for before, after in itertools.pairwise(ends)
    )


def kendall_tau(scores: Tensor) -> Tensor:
    """Kendall's τ-b between each two rankings of `scores` `[ranking, token]`: `[ranking, ranking]`, −1 to 1.

    τ-b is the number of pairs in the same order less that in opposite order, over the geometric mean of the numbers of
    pairs that are not tied. NaN: a ranking without
    any order (all equal, or one token), or with a NaN.

    >>> kendall_tau(torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]))
    tensor([[ 1., -1.],
            [-1.,  1.]])
    """
    if scores.ndim != 2:
        raise ShapeError(
            Text(
                f"expected scores [ranking, token], got shape {tuple(scores.shape)}; stack the rankings",
                f"应为 scores [ranking, token]，得到的形状为 {tuple(scores.shape)}；请把各排序堆叠起来",
            )
        )
    values = upcast(scores)
    orders = values.new_zeros(len(values), len(values), dtype=torch.float64)
    for token in range(
        values.shape[-1] - 1
    ):  # pair by pair: the sum of the products of the signs, a row of pairs a time
        signs = (values[:, token, None] - values[:, token + 1 :]).sign().double()
        orders += signs @ signs.T
    untied = orders.diagonal()
    tau = (orders / (untied[:, None] * untied).sqrt()).to(values.dtype)  # no pair untied: 0 / 0
    unknown = values.isnan().any(-1)
    return tau.masked_fill(unknown | unknown[:, None], torch.nan)


def _differences(predict: Predict, everything: Tensor, kept: Tensor) -> Tensor:
    whole = _number(predict(everything))
    return torch.stack([whole - _number(predict(keep)) for keep in kept])


def _number(answer: Tensor | float) -> Tensor:
    found = upcast(torch.as_tensor(answer)).detach()
    if found.numel() != 1:
        raise ShapeError(
            Text(
                f"expected one probability of predict, got sizes {tuple(found.shape)}; pick what is explained",
                f"predict 应给出一个概率，得到的大小为 {tuple(found.shape)}；请选定所解释的那一个",
            )
        )
    return found.reshape(())
