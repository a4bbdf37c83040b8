"""What reducers do with tiles of weights, in numba: each reads a tile once, while it is still in the cache."""

from typing import Any

import numba as nb
import numpy as np

_LESS = {"reassoc", "contract", "arcp", "nsz", "nnan"}  # tiles hold no NaN
_LANES = 64  # columns of which the largest are found side by side
_SPAN = 32  # keys that are passed over together
_AT_ONCE = 256  # keys of which all products stay in the first cache


@nb.njit(fastmath=_LESS, inline="always")  # type: ignore[untyped-decorator]
def _place(best: Any, at: Any, x: Any, key: Any) -> None:
    """Puts x and its key among the best, the largest first; those behind it move on, the last is gone."""
    i = len(best) - 1
    while i > 0 and best[i - 1] < x:
        best[i], at[i] = best[i - 1], at[i - 1]
        i -= 1
    best[i], at[i] = x, key


@nb.njit(fastmath=_LESS, nogil=True)  # type: ignore[untyped-decorator]
def largest(weights: Any, first: Any, nothing: Any, values: Any, places: Any) -> None:
    """The largest of each row of ``weights`` ``[head, row, key]``, and ``first`` + their columns.

    values, places: ``[head, row, rank]``, 0 and −1 at the start. Weights of ``nothing`` or less are none.
    """
    heads, rows, keys = weights.shape
    ranks = values.shape[2]
    tops = np.empty(_LANES, np.float32)
    for h in range(heads):
        for r in range(rows):
            row, best, at = weights[h, r], values[h, r], places[h, r]
            tops[:] = nothing
            for start in range(0, keys - _LANES + 1, _LANES):
                part = row[start : start + _LANES]
                for j in range(_LANES):
                    tops[j] = part[j] if part[j] > tops[j] else tops[j]
            best[:] = nothing
            for j in range(_LANES):
                if tops[j] > best[ranks - 1]:
                    _place(best, at, tops[j], 0)
            least = best[ranks - 1]  # as many keys at least are as large
            best[:], at[:] = nothing, -1
            for start in range(0, keys, _SPAN):
                part = row[start : start + _SPAN]
                found = np.int32(0)
                for j in range(len(part)):
                    found |= np.int32(part[j] >= least)
                if found == 0:
                    continue
                for j in range(len(part)):
                    if part[j] >= least and part[j] > best[ranks - 1]:
                        _place(best, at, part[j], first + start + j)
            for i in range(ranks):
                if at[i] < 0:
                    best[i] = np.float32(0)


@nb.njit(fastmath=_LESS, nogil=True)  # type: ignore[untyped-decorator]
def products(weights: Any, even: Any, reach: Any, found: Any) -> None:
    """Adds Σ (a − even)·(b − even) over rows and keys to ``found`` ``[head, other_head]``, its upper triangle alone.

    weights: ``[head, row, key]``. even, reach: ``[row]``, what is subtracted, and from how many of the keys; those
    beyond have no weight.
    """
    heads, rows, _ = weights.shape
    for r in range(rows):
        u = even[r]
        for start in range(0, reach[r], _AT_ONCE):
            stop = min(start + _AT_ONCE, reach[r])
            for a in range(0, heads, 4):  # eight products at a time: more do not fit into registers
                a1, a2, a3 = min(a + 1, heads - 1), min(a + 2, heads - 1), min(a + 3, heads - 1)
                p0, p1 = weights[a, r, start:stop], weights[a1, r, start:stop]
                p2, p3 = weights[a2, r, start:stop], weights[a3, r, start:stop]
                for b in range(a, heads, 2):
                    b1 = min(b + 1, heads - 1)
                    q0, q1 = weights[b, r, start:stop], weights[b1, r, start:stop]
                    s00 = s01 = s10 = s11 = s20 = s21 = s30 = s31 = np.float32(0)
                    for j in range(stop - start):
                        x0, x1, x2, x3 = p0[j] - u, p1[j] - u, p2[j] - u, p3[j] - u
                        y0, y1 = q0[j] - u, q1[j] - u
                        s00 += x0 * y0
                        s01 += x0 * y1
                        s10 += x1 * y0
                        s11 += x1 * y1
                        s20 += x2 * y0
                        s21 += x2 * y1
                        s30 += x3 * y0
                        s31 += x3 * y1
                    # heads that are not there stood in for by the last: written first, so that its own come last
                    for n, x, y in ((3, s30, s31), (2, s20, s21), (1, s10, s11), (0, s00, s01)):
                        if a + n < heads:
                            found[a + n, b] += x
                            if b + 1 < heads:
                                found[a + n, b + 1] += y
