"""Does a head look back to what came after, or stood at, an earlier copy of the token?

Source: Olsson et al., "In-context Learning and Induction Heads" (2022), key concepts ("prefix matching") and appendix;
duplicate-token heads after Wang et al., "Interpretability in the Wild" (2022), section 3. "stripe" is the diagonal of a
sequence repeated with period P, "mul" the share of the whole pattern that lies on the cells, both common in code.
"""

import torch
from torch import Tensor

from hf_attnviz.errors import ArgumentError, ShapeError
from hf_attnviz.functional.checks import check_axes, check_mask, check_name, check_square, upcast
from hf_attnviz.language import Text

DEFINITIONS = ("all_copies", "stripe", "mul")


def induction_score(
    attention: Tensor,
    tokens: Tensor,
    *,
    definition: str = "all_copies",
    period: int | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """Weight on the token after an earlier copy, in `attention` `[layer, batch, head, query, key]` over `tokens`.

    tokens: the ids the model read, `[batch, position]`.

    - "all_copies" → `[layer, batch, head, query]`: Σ of A[i, j+1] over all j < i with the token of i;
    - "stripe" → the same shape: A[i, j+1] for one copy only, the nearest, or with `period` P the one at j = i − P;
    - "mul" → `[layer, batch, head]`: the weight on the cells of "all_copies" over the weight of the whole map.

    A token that repeats its neighbour (j = i − 1) counts its weight on itself. valid: Bool `[batch, position]`; padding
    is no copy. NaN: no such copy (for "mul", none in the whole example). Raises UnknownNameError for other definitions.

    >>> attention = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0.9, 0.1, 0], [0, 0, 1, 0]]).view(1, 1, 1, 4, 4)
    >>> induction_score(attention, torch.tensor([[7, 8, 7, 8]]))
    tensor([[[[   nan,    nan, 0.9000, 1.0000]]]])
    """
    real = _real(attention, tokens, valid)
    cells = induction_cells(tokens.to(attention.device), definition=definition, period=period, valid=real)
    if definition == "mul":
        block = real[:, :, None] & real[:, None, :]
        share = _weight_on(attention, cells).sum(-1) / _weight_on(attention, block).sum(-1)
        return share.masked_fill(~cells.any(-1).any(-1)[:, None], torch.nan)
    return _weight_on(attention, cells).masked_fill(~cells.any(-1)[:, None], torch.nan)


def duplicate_token_score(attention: Tensor, tokens: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Weight on earlier copies of the token itself, Σ of A[i, j] over j < i: `[layer, batch, head, query]`.

    Arguments and NaN as in `induction_score` with "all_copies".
    """
    real = _real(attention, tokens, valid)
    copies = copy_cells(tokens.to(attention.device), real)
    return _weight_on(attention, copies).masked_fill(~copies.any(-1)[:, None], torch.nan)


def copy_cells(tokens: Tensor, valid: Tensor) -> Tensor:
    """The cells (position, earlier position with the same of `tokens` `[batch, position]`): Bool `[batch, i, j]`."""
    same = (tokens[:, :, None] == tokens[:, None, :]) & valid[:, :, None] & valid[:, None, :]
    return same.tril(-1)


def induction_cells(
    tokens: Tensor, *, valid: Tensor, definition: str = "all_copies", period: int | None = None
) -> Tensor:
    """The cells whose weight `induction_score` adds up: Bool `[batch, i, j + 1]`; those of "mul" as of "all_copies"."""
    check_name(definition, "definition", DEFINITIONS)
    if period is not None and (definition != "stripe" or period < 1):
        raise ArgumentError(
            Text(
                f"expected a period of 1 or more, and only with definition='stripe', got {period} with {definition!r}; "
                "leave it out",
                f"period 应为 1 或更大，且只用于 definition='stripe'，得到 {period} 与 {definition!r}；请不要给它",
            )
        )
    copies = copy_cells(tokens, valid)
    if period is not None:
        places = torch.arange(copies.shape[-1], device=copies.device)
        copies = copies & (places[:, None] - places == period)
    elif definition == "stripe":
        copies = copies & (copies.flip(-1).cumsum(-1).flip(-1) == 1)
    return copies.roll(1, -1)  # nothing wraps around: the last key is no copy before any query


def _real(attention: Tensor, tokens: Tensor, valid: Tensor | None) -> Tensor:
    """The real tokens `[batch, position]`, once all arguments are known to fit."""
    check_axes(attention)
    check_square(attention, Text("a copy", "副本"))
    _, batch, _, _, length = attention.shape
    check_tokens(tokens, batch, length)
    return check_mask(valid, "valid", batch, length, attention.device)


def check_tokens(tokens: Tensor, batch: int, length: int) -> None:
    """Raise unless `tokens` are ids, one a position."""
    if tokens.is_floating_point() or tuple(tokens.shape) != (batch, length):
        raise ShapeError(
            Text(
                f"expected integer tokens of shape {(batch, length)}, got {tokens.dtype} of {tuple(tokens.shape)}; "
                "pass the ids the model read, one row an example",
                f"应为整数 tokens，形状 {(batch, length)}，得到 {tokens.dtype} 的 {tuple(tokens.shape)}；"
                "请传入模型所读的编号，每个样本一行",
            )
        )


def _weight_on(attention: Tensor, cells: Tensor) -> Tensor:
    """The weight of each row on its `cells` `[batch, query, key]`: `[layer, batch, head, query]`."""
    return torch.stack([upcast(layer).masked_fill(~cells[:, None], 0).sum(-1) for layer in attention])
