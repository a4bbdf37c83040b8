"""What reducers keep of a map, in plain loops over its weights: slow, obvious, and without a line of ours."""

import math
from collections.abc import Sequence

import numpy as np

NAN = math.nan


def products(weights: np.ndarray, even: Sequence[Sequence[float]] | None = None) -> np.ndarray:
    """Σ (a − even)·(b − even) over all cells of maps ``[head, query, key]``; ``even`` ``[query][key]``, or nothing."""
    heads, queries, keys = weights.shape
    apart = weights - (np.zeros((queries, keys)) if even is None else np.array(even))
    return np.array([[math.fsum((apart[a] * apart[b]).ravel()) for b in range(heads)] for a in range(heads)])


def pearson(weights: np.ndarray, stands: Sequence[int] | None, causal: bool, centred: bool) -> np.ndarray:
    """Between all heads ``[head, query, key]``, over the cells that a row may see."""
    heads, queries, keys = weights.shape
    seen = [[k for k in range(keys) if not causal or stands is None or k <= stands[q]] for q in range(queries)]
    flat = np.array(
        [
            [weights[h, q, k] - (1 / len(seen[q]) if centred else 0) for q in range(queries) for k in seen[q]]
            for h in range(heads)
        ]
    )
    return np.corrcoef(flat)


def scores(
    weights: np.ndarray, stands: Sequence[int], ids: Sequence[int | None], causal: bool
) -> dict[str, np.ndarray]:
    """The five of each row ``[head, query]``, with NaN where there is no such key."""
    heads, queries, keys = weights.shape
    found = {
        name: np.full((heads, queries), NAN)
        for name in ("previous_token", "self_token", "next_token", "duplicate_token", "induction")
    }
    for h in range(heads):
        for q, place in enumerate(stands):
            row = weights[h, q]
            found["self_token"][h, q] = row[place]
            if place > 0:
                found["previous_token"][h, q] = row[place - 1]
            if place + 1 < keys and not causal:
                found["next_token"][h, q] = row[place + 1]
            copies = [k for k in range(place) if ids[place] is not None and ids[k] == ids[place]]
            if copies:
                found["duplicate_token"][h, q] = math.fsum(row[k] for k in copies)
                found["induction"][h, q] = math.fsum(row[k + 1] for k in copies)
    return found


def masses(weights: np.ndarray, bounds: Sequence[tuple[int, int]]) -> np.ndarray:
    """``[head, query, segment]``, the rest last."""
    heads, queries, keys = weights.shape
    found = np.zeros((heads, queries, len(bounds) + 1))
    for h, q, k in np.ndindex(heads, queries, keys):
        which = [n for n, (start, stop) in enumerate(bounds) if start <= k < stop]
        found[h, q, which[0] if which else len(bounds)] += weights[h, q, k]
    return found
