"""One call of an attention kernel as it ran, and where its rows and columns stand in their sequences."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

LOWEST = -1e30  # what lies below it is a mask's "never", whatever number a model writes for it


@dataclass(frozen=True, eq=False)
class Ran:
    """What a kernel was given, and what it gave.

    Attributes:
        query: ``[batch, head, query, size]``.
        key, value: ``[batch, key_value_head, key, size]``; head h reads key-value head h // (heads / key-value heads).
        output: ``[batch, query, head, size]``, as the model goes on with it.
        scale: what scores are multiplied by.
        mask: added to the scores; broadcasts to ``[batch, head, query, key]``; None: none.
        causal: row i sees keys 0 to i.
        lse: ``[batch, head, query]``, the log-sum-exp of each row as the kernel computed it; None where it kept it.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    scale: float
    mask: Tensor | None = None
    causal: bool = False
    lse: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        """The shape of the weights, ``[batch, head, query, key]``."""
        batch, heads, queries, _ = self.query.shape
        return torch.Size((batch, heads, queries, self.key.shape[2]))

    @property
    def never(self) -> float:
        """What lies below it in the mask is "never": half precision has no numbers below :data:`LOWEST`."""
        known = self.mask is not None and self.mask.is_floating_point()
        return max(LOWEST, torch.finfo(self.mask.dtype).min / 2) if known and self.mask is not None else LOWEST

    @property
    def group(self) -> int:
        """How many heads share a key-value head."""
        return self.query.shape[1] // self.key.shape[1]

    def mask_of(self, batch: int) -> Tensor:
        """The mask of one sequence of the batch, ``[head or 1, query or 1, key or 1]``; only where there is one."""
        assert self.mask is not None
        return self.mask[batch if len(self.mask) > 1 else 0]

    def unpacked(self, heads: int) -> "Ran":
        """The same with so many heads of one row each, where those that share a key stood as the rows of one head."""
        batch, packed, rows, _ = self.query.shape
        plain = self.mask is None or self.mask.shape[2] == 1 or self.mask.shape[1] == packed
        if packed * rows != heads or rows == 1 or self.causal or self.lse is None or not plain:
            return self
        mask = self.mask
        if mask is not None and mask.shape[2] > 1:
            mask = mask.reshape(len(mask), heads, 1, -1)
        elif mask is not None and mask.shape[1] > 1:
            mask = mask.repeat_interleave(rows, dim=1)
        query, lse = self.query.reshape(batch, heads, 1, -1), self.lse.reshape(batch, heads, 1)
        return replace(self, query=query, lse=lse, mask=mask)

    def masking(self, batch: int, head: int | slice, rows: slice | Tensor, keys: slice) -> Tensor | None:
        """The mask over some rows and keys ``[row, key]``, or ``[head or 1, row, key]`` of several; or None."""
        if self.mask is None:
            return None
        _, heads, queries, width = self.mask.shape
        one = self.mask_of(batch)[head if heads > 1 or isinstance(head, slice) else 0]
        one = one[..., rows, :] if queries > 1 else one.expand(*one.shape[:-2], _count(rows, self.shape[2]), -1)
        return one[..., keys] if width > 1 else one.expand(*one.shape[:-1], _count(keys, self.shape[3]))


def _count(chosen: slice | Tensor, of: int) -> int:
    return len(range(*chosen.indices(of))) if isinstance(chosen, slice) else len(chosen)


@dataclass(frozen=True, eq=False)
class Places:
    """Where rows and columns stand, each in its own sequence.

    Attributes:
        queries: ``[batch, query]``, the place of each row; -1 for padding.
        lengths: ``[batch, query]``, how long each sequence was after the forward pass in which a row ran.
        keys: ``[batch, key]``, the place of each column; -1 for padding and for what a cache has not filled yet.
        counted: ``[batch, query]``, the rows that sums over rows count: no padding, and each row once, even where a
            later pass reads it again.
        standing: whether rows stand on keys; in cross-attention they do not.
        tokens: ``[batch, place]``, the id of what stands at each place of the sequence that is looked at, also where a
            window has let go of it; -1 where that is not known, and behind its end. None where none is known, or nobody
            asked.
        prompt: ``[batch]``, how many places of each sequence are of its prompt, as far as it is read by this call; all
            of them where nothing is generated.
    """

    queries: Tensor
    lengths: Tensor
    keys: Tensor
    counted: Tensor
    standing: bool = True
    tokens: Tensor | None = None
    prompt: Tensor | None = None

    @property
    def prompts(self) -> Tensor:
        """``prompt``, or all places."""
        return self.ends if self.prompt is None else self.prompt

    @cached_property
    def ends(self) -> Tensor:
        """How long each sequence is after the call ``[batch]``."""
        return self.lengths.amax(1)

    @cached_property
    def padded(self) -> bool:
        """Whether any column is none of its sequence."""
        return bool((self.keys < 0).any())

    @cached_property
    def apart(self) -> Tensor:
        """How many places lie between each row and each column ``[batch, query, key]``; for calls that are small."""
        return (self.queries[:, :, None] - self.keys[:, None]).abs().float()

    def of(self, batch: int) -> "Places":
        """Those of one sequence."""
        one = slice(batch, batch + 1)
        tokens = None if self.tokens is None else self.tokens[one]
        queries, lengths, keys, counted = (t[one] for t in (self.queries, self.lengths, self.keys, self.counted))
        prompt = None if self.prompt is None else self.prompt[one]
        return Places(queries, lengths, keys, counted, self.standing, tokens, prompt)

    @cached_property
    def first(self) -> list[int]:
        """The column of each sequence's first place; -1 where a window has let go of it."""
        starts = self.keys == 0
        return [int(row.int().argmax()) if bool(row.any()) else -1 for row in starts]
