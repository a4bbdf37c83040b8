"""What one word looks at, or is looked at by, in one text; and over which words two such texts can be compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

from hf_attnviz import functional
from hf_attnviz.analysis.compared import Worded
from hf_attnviz.language import Text
from hf_attnviz.words import Words

OTHERS: Final = "(others)"
_MOST_NAMED: Final = 8

Name = tuple[str, int]


@dataclass(frozen=True, eq=False)
class Around:
    """One word in one text.

    Attributes:
        text: how the word reads.
        values: ``[layer, head, word]``: from it to each word, or from each word to it.
        words: the words at the other end.
        own: the word's own number among them; None where they are of another text (cross-attention).
        looks: True for what it looks at, False for who looks at it.
        pieces: of how many pieces it is made.
        choices: how many words, and how many pieces, its row may look at.
    """

    text: str
    values: torch.Tensor
    words: Words
    own: int | None
    looks: bool
    pieces: int
    choices: tuple[int, int]

    @classmethod
    def of(cls, worded: Worded, word: str, occurrence: int | None, direction: str) -> "Around":
        """Find the word and read its row or its column."""
        at, row, key = worded.at(word, occurrence, direction)
        looks = direction == "from"
        place, home, words, own = (row, at.rows, at.keys, key) if looks else (key, at.keys, at.rows, row)
        assert place is not None  # the word was looked for on this side
        values = at.weights[..., place, :] if looks else at.weights[..., place]
        choices = at.choices(place) if looks else (0, 0)
        return cls(home.texts[place], values, words, own, looks, len(home.groups[place]), choices)

    @property
    def names(self) -> list[Name]:
        """The words, told apart by text and number of occurrence; the word itself is called alike in every text."""
        return self.words.named(self.own)

    def label(self, name: Name) -> str:
        """How a word is written on a picture."""
        text, nth = name
        return (text or self.text) + (f" ({nth + 1})" if nth else "")

    def over(self, columns: Sequence[Name | None]) -> torch.Tensor:
        """The values over these words. None: all words that are not among them, their sum, or their mean where words
        look at this one. NaN: a word that is not there, and the mean over none."""
        names = self.names
        rest = self.values[..., [n for n, name in enumerate(names) if name not in columns]]
        pooled = rest.sum(-1) if self.looks else rest.mean(-1)
        missing = torch.full_like(pooled, torch.nan)
        return torch.stack(
            [
                pooled if name is None else self.values[..., names.index(name)] if name in names else missing
                for name in columns
            ],
            -1,
        )

    def statistics(self) -> dict[str, torch.Tensor]:
        """Numbers of its row, or what it receives from the other words on average: ``[layer, head]`` each."""
        if not self.looks:
            others = [n for n in range(len(self.words)) if n != self.own]
            return {"received": self.values[..., others].mean(-1)}
        special = torch.tensor(self.words.special)
        found = functional.row_statistics(self.values, own=self.own or 0, special=special, choices=self.choices[0])
        if self.own is None:
            found.pop("own_word")
        if not bool(special.any()):
            found.pop("special_tokens")
        return found

    def lonely(self, shared: Sequence[Name | None]) -> list[Name]:
        """The words that the other text does not have."""
        return [name for name in self.names if name not in shared]


def shared_words(first: Around, second: Around) -> list[Name]:
    """The words that both texts have, in the first one's order."""
    there = set(second.names)
    return [name for name in first.names if name in there]


def about_words(first: Around, second: Around, columns: Sequence[Name | None]) -> list[Text]:
    """Which words are pooled, and which are undefined on one side."""
    one, other = (_named([side.label(name) for name in side.lonely(columns)]) for side in (first, second))
    notes = []
    if None in columns:
        mean = ("", "") if first.looks else (", as a mean over them", "（取平均）")
        notes.append(
            Text(
                f"Words that only one text has stand together as {OTHERS}{mean[0]}: in the first {one or '–'}; in the "
                f"second {other or '–'}.",
                f"仅一侧才有的词合并为 {OTHERS}{mean[1]}：第一侧 {one or '–'}；第二侧 {other or '–'}。",
            )
        )
    elif first.lonely(second.names) or second.lonely(first.names):
        notes.append(
            Text(
                "A word that only one text has is undefined in the other, and so is its change.",
                "仅一侧才有的词，在另一侧及其变化都未定义。",
            )
        )
    if max(first.pieces, second.pieces) > 1:
        notes.append(
            Text(
                f"{first.text!r} is made of {first.pieces} and {second.pieces} pieces: weight to it is their sum, "
                "weight from it their mean.",
                f"“{first.text}”分别由 {first.pieces} 和 {second.pieces} 个词元组成："
                "流向它的权重取和，由它发出的取平均。",
            )
        )
    return notes


def about_rows(first: Around, second: Around) -> list[Text]:
    """What uniform attention would give."""
    if not first.looks:
        return [
            Text(
                "Each number is what a word gives to the chosen one; such a column sums to nothing in particular.",
                "每个数是某个词给予所选词的权重；这样一列的和没有特定值。",
            )
        ]
    one, other = (1 / side.choices[1] for side in (first, second))
    return [
        Text(
            f"Uniform attention would give each token {one:.3f} in the first text and {other:.3f} in the second.",
            f"若注意力均匀，第一侧每个词元得 {one:.3f}，第二侧得 {other:.3f}。",
        )
    ]


def about_statistics(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> list[Text]:
    """How much of the word's weight is parked on special tokens; why a number is undefined."""
    notes = []
    if "special_tokens" in before and "special_tokens" in after:
        one, other = (float(side["special_tokens"].nanmean()) for side in (before, after))
        notes.append(
            Text(
                f"On average over heads {one:.0%} of the word's weight lies on special tokens in the first text and "
                f"{other:.0%} in the second; without_special=True compares the rest.",
                f"各头平均，该词的权重在第一侧有 {one:.0%}、第二侧有 {other:.0%} 落在特殊词元上；"
                "without_special=True 只比较其余部分。",
            )
        )
    if any(bool(side["normalised_entropy"].isnan().all()) for side in (before, after) if "normalised_entropy" in side):
        notes.append(
            Text(
                "Normalised entropy is undefined where the word may look at itself alone.",
                "若该词只能看自己，归一化熵未定义。",
            )
        )
    return notes


def _named(words: Sequence[str]) -> str:
    more = f" … (+{len(words) - _MOST_NAMED})" if len(words) > _MOST_NAMED else ""
    return ", ".join(words[:_MOST_NAMED]) + more
