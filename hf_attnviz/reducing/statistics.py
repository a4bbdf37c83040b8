"""Entropy, distance and sink of each row, and what each key receives: what most pictures of long inputs need."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hf_attnviz.axes import BATCH, HEAD, KEY, QUERY
from hf_attnviz.errors import ShapeError
from hf_attnviz.language import Text
from hf_attnviz.reduced import Reduced
from hf_attnviz.reducing.outline import Outline
from hf_attnviz.reducing.ran import Places
from hf_attnviz.reducing.tile import Sums, Tile

_ROWS = (BATCH, HEAD, QUERY)
_AT_ONCE = 2**22  # weights that are summed in one go; more of them batch row by batch row
AXES = {"entropy": _ROWS, "distance": _ROWS, "sink": _ROWS, "received": (BATCH, HEAD, KEY)}


@dataclass(frozen=True)
class Statistics:
    """Four numbers a head, without the matrix, at nearly the cost of a plain forward.

    ``entropy`` (nats), ``distance`` (mean places between a row and what it looks at; NaN in cross-attention) and
    ``sink`` (weight on the first valid key), each ``[head, query]``, NaN for rows that look at nothing; ``received``
    ``[head, key]``, the sum of each column over the rows that are no padding.
    """

    name: str = "statistics"
    needs: frozenset[str] = frozenset({"sums"})

    def update(self, state: Sums | None, tile: Tile) -> Sums:
        """Take the sums of a call."""
        assert tile.given is not None
        return tile.given

    def need(self, outline: Outline) -> int:
        """Bytes that a call of this outline will take."""
        return 4 * outline.heads * (3 * outline.queries + outline.keys)

    def result(self, state: Sums) -> Reduced:
        """The four, by name."""
        return Reduced({name: getattr(state, name) for name in AXES}, AXES)


def nowhere(found: Reduced) -> Reduced:
    """The same of rows that stand on no keys after all: in cross-attention there is no distance."""
    far = {"distance": torch.full_like(found.distance, torch.nan)}
    return replace(found, values={**found.values, **far})


def sums_of(weights: Tensor, places: Places, attending: Tensor | None = None) -> Sums:
    """The same sums of weights that stand whole in memory ``[batch, head, query, key]``: the slow way.

    attending: ``[batch or 1, head or 1, query]``, False for rows that may look at nothing; None: all may.

    Raises:
        ShapeError: a layout of the model's own.
    """
    if weights.dim() != 4:
        raise ShapeError(
            Text(
                f"expected weights [batch, head, query, key], got {tuple(weights.shape)}",
                f"应为权重 [batch, head, query, key]，得到 {tuple(weights.shape)}",
            )
        )
    if weights.numel() <= _AT_ONCE or len(weights) == 1:
        return _sums(weights, places, attending)
    of = [attending if attending is None or len(attending) == 1 else attending[b : b + 1] for b in range(len(weights))]
    each = [_sums(weights[b : b + 1], places.of(b), may) for b, may in enumerate(of)]
    return Sums(**{name: torch.cat([getattr(one, name) for one in each]) for name in vars(each[0])})


def _sums(weights: Tensor, places: Places, attending: Tensor | None) -> Sums:
    device = weights.device
    part = weights.float()
    if places.padded:  # what lies on padding is left out
        part = part.masked_fill((places.keys < 0).to(device)[:, None, None], 0)
    mass = part.sum(-1)
    attends = (places.queries >= 0).to(device)[:, None] & (mass > 0)
    attends = attends if attending is None else attends & attending
    nowhere = torch.full_like(mass, torch.nan)
    distance = (part * places.apart.to(device)[:, None]).sum(-1) if places.standing else nowhere
    first = torch.tensor(places.first, device=device)[:, None, None]
    sink = part.gather(-1, first.clamp(min=0).expand(*mass.shape)[..., None])[..., 0]
    rows = {"entropy": torch.special.entr(part).sum(-1), "distance": distance, "mass": mass}
    rows["sink"] = sink if min(places.first) >= 0 else sink.masked_fill(first < 0, 0)
    if not bool(attends.all()):
        rows = {name: values.masked_fill(~attends, torch.nan) for name, values in rows.items()}
    adds = (places.counted.to(device)[:, None] & attends).to(part)
    if bool(mass.isnan().any()):  # rows of padding may be no numbers, and zero times that is none either
        part = part.masked_fill(~attends[..., None], 0)
    return Sums(**rows, received=(adds[:, :, None] @ part)[:, :, 0])
