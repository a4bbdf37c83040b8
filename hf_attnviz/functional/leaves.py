"""The leaves of a binary tree in the order that puts near ones side by side, every branch free to turn.

Source: Bar-Joseph, Gifford & Jaakkola, "Fast Optimal Leaf Ordering for Hierarchical Clustering" (2001), section 3.
Steps: from the leaves up, the shortest walk through each branch for every leaf it may start and every leaf it may end
with; from the root down, turn each branch as its walk needs. SciPy's own `optimal_leaf_ordering` does not find the
shortest walk (scipy issue 11227), which is why this file exists.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.int64]


class Branches:
    """A tree of merges `[merge, 2]` over n leaves, as `linkage` numbers them: merge k makes branch n + k."""

    def __init__(self, merges: Indices, distance: Array) -> None:
        self.distance = distance
        self.children = {len(distance) + k: (int(a), int(b)) for k, (a, b) in enumerate(merges)}
        self.leaves: dict[int, Indices] = {leaf: np.array([leaf]) for leaf in range(len(distance))}
        # one entry for a pair of ends, at the branch where the two meet
        self.shortest: Array = np.zeros_like(distance)
        for branch, (a, b) in self.children.items():
            self.leaves[branch] = np.concatenate([self.leaves[a], self.leaves[b]])
            first, second = self.leaves[a], self.leaves[b]
            to_second = _cheapest_sum(self.walks(a), distance[np.ix_(first, second)])
            walks = _cheapest_sum(to_second, self.walks(b))
            self.shortest[np.ix_(first, second)] = walks
            self.shortest[np.ix_(second, first)] = walks.T

    def walks(self, branch: int) -> Array:
        """Length of the shortest walk through `branch` `[first leaf, last leaf]`; infinite from one half to itself."""
        if branch not in self.children:
            return np.zeros((1, 1))
        size, half = len(self.leaves[branch]), len(self.leaves[self.children[branch][0]])
        walks = np.full((size, size), np.inf)
        leaves = self.leaves[branch]
        walks[:half, half:] = self.shortest[np.ix_(leaves[:half], leaves[half:])]
        walks[half:, :half] = walks[:half, half:].T
        return walks


def optimal_leaves(merges: Indices, distance: Array) -> Indices:
    """The leaves of the tree `merges` `[n - 1, 2]`, ordered for the least total `distance` `[n, n]` of neighbours."""
    tree = Branches(merges, distance)
    root = max(tree.leaves)
    pending = [(root, *_cheapest(tree.walks(root)))]  # first and last leaf, counted within the branch
    order = []
    while pending:
        branch, first, last = pending.pop()
        if branch not in tree.children:
            order.append(branch)
            continue
        a, b = tree.children[branch]
        half = len(tree.leaves[a])
        if first < half:
            last -= half
        else:
            a, b, first = b, a, first - half
        joined = tree.walks(a)[first][:, None] + distance[np.ix_(tree.leaves[a], tree.leaves[b])]
        joined = joined + tree.walks(b)[:, last]
        leave, enter = _cheapest(joined)
        pending += [(b, enter, last), (a, first, leave)]
    return np.array(order)


def _cheapest(costs: Array) -> tuple[int, int]:
    """Where the first of the smallest entries stands."""
    row, column = divmod(int(costs.argmin()), costs.shape[1])
    return row, column


def _cheapest_sum(left: Array, right: Array) -> Array:
    """min over m of left[i, m] + right[m, j], looping over the shorter of m and j."""
    if right.shape[1] < right.shape[0]:
        return np.stack([(left + column).min(1) for column in right.T], 1)
    cheapest = np.full((left.shape[0], right.shape[1]), np.inf)
    for column, row in zip(left.T, right, strict=True):
        np.minimum(cheapest, column[:, None] + row, out=cheapest)
    return cheapest
