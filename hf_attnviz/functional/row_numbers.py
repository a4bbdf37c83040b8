"""What each head does on average, made of three numbers a row instead of the row itself.

Sources: those of `statistics`. A row's entropy, its mean distance and its weight on the first real key are all that six
of the eleven statistics need; what uniform attention gets follows from how many keys a row may see and where they lie:
with c(p) real keys up to place p, whose places sum to s(p), the causal row at p is at a distance of p − s(p) / c(p).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attnviz.errors import ShapeError, listed
from hf_attnviz.functional.bootstrap import Tally
from hf_attnviz.functional.checks import check_axes, upcast
from hf_attnviz.functional.pairs import ends
from hf_attnviz.functional.statistics import tally_of_rows
from hf_attnviz.language import Text

NEEDED = ("entropy", "distance", "sink")


def statistics_of_rows(
    rows: Mapping[str, Tensor],
    *,
    valid: Tensor,
    valid_queries: Tensor | None = None,
    positions: Tensor | None = None,
    causal: bool = False,
) -> dict[str, Tally]:
    """Six of the statistics of `head_statistics`, example by example, of `entropy` (nats), `distance` (tokens) and
    `sink` (the weight on the first real key), each `[layer, batch, head, query]`: the same numbers as of the maps.

    They are entropy, normalised_entropy, effective_span, distance, first_token and first_token_after_first_row; the
    others need the weights. Masks as in `head_statistics`; valid `[batch, key]` must be given, for the rows do not tell
    how many keys there are.

    Raises ShapeError where one of the three is missing or differs in shape.

    >>> even = uniform_rows(valid=torch.ones(1, 4, dtype=torch.bool), causal=True)
    >>> found = statistics_of_rows(even, valid=torch.ones(1, 4, dtype=torch.bool), causal=True)
    >>> {name: float(found[name].mean()) for name in ("effective_span", "distance", "normalised_entropy")}
    {'effective_span': 2.5, 'distance': 0.75, 'normalised_entropy': 1.0}
    """
    entropy, distance, sink = _checked(rows)
    seen = _seen(valid.to(entropy.device), entropy.shape[-1], valid_queries, positions, causal)
    counts = seen.counts.to(entropy.dtype)
    found = {
        "entropy": (entropy, seen.rows),
        "normalised_entropy": (entropy / counts.log()[:, None], seen.rows & (seen.counts > 1)),
        "effective_span": (entropy.exp(), seen.rows),
        "distance": (distance, seen.rows & (seen.positions >= 0)),
        "first_token": (sink, seen.rows),
        "first_token_after_first_row": (sink, seen.rows & (seen.rows.cumsum(-1) > 1)),
    }
    return {name: _tallied(values, counted) for name, (values, counted) in found.items()}


def uniform_rows(
    *,
    valid: Tensor,
    valid_queries: Tensor | None = None,
    positions: Tensor | None = None,
    causal: bool = False,
) -> dict[str, Tensor]:
    """`entropy`, `distance` and `sink` of rows that are even over the keys they may see, each `[1, batch, 1, query]`
    in float64: the baseline of `statistics_of_rows`. NaN: a row that may see nothing, or the distance of one that
    stands nowhere.

    >>> uniform_rows(valid=torch.ones(1, 3, dtype=torch.bool), causal=True)["distance"].flatten().tolist()
    [0.0, 0.5, 1.0]
    """
    queries = valid.shape[-1] if valid_queries is None else valid_queries.shape[-1]
    seen = _seen(valid, queries, valid_queries, positions, causal)
    counts = seen.counts.double().masked_fill(~seen.rows, torch.nan)
    nowhere = seen.positions < 0
    found = {
        "entropy": counts.log(),
        "distance": (seen.distances / counts).masked_fill(nowhere, torch.nan),
        "sink": 1 / counts,
    }
    return {name: values[None, :, None] for name, values in found.items()}


@dataclass(frozen=True)
class _Seen:
    """How many keys each row may see, `counts` `[batch, query]`, and the sum of their `distances` from it; the `rows`
    `[batch, query]` that may see any; the `positions` `[query]` on which they stand."""

    counts: Tensor
    distances: Tensor
    rows: Tensor
    positions: Tensor


def _seen(valid: Tensor, queries: int, valid_queries: Tensor | None, positions: Tensor | None, causal: bool) -> _Seen:
    batch, keys = valid.shape
    masks = {"valid": valid, "valid_queries": valid_queries, "positions": positions}
    real, real_keys, stand = ends((batch, queries, keys), **masks, causal=causal, device=valid.device)
    before, places = real_keys.cumsum(-1), (real_keys * torch.arange(keys, device=valid.device)).cumsum(-1)
    at = stand.clamp_min(0)
    counts, distances = before[:, at], at * before[:, at] - places[:, at]
    if not causal:
        distances = distances + (places[:, -1:] - places[:, at]) - at * (before[:, -1:] - before[:, at])
        counts = before[:, -1:].expand_as(counts)
    return _Seen(counts, distances, real & (counts > 0), stand)


def _checked(rows: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    missing = [name for name in NEEDED if name not in rows]
    if missing:
        raise ShapeError(
            Text(
                f"expected {listed(NEEDED)} of each row, got {listed(rows)}; {listed(missing)} is missing",
                f"每行应有 {listed(NEEDED)}，得到 {listed(rows, '无')}；缺少 {listed(missing)}",
            )
        )
    for name in NEEDED:
        check_axes(rows[name], "layer batch head query")
    if len({rows[name].shape for name in NEEDED}) > 1:
        raise ShapeError(
            Text(
                f"expected one shape, got { ({name: tuple(rows[name].shape) for name in NEEDED}) }",
                f"形状应一致，得到 { ({name: tuple(rows[name].shape) for name in NEEDED}) }",
            )
        )
    entropy, distance, sink = (upcast(rows[name]) for name in NEEDED)
    return entropy, distance, sink


def _tallied(values: Tensor, counted: Tensor) -> Tally:
    """`values` `[layer, batch, head, query]` over the rows `counted` `[batch, query]`: `[example, layer, head]`."""
    by_layer = [tally_of_rows(layer, counted) for layer in values]
    return Tally(torch.stack([one.totals for one in by_layer], 1), by_layer[0].counts[:, None])
