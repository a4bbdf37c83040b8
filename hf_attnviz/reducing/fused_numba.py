"""The fused pass in numba: one reading of a tile of scores gives weights and every sum.

``p = exp(s − lse)`` by a polynomial (Cody & Waite's range reduction to base two, minimax of degree six on [−½, ½],
relative error 2e-7), because numba's own ``exp`` is not vectorised. No compiler is needed: numba brings its own.
"""

from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

_ROUNDED = np.float32(1e-5)  # how far from one a row may sum before its weights are divided by what it sums to
_LESS = {"reassoc", "contract", "arcp", "nsz"}  # may sum in any order, but knows infinity and NaN


@intrinsic  # type: ignore[untyped-decorator]
def _float_of_bits(typing_context: Any, bits: Any) -> Any:
    """The float32 whose bits these are."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@nb.njit(fastmath=_LESS, inline="always")  # type: ignore[untyped-decorator]
def _exp(x: Any) -> Any:
    """exp(x) for x ≥ −87, in float32."""
    y = x * np.float32(1.44269504)
    whole = np.floor(y + np.float32(0.5))
    part = y - whole
    p = np.float32(1.540353e-4)
    p = p * part + np.float32(1.3333558e-3)
    p = p * part + np.float32(9.6181291e-3)
    p = p * part + np.float32(5.5504109e-2)
    p = p * part + np.float32(2.4022651e-1)
    p = p * part + np.float32(6.9314718e-1)
    p = p * part + np.float32(1.0)
    return p * _float_of_bits((np.int32(whole) + np.int32(127)) << np.int32(23))


@nb.njit(fastmath=_LESS, nogil=True)  # type: ignore[untyped-decorator]
def fused(
    scores: Any,
    scale: Any,
    mask: Any,
    lse: Any,
    counted: Any,
    stands: Any,
    places: Any,
    first: Any,
    limit: Any,
    entropy: Any,
    distance: Any,
    sink: Any,
    mass: Any,
    received: Any,
    write: Any,
) -> None:
    """Scores ``[row, key]`` into sums, and with ``write`` into weights, in place.

    Weights, and what keys receive, are of rows that sum to one; the other sums are not yet divided by ``mass``.

    mask: ``[row, key]`` float32, or of no columns: none. counted ``[row]``: whether received takes the row. stands
    ``[row]``, places ``[key]``: in their sequence. first: the first valid key, or −1. limit: row r sees the first
    limit + r + 1 keys; negative: all.
    """
    rows, keys = scores.shape
    masked = mask.shape[1] > 0
    for r in range(rows):
        seen = keys if limit < 0 else min(keys, limit + r + 1)
        row, offset, own = scores[r], lse[r], stands[r]
        bends, far, total = np.float32(0), np.float32(0), np.float32(0)
        share = np.float32(1 if counted[r] else 0)
        for j in range(seen):
            t = row[j] * scale - offset
            if masked:
                t += mask[r, j]
            t = max(t, np.float32(-87.0))
            p = _exp(t)
            bends -= p * t
            far += p * abs(own - places[j])
            total += p
            received[j] += p * share
            if write:
                row[j] = p
        if write:
            row[seen:] = np.float32(0)
        entropy[r], distance[r], mass[r] = bends, far, total
        sink[r] = np.float32(0)
        if 0 <= first < seen:
            if write:
                sink[r] = row[first]
            else:
                t = row[first] * scale - offset
                if masked:
                    t += mask[r, first]
                sink[r] = _exp(max(t, np.float32(-87.0)))
        if total > np.float32(0.5) and abs(total - np.float32(1)) > _ROUNDED:
            even = np.float32(1) / total
            for j in range(seen):
                if write:
                    p = row[j]
                    row[j] = p * even
                else:
                    t = row[j] * scale - offset
                    if masked:
                        t += mask[r, j]
                    p = _exp(max(t, np.float32(-87.0)))
                received[j] += p * share * (even - np.float32(1))
