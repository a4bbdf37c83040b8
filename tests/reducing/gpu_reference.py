"""Sums over attention by loops in float64: what the passes are held against. It shares no code with them."""

import numpy as np

NAMES = ("entropy", "distance", "sink", "mass", "received")


def sums(query, key, scale, mask, causal, stands, places, counted, first):
    """Of arrays ``[batch, head, query, size]`` and ``[batch, kv_head, key, size]``; mask ``[batch, head, query, key]``
    or None. Rows that look at nothing, and padding (stands < 0), are NaN and give nothing."""
    batch, heads, rows, _ = query.shape
    keys, group = key.shape[2], heads // key.shape[1]
    found = {name: np.full((batch, heads, rows), np.nan) for name in NAMES[:4]}
    found["received"] = np.zeros((batch, heads, keys))
    for b, h, i in np.ndindex(batch, heads, rows):
        scores = np.array([scale * float(query[b, h, i] @ key[b, h // group, j]) for j in range(keys)])
        seen = np.array([not causal or j <= i for j in range(keys)])
        if mask is not None:
            seen &= mask[b, h, i] > -30_000  # float16 has nothing below -65504
            scores = np.where(seen, scores + mask[b, h, i], 0)
        if stands[b, i] < 0 or not seen.any():
            continue
        weights = np.where(seen, np.exp(np.where(seen, scores - scores[seen].max(), 0)), 0)
        weights /= weights.sum()
        found["entropy"][b, h, i] = -sum(p * np.log(p) for p in weights if p > 0)
        found["distance"][b, h, i] = sum(p * abs(stands[b, i] - at) for p, at in zip(weights, places[b], strict=True))
        found["sink"][b, h, i] = weights[first[b]] if first[b] >= 0 else 0
        found["mass"][b, h, i] = weights.sum()
        if counted[b, i]:
            found["received"][b, h] += weights
    return found
