"""One sequence of a run: which passes it took part in, which row of them was its own, and what it read by then.

A beam's row is another one at every step; it is found by the tokens that it had read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any

import torch

from hf_attnviz.capturing.naming import Names
from hf_attnviz.capturing.positions import Positions
from hf_attnviz.capturing.runs import Pass, Run
from hf_attnviz.errors import CaptureError
from hf_attnviz.language import Text


@dataclass(eq=False)
class Reading:
    """One sequence of a run: its tokens, and where its rows stand in each pass."""

    run: Run
    number: int
    count: int
    each: int
    tokenizer: Any
    positions: Positions
    other: int = 0
    others: int = 1

    @property
    def item(self) -> int:
        """Which input this is a reading of."""
        return self.number // self.each

    @property
    def items(self) -> int:
        """How many inputs there were."""
        return self.count // self.each

    @cached_property
    def names(self) -> Names:
        """What stands at the positions."""
        return Names(self, self.positions)

    # ---- which passes, and which row of them

    @cached_property
    def prefill(self) -> Sequence[Pass]:
        """The forwards that read the prompt: the first, and those that read further chunks of it."""
        return self.run.prefill if self.run.generated is not None else self.run.prefill[:1]

    @cached_property
    def prompt(self) -> int:
        """How many positions the prompt has, padding included."""
        return self.run.prompt

    @cached_property
    def real_prompt(self) -> int:
        """How many positions the prompt has, without padding."""
        return sum(self.real(self.prompt))

    @cached_property
    def tokens(self) -> list[int] | None:
        """The tokens returned for this sequence, prompt first where tokens were the prompt; None for plain passes."""
        generated = self.run.generated
        if generated is None:
            return None
        returned: list[int] = generated.sequences[self.number].tolist()
        first = self.run.forwards[0].prefix
        if first is None or not self.run.forwards[0].has_all_tokens:
            return returned
        # A model's own generate() may strip the prompt off again: what the rows had read tells.
        start: list[int] = first[self.item * (len(first) // self.items)].tolist()
        if self.run.drafted_from is not None:
            start = start[: self.prompt]
            return returned if returned[: self.prompt] == start else start + returned
        return max(returned, start + returned, key=self._times_read)

    def _times_read(self, tokens: list[int]) -> int:
        """In how many passes some row had read just these tokens by then."""
        return sum(
            bool(self._rows_that_read(tokens, one.prefix)) for one in self.run.forwards if one.prefix is not None
        )

    def stands(self, one: Pass) -> int | None:
        """Before which place the rows of a pass stand in the returned sequence: after it are rejected drafts."""
        if self.run.drafted_from is None or self.tokens is None or one.prefix is None:
            return None
        read = zip(one.prefix[0].tolist(), self.tokens[:-1], strict=False)  # the last token was put out, never read
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], read))
        return sum(self.real(one.beyond + same))

    def _rows_that_read(self, tokens: list[int], prefix: torch.Tensor) -> list[int]:
        """The rows of this sequence's input, in a pass, that had read the beginning of ``tokens``."""
        width = len(prefix) // self.items
        if prefix.shape[1] > len(tokens):
            return []
        block = prefix[self.item * width : (self.item + 1) * width]
        return [int(n) for n in (block == torch.tensor(tokens[: prefix.shape[1]])).all(1).nonzero()[:, 0]]

    @cached_property
    def untold(self) -> int:
        """How many positions at the start have no token: embeddings, or a cache filled before, as by prefix tuning."""
        first = self.run.forwards[0].side
        if self.run.drafted_from is not None:
            return self.run.forwards[0].beyond  # what was read is no measure here: drafts may have been rejected
        if self.tokens is None or first.ids is None:
            read = max(one.side.past + (one.side.new or 0) for one in self.run.forwards)
            return first.past if self.tokens is None else max(0, read + 1 - len(self.tokens))
        row = first.ids[self.item * (len(first.ids) // self.items)].tolist()
        return first.past if first.past and row == self.tokens[: len(row)] else 0

    @cached_property
    def new_tokens(self) -> int:
        """How many tokens were put out for this sequence, its end token included, the filling after it not."""
        generated, tokens = self.run.generated, self.tokens
        assert generated is not None
        assert tokens is not None
        new = tokens[self.prompt - self.untold :]
        end = next((place + 1 for place, token in enumerate(new) if token in generated.ends), None)
        if end is not None:
            return end
        while new and generated.ends and new[-1] == generated.pad:  # nothing is filled up where nothing ends
            new.pop()
        return len(new)

    @cached_property
    def passes(self) -> Sequence[Pass]:
        """The forwards that this sequence took part in."""
        if self.run.generated is None:
            return self.run.forwards
        return self.run.forwards[: len(self.prefill) + max(self.new_tokens - 1, 0)]

    def row(self, one: Pass, batch: int, what: str) -> int:
        """The row of this sequence in a batch of a pass."""
        if batch == 1:
            return 0  # one image, one source for all
        if batch == self.others:
            return self.other
        if self.run.generated is None:
            if batch == self.count:
                return self.number
        elif one.step >= 0 and one.prefix is not None and batch == len(one.prefix):
            return self._row_by_prefix(one, one.prefix, what)
        elif batch == self.count:
            return self.number
        elif batch == self.items:
            return self.item
        raise CaptureError(
            Text(
                f"{what} has a batch of {batch}, and the run {self.count} sequences; they cannot be told apart. "
                "Pass one input at a time; the maps themselves are in recording.calls",
                f"{what} 的 batch 为 {batch}，而这次运行有 {self.count} 条序列；无法区分。"
                "请每次给一个输入；注意力图本身在 recording.calls 中",
            )
        )

    def _row_by_prefix(self, one: Pass, prefix: torch.Tensor, what: str) -> int:
        """The row that had read just this sequence by then: running beams are never alike, and change places."""
        width = len(prefix) // self.items
        own = self.number % self.each if width == self.each else 0
        if one in self.prefill:
            return self.item * width + own
        assert self.tokens is not None
        same = self._rows_that_read(self.tokens, prefix)
        if not same:
            raise CaptureError(
                Text(
                    f"{what}: no row of step {one.step} had read the sequence that was returned",
                    f"{what}：第 {one.step} 步没有哪一行读过所返回的序列",
                )
            )
        return self.item * width + (own if own in same else same[0])  # candidates still alike keep their own rows

    # ---- tokens

    @cached_property
    def ids(self) -> list[int | None] | None:
        """The tokens of the decoder (or only) side, padding dropped, with the last one put out; None where unknown."""
        known: list[int | None]
        if self.tokens is not None:
            known = [*[None] * self.untold, *self.tokens[: self.prompt - self.untold + self.new_tokens]]
        elif all(one.side.ids is not None and len(one.side.ids) in (1, self.count) for one in self.passes):
            rows = [
                one.side.ids[self.row(one, len(one.side.ids), "input_ids")]
                for one in self.passes
                if one.side.ids is not None
            ]
            known = [None] * self.untold + (torch.cat(rows) if self.passes[-1].side.past else rows[-1]).tolist()
        else:
            return None
        real = self.real(len(known))
        return [token for token, kept in zip(known, real, strict=True) if kept]

    def real(self, length: int) -> list[bool]:
        """Which of the positions read are no padding; positions after the mask are the tokens put out."""
        masks = [one for one in self.passes if one.side.mask is not None]
        if not masks:
            return [True] * length
        mask = masks[-1].side.mask
        assert mask is not None
        row: list[bool] = mask[self.row(masks[-1], len(mask), "attention_mask")].bool().tolist()
        return (row + [True] * length)[:length]

    def source_row(self, batch: int) -> int:
        """The row of this sequence's source in a batch of an encoder."""
        return self.item * (batch // self.items) if batch >= self.items else 0  # copies for beams stand together

    @cached_property
    def source_real(self) -> list[bool] | None:
        """Which positions of the encoder side are no padding; None when nothing says."""
        mask = self.run.source.mask
        return None if mask is None else mask[self.source_row(len(mask))].bool().tolist()
