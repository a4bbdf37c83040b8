"""Where to put heads on paper so that like stands beside like: in a line, or on a plane.

Sources: Sokal & Michener (1958) for average linkage, whose branches are turned in `leaves`; Torgerson,
"Multidimensional Scaling: I" (1952). Both give the same answer every time.
"""

import numpy as np
import torch
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from hf_attnviz.errors import ArgumentError, ShapeError
from hf_attnviz.functional.checks import check_floating
from hf_attnviz.functional.leaves import Array, Indices, optimal_leaves
from hf_attnviz.language import Text

ASYMMETRY = 1e-4  # relative to the largest distance; rounding stays far below


def linkage_order(distance: Tensor) -> Tensor:
    """The order, `[n]` int64, that puts near items side by side: average linkage, its leaves optimally turned.

    `distance` `[n, n]`: symmetric, not negative; the diagonal is not looked at. Of the two directions the one that
    starts with the smaller index is returned. An item that has NaN for every other (a constant head) comes last, in
    the order given. Raises ArgumentError for any other NaN, an infinite or a negative distance.

    >>> line = torch.tensor([0.0, 3.0, 1.0, 2.0])
    >>> linkage_order((line[:, None] - line).abs())
    tensor([0, 2, 3, 1])
    """
    table, known = _table(distance)
    if len(known) > 1:
        distances = table[np.ix_(known, known)]
        tree = linkage(squareform(distances), method="average")
        leaves = optimal_leaves(tree[:, :2].astype(np.int64), distances)
        known = known[leaves if leaves[0] < leaves[-1] else leaves[::-1]]
    unknown = np.setdiff1d(np.arange(len(table)), known)
    return torch.from_numpy(np.concatenate([known, unknown])).to(distance.device)


def classical_mds(distance: Tensor, dimensions: int = 2) -> Tensor:
    """Coordinates `[n, dimensions]` whose Euclidean distances come closest to `distance` `[n, n]`, axes by importance.

    Double centring, −½·J·D²·J, then its largest eigenvalues; negative ones (no Euclidean space has these distances)
    count as 0, as do axes beyond the n-th. On each axis the coordinate of the largest size is positive. For heads, give
    it the root of the Jensen–Shannon divergence. Items unknown as in `linkage_order` are NaN and move nothing.

    >>> line = torch.tensor([0.0, 3.0, 1.0])
    >>> classical_mds((line[:, None] - line).abs(), dimensions=1).squeeze()
    tensor([-1.3333,  1.6667, -0.3333])
    """
    if dimensions < 1:
        raise ArgumentError(
            Text(
                f"expected at least one dimension, got {dimensions}; 2 draws a plane",
                f"应至少有一维，得到 {dimensions}；2 即画在平面上",
            )
        )
    table, known = _table(distance)
    coordinates = np.full((len(table), dimensions), np.nan)
    coordinates[known] = 0
    if len(known):
        found = _torgerson(table[np.ix_(known, known)])[:, :dimensions]
        coordinates[known, : found.shape[1]] = found
    dtype = torch.float64 if distance.dtype == torch.float64 else torch.float32
    return torch.from_numpy(coordinates).to(device=distance.device, dtype=dtype)


def _torgerson(table: Array) -> Array:
    """All n axes of the n items, the most important first."""
    squares = table**2
    inner: Array = (squares.mean(0) + squares.mean(1)[:, None] - squares.mean() - squares) / 2
    values, vectors = np.linalg.eigh(inner)
    axes: Array = vectors[:, ::-1] * np.sqrt(values[::-1].clip(min=0))
    largest = axes[np.abs(axes).argmax(0), np.arange(len(axes))]
    return axes * np.where(largest < 0, -1.0, 1.0)


def _table(distance: Tensor) -> tuple[Array, Indices]:
    """The distances as float64 with a zero diagonal, and the items whose distances are known."""
    if distance.ndim != 2 or distance.shape[0] != distance.shape[1]:
        raise ShapeError(
            Text(
                f"expected distance [n, n], got {tuple(distance.shape)}; give every item against every other",
                f"应为 distance [n, n]，得到的大小为 {tuple(distance.shape)}；请给出每两项之间的距离",
            )
        )
    check_floating(distance, "distance")
    table = distance.detach().cpu().double().numpy().copy()
    np.fill_diagonal(table, np.nan)
    known = np.flatnonzero(~np.isnan(table).all(1)) if len(table) > 1 else np.arange(len(table))
    np.fill_diagonal(table, 0)
    _check_distances(table[np.ix_(known, known)])
    return (table + table.T) / 2, known


def _check_distances(table: Array) -> None:
    if not np.isfinite(table).all():
        raise ArgumentError(
            Text(
                "expected finite distances (an item may be NaN to every other), got NaN or infinity between some; "
                'leave these items out, or take a bounded measure such as "js"',
                "距离应为有限数（某项与其余各项可以全为 NaN），有些却是 NaN 或无穷大；"
                '请去掉那些项，或用有界的度量，例如 "js"',
            )
        )
    largest = np.abs(table).max(initial=0)
    if (table < 0).any():
        raise ArgumentError(
            Text(
                f"expected distances from 0 up, got {table.min():.3g}; turn a likeness r into 1 - r",
                f"距离应不小于 0，得到 {table.min():.3g}；请把相似度 r 换成 1 - r",
            )
        )
    if (np.abs(table - table.T) > ASYMMETRY * largest).any():
        raise ArgumentError(
            Text(
                "expected symmetric distances, got d(i, j) ≠ d(j, i); take the mean of both directions",
                "距离应对称，得到 d(i, j) ≠ d(j, i)；请取两个方向的平均",
            )
        )
