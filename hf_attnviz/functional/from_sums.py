"""Correlations between heads without their weights: of sums of products, or of sketches, with their error.

Sketches: Alon, Matias & Szegedy, "The Space Complexity of Approximating the Frequency Moments" (1996), section 2.2, one
pair of sign vectors for each entry, as in Alon, Gibbons, Matias & Szegedy, "Tracking Join and Self-Join Sizes in
Limited Storage" (1999), section 4. Here the signs of a cell are the product of one for its query and one for its key,
so that a sketch is Uᵀ P W, and its entries stand in rows and columns that share their signs. The variance of their mean
is that of a two-way layout of random effects (Searle, Casella & McCulloch, "Variance Components", 1992, section 4.7);
of a correlation, that of its linear part (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 21);
the interval is made on Fisher's scale, artanh r.
"""

import torch
from scipy.stats import t as student
from torch import Tensor

from hf_attnviz.errors import ShapeError
from hf_attnviz.functional.bootstrap import LEVEL
from hf_attnviz.language import Text

ROUNDING = (4 * torch.finfo(torch.float32).eps) ** 2  # of the mean square: what a head without preference may vary by
ROUNDING_OF_SKETCHES = 1e-9  # sums of many weights in float32


def correlation_of_products(products: Tensor, *, sums: Tensor, pairs: Tensor, scale: Tensor | None = None) -> Tensor:
    """Pearson's r of heads from their `products` `[head, other_head]`, the `sums` `[head]` of their weights, and the
    number of `pairs` over which both were summed; with sums of zero it is the cosine: `[head, other_head]`.

    scale: `[head]`, the sum of squares that rounding is relative to; default: the diagonal of `products`. NaN: a head
    that does not vary beyond rounding. Give float64: what sets heads apart may be small beside what they share.

    >>> heads = torch.tensor([[0.0, 1.0, 2.0, 5.0], [5.0, 3.0, 2.0, 0.0]], dtype=torch.float64)
    >>> correlation_of_products(heads @ heads.T, sums=heads.sum(1), pairs=torch.tensor(4.0))
    tensor([[ 1.0000, -0.9636],
            [-0.9636,  1.0000]], dtype=torch.float64)
    """
    if products.dim() != 2 or products.shape[0] != products.shape[1] or sums.shape != products.shape[:1]:
        raise ShapeError(
            Text(
                f"expected products [head, other_head] and sums [head], got {tuple(products.shape)} and "
                f"{tuple(sums.shape)}",
                f"应为 products [head, other_head] 与 sums [head]，得到 {tuple(products.shape)} 与 {tuple(sums.shape)}",
            )
        )
    scale = products.diagonal() if scale is None else scale
    shared = products - sums[:, None] * sums / pairs
    varies = shared.diagonal() > ROUNDING * scale
    norms = shared.diagonal().sqrt().masked_fill(~varies, 1)
    found = (shared / norms / norms[:, None]).clamp(-1, 1).fill_diagonal_(1)
    return found.masked_fill(~(varies[:, None] & varies), torch.nan)


def correlation_of_sketches(
    sketches: Tensor, *, scale: Tensor | None = None, level: float = LEVEL
) -> tuple[Tensor, Tensor, Tensor]:
    """The correlation of all heads with its interval, `[head, other_head]` each: estimate, lower and upper end.

    sketches: `[head, sketch, other_sketch]`, Uᵀ (P − m) W, with m what each head is to be centred by: its mean for
    Pearson's r, nothing for the cosine. scale: `[head]`, the mean square of the sketches before they were centred, that
    rounding is relative to; default: that of `sketches`. level: of the interval, for one pair of heads at a time.

    The diagonal is 1 and sure. NaN: a head whose sketch is nothing but rounding.
    """
    if sketches.dim() != 3 or min(sketches.shape[1:]) < 2:
        raise ShapeError(
            Text(
                f"expected sketches [head, sketch, other_sketch], 2 or more of each, got {sketches.shape}",
                f"应为 sketches [head, sketch, other_sketch]，各不少于 2 个，得到 {sketches.shape}",
            )
        )
    squares = sketches.double().square().mean((1, 2))
    known = squares > ROUNDING_OF_SKETCHES * (squares if scale is None else scale)
    apart = sketches.double() / squares.sqrt().masked_fill(~known, 1)[:, None, None]
    found = _mean_products(apart.flatten(1)).clamp(-1, 1)
    rows, columns = apart.shape[1:]
    error = _variance(apart, found).sqrt() / (1 - found**2).clamp_min(1e-12)
    wide = float(student.ppf((1 + level) / 2, min(rows, columns) - 1)) * error
    ends = (torch.tanh(torch.atanh(found) + side * wide) for side in (-1, 1))
    unknown = ~(known[:, None] & known)
    alike = ((one + one.T) / 2 for one in (found, *ends))  # to the last bit
    estimate, low, high = (one.fill_diagonal_(1).masked_fill(unknown, torch.nan) for one in alike)
    return estimate, low, high


def _variance(apart: Tensor, found: Tensor) -> Tensor:
    """Of the correlations `found`, by the spread of what each row, column and entry of the sketches adds to them."""
    _, rows, columns = apart.shape
    by_row = sum(_added(apart[:, a], found).square() for a in range(rows)) * columns / (rows - 1)
    by_column = sum(_added(apart[:, :, b], found).square() for b in range(columns)) * rows / (columns - 1)
    one, two = apart.flatten(1), apart.flatten(1).square()
    both, cubes, fourths = two @ two.T, (two * one) @ one.T, two.square().sum(1)
    total = both - found * (cubes + cubes.T) + found**2 / 4 * (fourths[:, None] + 2 * both + fourths)
    entries = rows * columns
    rest = total - by_row * (rows - 1) - by_column * (columns - 1)
    rest = (rest / ((rows - 1) * (columns - 1))).clamp_min(0)
    return torch.maximum(by_row + by_column - rest, rest) / entries


def _added(part: Tensor, found: Tensor) -> Tensor:
    """What some entries `[head, entry]` of sketches of mean square 1 add to each correlation, in the mean."""
    squares = part.square().mean(1)
    return _mean_products(part) - found / 2 * (squares[:, None] + squares)


def _mean_products(part: Tensor) -> Tensor:
    return part @ part.T / part.shape[1]
