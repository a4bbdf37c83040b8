"""What a head is known for: each of the field's roles as a share of weight on the cells that define it.

Sources: Voita et al., "Analyzing Multi-Head Self-Attention" (2019), section 5.1 (positional); Clark et al., "What Does
BERT Look At?" (2019), sections 3.1 (previous, next), 3.2 (delimiters), 3.3 (broad); Gu et al., "When Attention Sink
Emerges in Language Models" (2025), section 3.2 (first token); Wang et al., "Interpretability in the Wild" (2022),
section 3 (duplicate tokens); Olsson et al., "In-context Learning and Induction Heads" (2022) (induction).
Steps: for each role the rows and cells that count; the weight on them in each row; the mean over all rows of all
examples. On `uniform_like(attention)` the same function gives the score of a head without preferences.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from hf_attnviz.errors import UnknownNameError, listed
from hf_attnviz.functional.bootstrap import Tally
from hf_attnviz.functional.checks import check_mask, check_share, upcast
from hf_attnviz.functional.induction import check_tokens, copy_cells, induction_cells
from hf_attnviz.functional.pairs import Pairs, pairs_of
from hf_attnviz.functional.statistics import tallied
from hf_attnviz.language import Text

THRESHOLDS = {
    "positional": 0.9,
    "previous_token": 0.5,
    "next_token": 0.5,
    "delimiter": 0.5,
    "first_token_sink": 0.3,
    "duplicate_token": 0.5,
    "induction": 0.5,
    "induction_stripe": 0.5,
    "induction_mul": 0.25,
    "broad": 0.9,
}
ROLES = tuple(THRESHOLDS)
ROUNDING = 1e-5  # by how much a score must be above that of uniform attention
_OFFSETS = (-1, 1)


def head_roles(
    attention: Tensor,
    *,
    tokens: Tensor | None = None,
    delimiters: Tensor | None = None,
    period: int | None = None,
    valid: Tensor | None = None,
    valid_queries: Tensor | None = None,
    positions: Tensor | None = None,
    causal: bool = False,
) -> dict[str, Tensor]:
    """Ten scores from 0 to 1 for each head of `attention` `[layer, batch, head, query, key]`, each `[layer, head]`.

    - positional: share of rows whose largest weight is on the neighbour before, or on the one after, whichever share
      is larger; equal largest weights divide the row among them;
    - previous_token, next_token, first_token_sink (without the first row, which in a causal map has no choice) and
      broad (normalised entropy, 1 is uniform): as `head_statistics` has them;
    - delimiter: weight on all delimiters that a row may see, over rows that see one;
    - duplicate_token: weight on earlier copies of the row's token, over rows that have one;
    - induction, induction_stripe, induction_mul: `induction_score` by "all_copies", "stripe" (with `period`) and "mul",
      the first two over rows that have a copy, the last over examples that have one.

    tokens: the ids of the keys, `[batch, key]`. delimiters: Bool `[batch, key]`. Masks and positions as in
    `head_statistics`; rows that stand nowhere (cross-attention) have no neighbours and no copies.

    NaN: nothing defines the role here: no row that counts, `tokens` or `delimiters` not given, no next token when
    causal, a row that holds NaN.

    >>> copying = torch.tensor([[1.0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]).view(1, 1, 1, 4, 4)
    >>> roles = head_roles(copying, tokens=torch.tensor([[7, 8, 7, 8]]), causal=True)
    >>> [name for name, score in roles.items() if score == 1]
    ['positional', 'previous_token', 'induction', 'induction_stripe']
    """
    found = roles_by_example(
        attention,
        tokens=tokens,
        delimiters=delimiters,
        period=period,
        valid=valid,
        valid_queries=valid_queries,
        positions=positions,
        causal=causal,
    )
    return {name: tally.mean() for name, tally in found.items()}


def roles_by_example(
    attention: Tensor,
    *,
    tokens: Tensor | None = None,
    delimiters: Tensor | None = None,
    period: int | None = None,
    valid: Tensor | None = None,
    valid_queries: Tensor | None = None,
    positions: Tensor | None = None,
    causal: bool = False,
) -> dict[str, Tally]:
    """The same scores before they are pooled, `[example, layer, head]` each: what an interval is made of."""
    pairs = pairs_of(attention, valid=valid, valid_queries=valid_queries, positions=positions, causal=causal)
    known = tallied(attention, pairs)
    scores = {
        "positional": _positional(attention, pairs),
        "previous_token": known["previous_token"],
        "next_token": known["next_token"],
        "delimiter": _on_cells(attention, _delimited(delimiters, pairs)),
        "first_token_sink": known["first_token_after_first_row"],
        **_copying(attention, pairs, tokens, period),
        "broad": known["normalised_entropy"],
    }
    return {name: scores[name] for name in ROLES}


def role_verdicts(
    scores: Mapping[str, Tensor], baseline: Mapping[str, Tensor], *, thresholds: Mapping[str, float] | None = None
) -> dict[str, Tensor]:
    """Which heads have which role: 1 or 0, NaN where the score is; shaped like `scores`.

    A score has its role when it reaches its threshold and is above `baseline`, the score of uniform attention, which on
    few keys is high by itself; broad: when it reaches that share of the uniform one. thresholds replaces some of:

    - positional 0.9: "at least 90 % of the time", Voita et al. 2019, section 5.1;
    - previous_token, next_token 0.5: "more than 50 %", Clark et al. 2019, section 3.1;
    - delimiter 0.5: "over half", of [SEP], Clark et al. 2019, section 3.2;
    - first_token_sink 0.3: ε of Gu et al. 2025, section 3.2;
    - duplicate_token, induction, induction_stripe 0.5: no paper names one; more than half, as for neighbours;
    - induction_mul 0.25: no paper names one; half of what a perfect head reaches on a sequence given twice;
    - broad 0.9: no paper names one; Clark et al. 2019, section 3.3, speak of heads that spread "very" broadly.

    Raises UnknownNameError for a role that is not on the list, ArgumentError for a threshold outside [0, 1].
    """
    limits = known_thresholds(thresholds)
    verdicts = {}
    for name, score in scores.items():
        reached = score >= limits[name] * (baseline[name] if name == "broad" else 1)
        passed = reached & ((score > baseline[name] + ROUNDING) | (name == "broad"))
        verdicts[name] = passed.to(score.dtype).masked_fill(score.isnan(), torch.nan)
    return verdicts


def known_thresholds(thresholds: Mapping[str, float] | None) -> dict[str, float]:
    """All thresholds, with those replaced that are given."""
    given = dict(thresholds or {})
    unknown = [name for name in given if name not in THRESHOLDS]
    if unknown:
        raise UnknownNameError(
            Text(
                f"expected thresholds of {listed(ROLES)}; got one of {unknown[0]!r}",
                f"阈值应属于 {listed(ROLES)}；得到其中没有的 {unknown[0]!r}",
            )
        )
    for name, value in given.items():
        check_share(value, f"the threshold of {name}")
    return THRESHOLDS | given


def _positional(attention: Tensor, pairs: Pairs) -> Tally:
    """The two neighbours as alternatives: totals `[example, layer, head, offset]`."""
    cells = [_at_offset(pairs, offset) for offset in _OFFSETS]
    totals = []
    for layer in attention:
        weights = upcast(layer).masked_fill(~pairs.allowed[:, None], -1)
        strongest = ((weights == weights.amax(-1, keepdim=True)) & pairs.allowed[:, None]).to(weights.dtype)
        shares = strongest / strongest.sum(-1, keepdim=True)  # NaN where the row holds NaN
        totals.append(torch.stack([_rows_on(shares, one, one.any(-1)) for one in cells], -1))
    counts = torch.stack([one.any(-1).sum(-1) for one in cells], -1)
    return Tally(torch.stack(totals, 1), counts[:, None, None], best=True)


def _at_offset(pairs: Pairs, offset: int) -> Tensor:
    """The cell of each row's neighbour, where it may be seen: `[batch, query, key]`."""
    places = torch.arange(pairs.allowed.shape[-1], device=pairs.allowed.device)
    standing = pairs.positions[:, None]
    return pairs.allowed & (places == standing + offset) & (standing >= 0)


def _delimited(delimiters: Tensor | None, pairs: Pairs) -> Tensor:
    if delimiters is None:
        return torch.zeros_like(pairs.allowed)
    batch, _, keys = pairs.allowed.shape
    return pairs.allowed & check_mask(delimiters, "delimiters", batch, keys, pairs.allowed.device)[:, None]


def _copying(attention: Tensor, pairs: Pairs, tokens: Tensor | None, period: int | None) -> dict[str, Tally]:
    batch, _, keys = pairs.allowed.shape
    if tokens is None:
        tokens = torch.arange(keys, device=attention.device).expand(batch, keys)  # no copies
    check_tokens(tokens, batch, keys)
    ids = tokens.to(attention.device)
    cells = {
        "duplicate_token": copy_cells(ids, pairs.keys),
        "induction": induction_cells(ids, valid=pairs.keys),
        "induction_stripe": induction_cells(ids, valid=pairs.keys, definition="stripe", period=period),
    }
    standing = (pairs.positions >= 0)[:, None]
    here = {name: one[:, pairs.positions.clamp_min(0)] & standing & pairs.allowed for name, one in cells.items()}
    found = {name: _on_cells(attention, one) for name, one in here.items()}
    whole = _on_cells(attention, pairs.allowed).totals
    anywhere = here["induction"].any(-1).any(-1)
    share = (found["induction"].totals / whole).masked_fill(~anywhere[:, None, None], torch.nan)
    return found | {"induction_mul": Tally(share.masked_fill(~anywhere[:, None, None], 0), anywhere[:, None, None])}


def _on_cells(attention: Tensor, cells: Tensor) -> Tally:
    """The weight on `cells` `[batch, query, key]`, over the rows that have one: `[example, layer, head]`."""
    rows = cells.any(-1)
    totals = torch.stack([_rows_on(upcast(layer), cells, rows) for layer in attention], 1)
    return Tally(totals, rows.sum(-1)[:, None, None])


def _rows_on(weights: Tensor, cells: Tensor, rows: Tensor) -> Tensor:
    """Σ of `weights` `[batch, head, query, key]` over cells and rows: `[batch, head]`."""
    return weights.masked_fill(~(cells & rows[:, :, None])[:, None], 0).sum((-2, -1))
