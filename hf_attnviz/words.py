"""The words of a text: which positions make up each, how it reads, and what a map is when pieces are pooled into words.

Weight *to* a split word is the sum over its pieces, weight *from* it the mean over its pieces, so that rows that summed
to one still do: Clark et al., "What Does BERT Look At?" (2019), section 4.1.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

from hf_attnviz.errors import UnknownNameError, listed
from hf_attnviz.labels import Labels
from hf_attnviz.language import Text, counted

END_MARKS: Final = frozenset(
    {"</s>", "<s>", "<pad>", "<eos>", "[SEP]", "[EOS]", "[PAD]", "<|endoftext|>", "<|im_end|>", "<|eot_id|>"}
)
_TAIL = re.compile(r"^.{1,32}?⟨(?:[2-9]|\d\d+)/\d+⟩", re.DOTALL)  # a character that began in the piece before
_HEAD = re.compile(r"⟨1/\d+⟩$")


@dataclass(frozen=True)
class Words:
    """The words of one side of a map; a special token, a patch or a frame is one by itself.

    Attributes:
        groups: the positions of each word, in order.
        texts: how each word reads, its pieces joined.
        special: True for a special token.
    """

    groups: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]
    special: tuple[bool, ...]

    @classmethod
    def of(cls, labels: Labels) -> "Words":
        """The words of these labels, as :attr:`Labels.words` numbers them."""
        groups = tuple(map(tuple, word_groups(labels.words)))
        texts = tuple("".join(piece(labels.texts[i]) for i in group) for group in groups)
        return cls(groups, texts, tuple(all(labels.special[i] for i in group) for group in groups))

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def numbers(self) -> list[int]:
        """The number of the word at each position."""
        return [n for _, n in sorted((place, n) for n, group in enumerate(self.groups) for place in group)]

    def named(self, chosen: int | None = None) -> list[tuple[str, int]]:
        """Each word as its text and how many of the same text stand before it; the chosen one is ``("", 0)``."""
        seen: Counter[str] = Counter()
        names = []
        for number, text in enumerate(self.texts):
            names.append(("", 0) if number == chosen else (text, seen[text]))
            seen[names[-1][0]] += 1
        return names

    def of_rows(self, positions: Sequence[int]) -> "Words":
        """The rows of self-attention, each belonging to the word of the key on which it stands."""
        number = self.numbers
        rows = [number[place] for place in positions]
        kept = sorted(set(rows))
        groups = tuple(tuple(row for row, n in enumerate(rows) if n == one) for one in kept)
        return Words(groups, tuple(self.texts[n] for n in kept), tuple(self.special[n] for n in kept))

    def find(self, wanted: str, occurrence: int | None, where: Text) -> tuple[int, int]:
        """Where a word begins and ends among the words; it may span several (each Han character is its own word).

        Case counts, unless the word stands nowhere in the case given.

        Args:
            wanted: the word; white space in it is ignored.
            occurrence: which of several, from 0; None where there is only one.
            where: the text's name, for the message.

        Raises:
            UnknownNameError: it stands nowhere, or several times and no occurrence was named.
        """
        joined = "".join(wanted.split())
        runs = self._runs(joined, self.texts) or self._runs(joined.casefold(), [t.casefold() for t in self.texts])
        if not runs:
            raise UnknownNameError(
                Text(
                    f"{where.en} has no word {wanted!r}; it has: {listed(self.texts)}",
                    f"{where.zh}中没有词 {wanted!r}；它有：{listed(self.texts, '无')}",
                )
            )
        if occurrence is None and len(runs) == 1:
            return runs[0]
        if occurrence is not None and 0 <= occurrence < len(runs):
            return runs[occurrence]
        places = listed(f"{n}: {self._around(*run)}" for n, run in enumerate(runs))
        asked = None if occurrence is None else Text(f", no occurrence {occurrence}", f"，没有第 {occurrence} 次")
        raise UnknownNameError(
            Text(
                f"{where.en} has {wanted!r} {counted(len(runs), 'time')}{asked.en if asked else ''}; choose with "
                f"occurrence=… (a pair for the first and the second text): {places}",
                f"{where.zh}中有 {len(runs)} 处 {wanted!r}{asked.zh if asked else ''}；"
                f"请用 occurrence=… 选定（两段文本各一个时给一对）：{places}",
            )
        )

    def merged(self, start: int, stop: int) -> "Words":
        """The words ``start <= n < stop`` as one."""
        middle = slice(start, stop)
        together = tuple(place for group in self.groups[middle] for place in group)
        return Words(
            (*self.groups[:start], together, *self.groups[stop:]),
            (*self.texts[:start], "".join(self.texts[middle]), *self.texts[stop:]),
            (*self.special[:start], all(self.special[middle]), *self.special[stop:]),
        )

    def _runs(self, wanted: str, texts: Sequence[str]) -> list[tuple[int, int]]:
        runs = []
        for start in range(len(texts)):
            read, stop = "", start
            while stop < len(texts) and len(read) < len(wanted) and wanted.startswith(read):
                read += texts[stop]
                stop += 1
            if wanted and read == wanted:
                runs.append((start, stop))
        return runs

    def _around(self, start: int, stop: int) -> str:
        before, after = self.texts[max(0, start - 2) : start], self.texts[stop : stop + 2]
        return " ".join([*before, f"»{''.join(self.texts[start:stop])}«", *after])


def word_groups(words: Sequence[int | None]) -> list[list[int]]:
    """The positions of each word, in the order in which words begin; a position of no word (None) stands alone.

    >>> word_groups([None, 0, 0, 1, None])
    [[0], [1, 2], [3], [4]]
    """
    groups: dict[tuple[str, int], list[int]] = {}
    for place, word in enumerate(words):
        groups.setdefault(("no word", place) if word is None else ("word", word), []).append(place)
    return list(groups.values())


def pooled(weights: torch.Tensor, rows: Sequence[Sequence[int]], keys: Sequence[Sequence[int]]) -> torch.Tensor:
    """Groups of places instead of places, ``[..., query, key]``: keys summed, queries averaged."""
    summed = torch.stack([weights[..., list(group)].sum(-1) for group in keys], -1)
    return torch.stack([summed[..., list(group), :].mean(-2) for group in rows], -2)


def rescaled(weights: torch.Tensor, left_out: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows without some keys (bool ``[key]``) that sum to one again, zeros there, and the share left out ``[...]``."""
    kept = weights.masked_fill(left_out, 0)
    return kept / kept.sum(-1, keepdim=True), weights[..., left_out].sum(-1)


def goes_on(text: str) -> bool:
    """Whether a piece goes on with a character that began in the piece before."""
    return _TAIL.match(text) is not None


def piece(text: str) -> str:
    """A piece without the marks of a character that is split over several; its first piece keeps the character."""
    return _HEAD.sub("", _TAIL.sub("", text))
