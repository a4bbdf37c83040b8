"""How much of its attention a head gives to segments of the keys, and how much an even head would.

No source: a share of weight, the mean over rows. Steps: for each row the weight on each segment; the mean over all rows
that look at something.
"""

import torch
from torch import Tensor

from hf_attnviz.errors import ShapeError
from hf_attnviz.functional.bootstrap import Tally
from hf_attnviz.functional.checks import check_axes, upcast
from hf_attnviz.language import Text


def segment_mass(attention: Tensor, members: Tensor) -> Tensor:
    """The weight of each row of `attention` `[layer, batch, head, query, key]` on segments of the keys.

    members: Bool `[batch, key, segment]`, which key is of which. Gives `[layer, batch, head, query, segment]`. NaN: a
    row that has no weight, or holds NaN.

    >>> row = torch.tensor([0.5, 0.2, 0.3]).view(1, 1, 1, 1, 3)
    >>> segment_mass(row, torch.tensor([[[True, False], [False, True], [False, True]]])).flatten()
    tensor([0.5000, 0.5000])
    """
    check_axes(attention)
    if members.dim() != 3 or members.shape[:2] != (attention.shape[1], attention.shape[4]):
        raise ShapeError(
            Text(
                f"expected members [batch, key, segment] of this attention, got {tuple(members.shape)}",
                f"应为此注意力的 members [batch, key, segment]，得到 {tuple(members.shape)}",
            )
        )
    chosen = members.to(attention.device, torch.promote_types(attention.dtype, torch.float32))[:, None]
    found = torch.stack([upcast(layer) @ chosen for layer in attention])
    nothing = torch.stack([layer.sum(-1) == 0 for layer in attention])
    return found.masked_fill(nothing[..., None], torch.nan)


def mass_by_example(mass: Tensor, rows: Tensor) -> Tally:
    """The mean over `rows` `[batch, query]` of `mass` `[layer, batch, head, query, segment]`, to be pooled over
    examples: `[segment, layer, head]`. A row whose mass is NaN is left out."""
    counts = (rows[:, None, :, None] & ~mass.isnan()).to(mass.dtype)
    totals = mass.nan_to_num(0) * counts
    totals, counts = (one.sum(3).permute(1, 3, 0, 2) for one in (totals, counts))
    return Tally(totals, counts)
