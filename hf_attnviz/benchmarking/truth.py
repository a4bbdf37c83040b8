"""Are the statistics what float64 arithmetic makes of the queries and keys that were captured?

Nothing is shared with the pass over tiles: scores, their softmax and the four sums are done in float64, head by head
and some rows at a time, so that memory stays bounded.
"""

from typing import Any, Final

import torch
from torch import Tensor

STATISTICS: Final = ("entropy", "distance", "sink", "received")
TOLERANCE: Final = 1e-4
_AT_ONCE: Final = 2**22  # scores in memory at once


def truth(query: Tensor, key: Tensor) -> dict[str, Tensor]:
    """Of causal self-attention without padding, in float64: three of each row ``[head, query]`` and one of each key
    ``[head, key]``.

    Args:
        query: ``[head, query, size]``, times the model's scaling.
        key: ``[head, key, size]``.
    """
    heads, length, _ = query.shape
    found = {name: torch.empty(heads, length, dtype=torch.float64) for name in STATISTICS}
    for head in range(heads):
        found["received"][head] = 0
        for rows in torch.split(torch.arange(length), max(1, _AT_ONCE // length)):
            _some_rows(query[head].cpu().double(), key[head].cpu().double(), rows, head, found)
    return found


def _some_rows(query: Tensor, key: Tensor, rows: Tensor, head: int, found: dict[str, Tensor]) -> None:
    places = torch.arange(len(key))
    scores = (query[rows] @ key.T).masked_fill(places > rows[:, None], -torch.inf)
    weights = scores.softmax(-1)
    found["entropy"][head, rows] = -torch.xlogy(weights, weights).sum(-1)
    found["distance"][head, rows] = (weights * (rows[:, None] - places).abs()).sum(-1)
    found["sink"][head, rows] = weights[:, 0]
    found["received"][head] += weights.sum(0)


def deviations(statistics: Any, query: Tensor, key: Tensor) -> dict[str, float]:
    """How far each statistic ``[batch, head, …]`` of a call is from the truth at most, over max(1, |truth|); what is
    no number is infinitely far.

    Args:
        statistics: has the four by name.
        query, key: of the same call, ``[batch, head, token, size]``, the query times the model's scaling.
    """
    worst = dict.fromkeys(STATISTICS, 0.0)
    for example in range(len(query)):
        for name, right in truth(query[example], key[example]).items():
            given = getattr(statistics, name)[example].detach().cpu().double()
            far = (given - right).abs() / right.abs().clamp(min=1)
            worst[name] = max(worst[name], float(far.nan_to_num(torch.inf).max()))
    return worst


def apart(output: Tensor, plain: Tensor) -> float:
    """How far two outputs are apart: 0 where every bit is the same, infinite where they cannot be compared."""
    if (output.shape, output.dtype) != (plain.shape, plain.dtype):
        return float("inf")
    if torch.equal(output, plain):
        return 0.0
    return float((output.double() - plain.double()).abs().nan_to_num(torch.inf).max())
