"""What each head does on average: how spread, how far, and on which place relative to the query.

Sources: Clark et al., "What Does BERT Look At?" (2019), sections 3.1 to 3.3 (neighbours, first token, entropy); Vig &
Belinkov, "Analyzing the Structure of Attention in a Transformer Language Model" (2019), section 4.2.2 (distance);
Voita et al., "Analyzing Multi-Head Self-Attention" (2019), section 3 (confidence). Steps: take each number row by row,
then the mean over the rows for which it means something, those of all examples pooled.
"""

import torch
from torch import Tensor

from hf_attnviz.functional.bootstrap import Tally
from hf_attnviz.functional.checks import upcast
from hf_attnviz.functional.entropy import entropy
from hf_attnviz.functional.pairs import Pairs, pairs_of

STATISTICS = (
    "entropy",
    "normalised_entropy",
    "effective_span",
    "distance",
    "previous_token",
    "next_token",
    "self_token",
    "first_token",
    "first_token_after_first_row",
    "confidence",
    "previous_token_argmax",
)


def head_statistics(
    attention: Tensor,
    *,
    valid: Tensor | None = None,
    valid_queries: Tensor | None = None,
    positions: Tensor | None = None,
    causal: bool = False,
) -> dict[str, Tensor]:
    """Eleven numbers for each head of `attention` `[layer, batch, head, query, key]`, each `[layer, head]`.

    A row counts if its token is real and may look at something; what lies on other keys is ignored.

    - entropy (nats), normalised_entropy (entropy over the ln of the allowed keys; rows with one such key are left out),
      effective_span (tokens: mean of exp(entropy)), confidence (share: the largest weight of the row);
    - distance (tokens: Σ a·|i−j|, counted in places of the tensor), self_token (share: weight on the query's own key),
      previous_token and next_token (share; only rows whose neighbour is a real key are pooled; a causal map cannot
      have a next_token, so it is NaN there rather than 0), previous_token_argmax (share of those same rows that give
      the neighbour before them their largest weight; of equal weights the first wins);
    - first_token (share on the first real key), first_token_after_first_row (the same without each example's first
      real row, which in a causal map has no choice).

    valid: Bool `[batch, key]`, the real keys; of a square map also the real rows, else see valid_queries
    `[batch, query]`. positions: `[query]`, the key on which each row stands (rows 5 to 9 of a cached pass stand on keys
    5 to 9), -1 for a row that stands on none. A square map has 0, 1, 2 … by default; any other, cross-attention say,
    has none and NaN for what needs them. Give -1s for cross-attention that happens to be square.

    NaN: no row was left to pool, or one held NaN or infinity. Raises ArgumentError for weight ahead of the query with
    causal=True.

    >>> copies = torch.eye(4).roll(1, 1).view(1, 1, 1, 4, 4)  # each token looks at the next, the last at the first
    >>> {name: float(head_statistics(copies)[name]) for name in ("next_token", "self_token", "distance")}
    {'next_token': 1.0, 'self_token': 0.0, 'distance': 1.5}
    """
    tallies = statistics_by_example(
        attention, valid=valid, valid_queries=valid_queries, positions=positions, causal=causal
    )
    return {name: tally.mean() for name, tally in tallies.items()}


def statistics_by_example(
    attention: Tensor,
    *,
    valid: Tensor | None = None,
    valid_queries: Tensor | None = None,
    positions: Tensor | None = None,
    causal: bool = False,
) -> dict[str, Tally]:
    """The same numbers before they are pooled, `[example, layer, head]` each: what an interval is made of."""
    pairs = pairs_of(attention, valid=valid, valid_queries=valid_queries, positions=positions, causal=causal)
    return tallied(attention, pairs)


def tallied(attention: Tensor, pairs: Pairs) -> dict[str, Tally]:
    """`statistics_by_example` of pairs that are laid down already."""
    by_layer = [_layer(upcast(layer), pairs) for layer in attention]
    counts = by_layer[0]  # the rows that count are the same in every layer
    return {
        name: Tally(torch.stack([found[name].totals for found in by_layer], 1), counts[name].counts[:, None])
        for name in STATISTICS
    }


def _layer(weights: Tensor, pairs: Pairs) -> dict[str, Tally]:
    """The statistics of one layer, `[batch, head, query, key]` → `[example, head]` each."""
    pairs.refuse_forbidden_weight(weights)
    weights = weights.masked_fill(~pairs.allowed[:, None], 0)
    weights = weights.masked_fill(~weights.isfinite().all(-1, keepdim=True), torch.nan)  # no cell of it is known then
    return {**_spread(weights, pairs), **_places(weights, pairs), **_first(weights, pairs)}


def _spread(weights: Tensor, pairs: Pairs) -> dict[str, Tally]:
    nats = entropy(weights)
    choices = pairs.allowed.sum(-1)
    return {
        "entropy": tally_of_rows(nats, pairs.rows),
        "normalised_entropy": tally_of_rows(nats / choices.to(nats.dtype).log()[:, None], choices > 1),
        "effective_span": tally_of_rows(nats.exp(), pairs.rows),
        "confidence": tally_of_rows(weights.amax(-1), pairs.rows),
    }


def _places(weights: Tensor, pairs: Pairs) -> dict[str, Tally]:
    places = torch.arange(weights.shape[-1], device=weights.device)
    apart = (pairs.positions[:, None] - places).abs().to(weights.dtype)
    own, _ = _at_offset(weights, pairs, 0)
    previous, has_previous = _at_offset(weights, pairs, -1)
    following, has_following = _at_offset(weights, pairs, 1)
    standing = pairs.rows & (pairs.positions >= 0)
    # argmax must not fall on a forbidden key when the whole row is zero
    strongest = weights.masked_fill(~pairs.allowed[:, None], -1).argmax(-1)
    to_previous = (strongest == pairs.positions - 1).to(weights.dtype).masked_fill(own.isnan(), torch.nan)
    return {
        "distance": tally_of_rows((weights * apart).sum(-1), standing),
        "self_token": tally_of_rows(own, standing),
        "previous_token": tally_of_rows(previous, has_previous),
        "next_token": tally_of_rows(following, has_following & (not pairs.causal)),
        "previous_token_argmax": tally_of_rows(to_previous, has_previous),
    }


def _at_offset(weights: Tensor, pairs: Pairs, offset: int) -> tuple[Tensor, Tensor]:
    """The weight each row gives the key at its place + offset, and the rows for which that is a real key."""
    target = pairs.positions + offset
    inside = (pairs.positions >= 0) & (target >= 0) & (target < weights.shape[-1])
    target = target.where(inside, 0)
    values = weights.gather(-1, target[:, None].expand(*weights.shape[:-1], 1)).squeeze(-1)
    return values, pairs.rows & inside & pairs.keys[:, target]


def _first(weights: Tensor, pairs: Pairs) -> dict[str, Tally]:
    first = pairs.keys.int().argmax(-1)
    values = weights.gather(-1, first[:, None, None, None].expand(*weights.shape[:-1], 1)).squeeze(-1)
    return {
        "first_token": tally_of_rows(values, pairs.rows),
        "first_token_after_first_row": tally_of_rows(values, pairs.rows & (pairs.rows.cumsum(-1) > 1)),
    }


def tally_of_rows(values: Tensor, rows: Tensor) -> Tally:
    """`values` `[batch, head, query]` summed over the `rows` `[batch, query]` of each example: `[example, head]`."""
    return Tally(values.masked_fill(~rows[:, None], 0).sum(-1), rows.sum(-1, keepdim=True))
