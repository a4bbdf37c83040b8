"""Attention between words instead of pieces, and without the keys on which it is merely parked.

Source: Clark et al., "What Does BERT Look At?" (2019), section 4.1; the arithmetic is that of :mod:`hf_attnviz.words`.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hf_attnviz.errors import ShapeError
from hf_attnviz.functional.checks import check_floating, upcast
from hf_attnviz.functional.entropy import entropy
from hf_attnviz.language import Text
from hf_attnviz.words import pooled, rescaled, word_groups

Words = Sequence[int | None]


def pool_words(attention: Tensor, words: Words, *, query_words: Words | None = None) -> Tensor:
    """Pieces pooled into words, `[..., query, key]` → `[..., query word, key word]`: keys summed, queries averaged.

    Args:
        words: the number of the word of each key, None for a position that is a unit by itself (special tokens).
        query_words: the same for the queries; default: `words`, for maps with the same tokens at both ends.

    Raises:
        ShapeError: not one entry a key (a query).

    >>> pool_words(torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.0, 1.0, 0.0]]), [0, 0, 1])
    tensor([[0.7500, 0.2500],
            [1.0000, 0.0000]])
    """
    check_floating(attention, "attention")
    query_words = words if query_words is None else query_words
    for name, given, axis in (("words", words, -1), ("query_words", query_words, -2)):
        if attention.ndim < 2 or len(given) != attention.shape[axis]:
            raise ShapeError(
                Text(
                    f"expected one entry of {name} a {'key' if axis == -1 else 'query'} of attention [..., query, "
                    f"key], got {len(given)} entries for sizes {tuple(attention.shape)}; None marks a token of no word",
                    f"{name} 应为注意力 [..., query, key] 的每个{'键' if axis == -1 else '查询'}各有一项，"
                    f"大小 {tuple(attention.shape)} 却得到 {len(given)} 项；不属于任何词的词元用 None",
                )
            )
    return pooled(upcast(attention), word_groups(query_words), word_groups(words))


def renormalised(attention: Tensor, left_out: Tensor) -> tuple[Tensor, Tensor]:
    """Rows without some keys, made to sum to one again: (`[..., key]` with zeros there, the share left out `[...]`).

    left_out: Bool `[key]`. NaN: a row that had nothing elsewhere.

    >>> renormalised(torch.tensor([0.5, 0.125, 0.375]), torch.tensor([True, False, False]))
    (tensor([0.0000, 0.2500, 0.7500]), tensor(0.5000))
    """
    check_floating(attention, "attention")
    if left_out.dtype != torch.bool or tuple(left_out.shape) != (attention.shape[-1],):
        raise ShapeError(
            Text(
                f"expected left_out of dtype torch.bool and shape {(attention.shape[-1],)}, one entry a key, got "
                f"{left_out.dtype} of shape {tuple(left_out.shape)}",
                f"left_out 的类型应为 torch.bool，形状应为 {(attention.shape[-1],)}，每个键一项，得到 "
                f"{left_out.dtype}，形状 {tuple(left_out.shape)}",
            )
        )
    return rescaled(upcast(attention), left_out)


def row_statistics(row: Tensor, *, own: int, special: Tensor, choices: int) -> dict[str, Tensor]:
    """What one word's row does, `row` `[..., word]` → `[...]` each.

    entropy (nats, over words), normalised_entropy (÷ ln choices), first_word (share on word 0), special_tokens (share),
    own_word (share on word `own`), confidence (the largest share). special: Bool `[word]`. choices: how many words the
    row may look at; with one alone normalised_entropy is NaN.
    """
    nats = entropy(row)
    return {
        "entropy": nats,
        "normalised_entropy": nats / math.log(choices) if choices > 1 else nats * math.nan,
        "first_word": row[..., 0],
        "special_tokens": row[..., special].sum(-1),
        "own_word": row[..., own],
        "confidence": row.amax(-1),
    }
