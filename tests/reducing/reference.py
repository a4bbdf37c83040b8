"""Slow plain arithmetic in float64 that shares no code with the package: softmax by hand, then loops."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def scores_of(query: Any, key: Any, scale: float, mask: Any = None, causal: bool = False) -> np.ndarray:
    """``[batch, head, query, key]`` in float64; a Boolean mask says who may look, another one is added."""
    query, key = _wide(query), _wide(key)
    batch, heads, rows, _ = query.shape
    keys, each = key.shape[2], heads // key.shape[1]
    scores = np.empty((batch, heads, rows, keys))
    for b in range(batch):
        for h in range(heads):
            scores[b, h] = query[b, h] @ key[b, h // each].T * scale
    if mask is not None:
        given = np.asarray(mask.cpu().double().numpy() if mask.is_floating_point() else mask.cpu().numpy())
        wide = np.broadcast_to(given, scores.shape)
        scores = np.where(wide, scores, -np.inf) if wide.dtype == bool else scores + wide
    if causal:
        scores = np.where(np.arange(keys) > np.arange(rows)[:, None], -np.inf, scores)
    return scores


def softmax(scores: np.ndarray, never: float = -1e30) -> np.ndarray:
    """Rows that sum to one; a row whose every score is below ``never`` looks at nothing, and is zero."""
    weights = np.zeros_like(scores)
    for at in np.ndindex(*scores.shape[:-1]):
        row = scores[at]
        if len(row) and row.max() > never:
            bent = np.exp(row - row.max())
            weights[at] = bent / math.fsum(bent)
    return weights


def lse_of(scores: np.ndarray) -> np.ndarray:
    """``[batch, head, query]``, the log of the sum of exp of each row."""
    with np.errstate(invalid="ignore"):
        top = scores.max(-1)
        held = np.where(np.isfinite(top), top, 0.0)
        total = np.exp(scores - held[..., None]).sum(-1)
    with np.errstate(divide="ignore"):
        return np.where(np.isneginf(top), -np.inf, held + np.log(total))


def statistics(weights: Any, rows: Any, keys: Any, counted: Any = None, standing: bool = True) -> dict[str, np.ndarray]:
    """``entropy``, ``distance``, ``sink`` ``[batch, head, query]`` and ``received`` ``[batch, head, key]``.

    Args:
        weights: ``[batch, head, query, key]``.
        rows, keys: the place of each row ``[batch, query]`` and column ``[batch, key]``; −1 for padding.
        counted: ``[batch, query]``, which rows ``received`` counts; None: all that are no padding.
        standing: whether rows stand on keys.
    """
    weights = _wide(weights)
    batch, heads, queries, width = weights.shape
    found = {name: np.full((batch, heads, queries), np.nan) for name in ("entropy", "distance", "sink")}
    received = np.zeros((batch, heads, width))
    rows, keys = np.asarray(rows), np.asarray(keys)
    for b in range(batch):
        real = [j for j in range(width) if keys[b][j] >= 0]
        places = np.array([float(keys[b][j]) for j in real])
        for h in range(heads):
            for i in range(queries):
                part = weights[b, h, i, real]
                if rows[b][i] < 0 or not part.sum() > 0:
                    continue
                seen = part[part > 0]
                found["entropy"][b, h, i] = -math.fsum(seen * np.log(seen))
                if standing:
                    found["distance"][b, h, i] = math.fsum(part * np.abs(places - float(rows[b][i])))
                found["sink"][b, h, i] = math.fsum(part[places == 0])
                if counted is None or bool(counted[b][i]):
                    received[b, h, real] += part
    return found | {"received": received}


def of_map(weights: Any, positions: Sequence[int] | None) -> dict[str, np.ndarray]:
    """The same of one map ``[head, query, key]``, padding dropped; positions: where its rows stand, None: nowhere."""
    queries, keys = weights.shape[-2:]
    rows = list(range(queries)) if positions is None else list(positions)
    found = statistics(weights[None], [rows], [list(range(keys))], standing=positions is not None)
    return {name: values[0] for name, values in found.items()}


def off(got: Any, wanted: np.ndarray) -> float:
    """The largest |got − wanted| / max(1, |wanted|); infinite where one of them is no number and the other is."""
    got = _wide(got)
    if got.shape != wanted.shape or not np.array_equal(np.isnan(got), np.isnan(wanted)):
        return math.inf
    if not got.size:
        return 0.0
    return float(np.nan_to_num(np.abs(got - wanted) / np.maximum(1.0, np.abs(wanted))).max())


def _wide(numbers: Any) -> np.ndarray:
    return numbers.detach().cpu().double().numpy() if hasattr(numbers, "detach") else np.asarray(numbers, dtype=float)
