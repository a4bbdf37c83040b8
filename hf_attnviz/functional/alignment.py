"""Do attention maps align the words of two texts: against links drawn by people, and by the order they follow.

Sources: Clark et al., "What Does BERT Look At?" (2019), section 4.1 (from pieces to words); Och & Ney, "A Systematic
Comparison of Various Statistical Alignment Models" (2003), section 5 (error rate);
Sakoe & Chiba, "Dynamic Programming Algorithm Optimization for Spoken Word Recognition" (1978); Radford et al., "Robust
Speech Recognition via Large-Scale Weak Supervision" (2022), whose released code settles ties; Kendall, "A New Measure
of Rank Correlation" (1938).
"""

from collections.abc import Collection, Sequence
from math import inf, nan

import torch
from torch import Tensor

from hf_attnviz.errors import ArgumentError, ShapeError
from hf_attnviz.functional.checks import check_floating, check_name, upcast
from hf_attnviz.language import Text

Link = tuple[int, ...]
TIES = ("whisper", "least")
METHODS = ("argmax", "dtw")


def linked(weights: Tensor, *, method: str = "argmax") -> Tensor:
    """Which source each target is linked to: Bool, shaped like `weights` `[..., target, source]`.

    method: "argmax" links each target to the source of its largest weight, of equal ones the first; "dtw" links the
    cells of the monotonic path of least −weight (:func:`dtw`), where nothing moves back. A target whose row holds NaN,
    or nothing but zeros, has no link under "argmax"; "dtw" raises ArgumentError for NaN.

    >>> linked(torch.tensor([[0.2, 0.8], [0.7, 0.3]])).long().tolist()
    [[0, 1], [1, 0]]
    """
    if weights.ndim < 2 or 0 in weights.shape:
        raise ShapeError(
            Text(
                f"expected weights [..., target, source], none empty, got sizes {tuple(weights.shape)}",
                f"应为权重 [..., target, source]，且都不为空，得到的大小为 {tuple(weights.shape)}",
            )
        )
    check_floating(weights, "weights")
    check_name(method, "method", METHODS)
    found = torch.zeros(weights.shape, dtype=torch.bool, device=weights.device)
    if method == "argmax":
        found.scatter_(-1, weights.nan_to_num(nan=-inf).argmax(-1, keepdim=True), True)
        return found & ~weights.isnan().any(-1, keepdim=True) & (weights != 0).any(-1, keepdim=True)
    maps = (-1, *weights.shape[-2:])
    for links, cells in zip(found.view(maps), weights.reshape(maps), strict=True):
        path, _ = dtw(-cells)
        links[path[:, 0], path[:, 1]] = True
    return found


def joined(weights: Tensor, targets: Sequence[int], sources: Sequence[int]) -> Tensor:
    """Weights between words, from weights `[..., target, source]` between pieces: the weight on a word is the sum over
    its pieces, the weight of a word the mean over its pieces, so that rows keep their sum (Clark 2019).

    targets, sources: the number of each piece's word, 0, 1, 2 … without a gap.

    >>> joined(torch.tensor([[0.1, 0.2, 0.7], [0.3, 0.4, 0.3]]), [0, 0], [0, 0, 1])
    tensor([[0.5000, 0.5000]])
    """
    if weights.shape[-2:] != (len(targets), len(sources)):
        raise ShapeError(
            Text(
                f"expected a word for each of {weights.shape[-2]} targets and {weights.shape[-1]} sources, got "
                f"{len(targets)} and {len(sources)}; give one number a piece",
                f"{weights.shape[-2]} 个目标与 {weights.shape[-1]} 个源应各有一个词，得到 {len(targets)} 与 "
                f"{len(sources)} 个；请每个词元给一个编号",
            )
        )
    rows, columns = (_membership(words, weights) for words in (targets, sources))
    return (rows / rows.sum(-1, keepdim=True)) @ upcast(weights) @ columns.mT


def _membership(words: Sequence[int], weights: Tensor) -> Tensor:
    """1 where a piece belongs to a word, `[word, piece]`."""
    numbers = torch.tensor(words, device=weights.device)
    if sorted(set(words)) != list(range(len(set(words)))):
        raise ArgumentError(
            Text(
                f"expected words numbered 0, 1, 2 … without a gap, got {sorted(set(words))[:10]}",
                f"词应从 0 起连续编号：0、1、2……，得到 {sorted(set(words))[:10]}",
            )
        )
    return (torch.arange(len(set(words)), device=weights.device)[:, None] == numbers).to(upcast(weights).dtype)


def alignment_error_rate(links: Collection[Link], sure: Collection[Link], possible: Collection[Link]) -> float:
    """1 − (|A∩S| + |A∩P|) / (|A| + |S|), a share: 0 when all sure links and only possible ones are found.

    All three hold pairs of places, ends in the same order (and, over several texts, the text's number before them).
    NaN when there are neither links nor sure links. Raises ArgumentError when a sure link is not among the possible
    ones.

    >>> alignment_error_rate({(0, 0), (1, 2)}, sure={(0, 0), (1, 1)}, possible={(0, 0), (1, 1), (1, 2)})
    0.25
    """
    found, certain, allowed = set(links), set(sure), set(possible)
    if not certain <= allowed:
        raise ArgumentError(
            Text(
                f"expected every sure link among the possible ones, got {min(certain - allowed)} in sure alone; "
                "pass possible | sure",
                f"每个 sure 链接都应属于 possible，而 {min(certain - allowed)} 只在 sure 中；请传入 possible | sure",
            )
        )
    if not found and not certain:
        return nan
    return 1 - (len(found & certain) + len(found & allowed)) / (len(found) + len(certain))


def dtw(cost: Tensor, *, ties: str = "whisper") -> tuple[Tensor, float]:
    """The monotonic path through `cost` `[row, column]` and its total cost.

    The path `[step, 2]` (int64, row and column) leads from the first cell to the last by moves (1, 1), (1, 0), (0, 1),
    all of weight one; for attention give it −weights.

    ties: into each cell, "whisper" moves diagonally only if that is strictly cheapest of the three, else down if that
    is, else right, even where diagonal and down tie below right: it repeats Whisper's paths, and where costs tie so
    (small integers do, weights hardly ever) its path may not be the cheapest. "least" prefers right, then down, then
    the diagonal, among the cheapest only.

    An infinite cost forbids a cell. Raises ArgumentError for NaN, minus infinity, or where every path is forbidden.

    >>> path, total = dtw(torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.5, 0.0]]))
    >>> path.tolist(), total
    ([[0, 0], [1, 1], [1, 2]], 0.5)
    """
    if cost.ndim != 2 or 0 in cost.shape:
        raise ShapeError(
            Text(
                f"expected cost [row, column], got sizes {tuple(cost.shape)}; give one map, not empty",
                f"应为 cost [row, column]，得到的大小为 {tuple(cost.shape)}；请给出一张图，且不为空",
            )
        )
    check_floating(cost, "cost")
    check_name(ties, "ties", TIES)
    if cost.isnan().any() or (cost == -inf).any():
        raise ArgumentError(
            Text(
                "expected a cost in every cell, got NaN or minus infinity; drop padding first, or fill it with a high "
                "cost",
                "每一格都应有代价，得到 NaN 或负无穷；请先去掉填充，或填上很高的代价",
            )
        )
    rows, columns = cost.shape
    total = [[inf] * (columns + 1) for _ in range(rows + 1)]
    total[0][0] = 0.0
    moves = [[(0, 1)] * columns for _ in range(rows)]
    for row, values in enumerate(cost.double().tolist()):
        for column, value in enumerate(values):
            diagonal, down, right = total[row][column], total[row][column + 1], total[row + 1][column]
            before, moves[row][column] = _move(diagonal, down, right, ties)
            total[row + 1][column + 1] = value + before
    if total[rows][columns] == inf:
        raise ArgumentError(
            Text(
                "expected a path of finite cost from the first cell to the last, got infinity; forbid fewer cells",
                "从第一格到最后一格应有一条代价有限的路径，得到无穷大；请少禁用一些格子",
            )
        )
    return torch.tensor(_walk_back(moves)), total[rows][columns]


def monotonicity(positions: Tensor) -> dict[str, Tensor]:
    """How far `positions` `[..., row]`, the key each row points at in turn, move in one direction; `[...]` each.

    fraction: share of steps from a row to the next that do not go back. kendall_tau: τ-a over all pairs of rows,
    (concordant − discordant) / all, from −1 to 1, equal positions being neither. NaN for fewer than two rows, and where
    a position is NaN.

    >>> {name: float(value) for name, value in monotonicity(torch.tensor([0, 2, 2, 5])).items()}
    {'fraction': 1.0, 'kendall_tau': 0.8333333333333334}
    """
    if positions.ndim == 0:
        raise ShapeError(
            Text(
                "expected positions [..., row], got a single number; pass the argmax of each row",
                "应为 positions [..., row]，得到单个数；请传入每行的 argmax",
            )
        )
    places = positions.double()
    rows = places.shape[-1]
    later, earlier = torch.triu_indices(rows, rows, 1, device=places.device).flip(0)
    found = {
        "fraction": (places[..., 1:] >= places[..., :-1]).double().mean(-1),
        "kendall_tau": (places[..., later] - places[..., earlier]).sign().mean(-1),
    }
    unknown = places.isnan().any(-1)
    return {name: values.masked_fill(unknown, nan) for name, values in found.items()}


def _move(diagonal: float, down: float, right: float, ties: str) -> tuple[float, tuple[int, int]]:
    """The total before the cell and the move into it."""
    if diagonal < down and diagonal < right:
        return diagonal, (1, 1)
    if down < right and (down < diagonal or ties == "least"):
        return down, (1, 0)
    return right, (0, 1)


def _walk_back(moves: list[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    row, column = len(moves) - 1, len(moves[0]) - 1
    path = [(row, column)]
    while (row, column) != (0, 0):
        down, right = moves[row][column]
        row, column = row - down, column - right
        path.append((row, column))
    return path[::-1]
