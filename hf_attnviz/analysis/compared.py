"""One of two traces that are compared: its weights, piece by piece and word by word, with what was left out."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from hf_attnviz.errors import ArgumentError, NotKeptError, ShapeError
from hf_attnviz.functional import pool_words, renormalised
from hf_attnviz.functional.checks import upcast
from hf_attnviz.labels import Labels
from hf_attnviz.language import Text, counted
from hf_attnviz.trace import Trace
from hf_attnviz.words import Words

MEAN = "mean"  # the label of the only layer and head of an average


@dataclass(frozen=True, eq=False)
class Side:
    """A stack of one trace, ready to be compared.

    Attributes:
        name: "the first text" or "the second text", for messages.
        weights: ``[layer, head, query, key]``.
        queries, keys: the labels of both ends.
        positions: the key on which each row stands; None for cross-attention.
        causal: no row looks ahead.
        layers, heads: what each layer and head is called.
        left_out: the share of all weight that lay on special tokens that were left out.
        stack: the stack's name.
    """

    name: Text
    weights: torch.Tensor
    queries: Labels
    keys: Labels
    positions: tuple[int, ...] | None
    causal: bool
    layers: tuple[str, ...]
    heads: tuple[str, ...]
    stack: str
    left_out: float = 0.0

    @property
    def name_of_rows(self) -> Text:
        """What its rows are called, where they are of another text than its keys."""
        return Text(f"{self.name.en} (its rows)", f"{self.name.zh}（其各行）")

    @classmethod
    def of(cls, name: Text, trace: Any, stack: str | None, *, average: bool, without_special: bool) -> "Side":
        """The side of one trace.

        Raises:
            ArgumentError: no trace.
        """
        if not isinstance(trace, Trace):
            came = type(trace).__name__
            raise ArgumentError(
                Text(
                    f"expected two traces, got {came} for {name.en}; compare(recording.traces[0], recording.traces[1])",
                    f"应为两个 trace，{name.zh} 处得到的是 {came}；compare(recording.traces[0], recording.traces[1])",
                )
            )
        chosen = trace.stack(stack)
        weights = upcast(chosen.stacked().detach().cpu())
        layers, heads = tuple(map(str, chosen.layers)), tuple(map(str, range(weights.shape[1])))
        if average:
            weights, layers, heads = weights.mean((0, 1), keepdim=True), (MEAN,), (MEAN,)
        causal = all(m.causal for m in chosen)
        positions = chosen.maps[0].positions
        whole = cls(name, weights, chosen.queries, chosen.keys, positions, causal, layers, heads, chosen.name)
        return whole._without_special() if without_special else whole

    @property
    def tokens(self) -> tuple[Any, ...]:
        """What must be equal for two maps to be compared cell by cell."""
        return self.queries.texts, self.keys.texts, self.positions

    @property
    def sentence(self) -> str:
        """The text that is looked at, short enough for a line."""
        words = Words.of(self.keys)
        text = " ".join(t for t, special in zip(words.texts, words.special, strict=True) if not special)
        return text if len(text) <= 60 else f"{text[:59]}…"

    def worded(self) -> "Worded":
        """This side with pieces pooled into words."""
        keys = Words.of(self.keys)
        return Worded(self, self._rows(keys) if self.positions is not None else Words.of(self.queries), keys)

    def _rows(self, keys: Words) -> Words:
        return keys.of_rows(self.positions or ())

    def _without_special(self) -> "Side":
        """Without special tokens at both ends; rows sum to what they summed to before, to one."""
        kept_keys = [n for n, special in enumerate(self.keys.special) if not special]
        kept_rows = [n for n, special in enumerate(self.queries.special) if not special]
        if not kept_keys or not kept_rows:
            raise ArgumentError(
                Text(
                    f"{self.name.en} has special tokens only; compare with without_special=False",
                    f"{self.name.zh} 只有特殊词元；请用 without_special=False 比较",
                )
            )
        special = torch.tensor(self.keys.special)
        weights, share = renormalised(self.weights[..., kept_rows, :], special)
        place = {key: n for n, key in enumerate(kept_keys)}
        return replace(
            self,
            weights=weights[..., kept_keys],
            queries=self.queries.at(kept_rows),
            keys=self.keys.at(kept_keys),
            positions=None if self.positions is None else tuple(place[self.positions[n]] for n in kept_rows),
            left_out=float(share.mean()),
        )


@dataclass(frozen=True, eq=False)
class Worded:
    """A side, word by word: ``rows`` and ``keys`` are the words of its queries and keys."""

    side: Side
    rows: Words
    keys: Words

    @property
    def weights(self) -> torch.Tensor:
        """``[layer, head, query word, key word]``."""
        return pool_words(self.side.weights, self.keys.numbers, query_words=self.rows.numbers)

    def at(self, word: str, occurrence: int | None, direction: str) -> tuple["Worded", int | None, int | None]:
        """This side with the word as one, and the word's number among the rows and among the keys, None where it is
        not there (cross-attention has two texts).

        Raises:
            UnknownNameError: no such word, or several.
            NotKeptError: the word has no row.
        """
        cross = self.side.positions is None
        if cross and direction == "from":
            start, stop = self.rows.find(word, occurrence, self.side.name_of_rows)
            return Worded(self.side, self.rows.merged(start, stop), self.keys), start, None
        start, stop = self.keys.find(word, occurrence, self.side.name)
        keys = self.keys.merged(start, stop)
        if cross:
            return Worded(self.side, self.rows, keys), None, start
        rows = self.side._rows(keys)
        own = next((n for n, group in enumerate(rows.groups) if self._stands(group[0]) in keys.groups[start]), None)
        if own is None and direction == "from":
            name = self.side.name
            raise NotKeptError(
                Text(
                    f'no row of {word!r} was kept of {name.en}: capture with keep="maps" and every query',
                    f'{name.zh} 没有保留 {word!r} 的行：请以 keep="maps" 捕获，保留每个查询',
                )
            )
        return Worded(self.side, rows, keys), own, start

    def choices(self, row: int) -> tuple[int, int]:
        """How many words, and how many pieces, a row's word may look at."""
        if not self.side.causal:
            return len(self.keys), len(self.side.keys)
        last = self._stands(self.rows.groups[row][-1])
        return sum(group[0] <= last for group in self.keys.groups), last + 1

    def _stands(self, row: int) -> int:
        return (self.side.positions or ())[row]


def refuse_other_heads(first: Side, second: Side) -> None:
    """Raise where the heads of one have no counterpart in the other."""
    if (first.layers, first.heads) == (second.layers, second.heads):
        return
    one, other = _sizes(first), _sizes(second)
    raise ShapeError(
        Text(
            f"the first trace has {one.en}, the second {other.en}: their heads have no counterparts. Compare "
            "traces of one architecture, captured with the same layers=…, or the means over all heads with "
            "average=True",
            f"第一个 trace 有 {one.zh}，第二个有 {other.zh}：两者的头无法对应。请比较同一结构、以相同 layers=… 捕获的 "
            "trace，或用 average=True 比较所有头的平均",
        )
    )


def _sizes(side: Side) -> Text:
    layers, heads, first, last = len(side.layers), len(side.heads), side.layers[0], side.layers[-1]
    return Text(
        f"{counted(layers, 'layer')} ({first} to {last}) of {counted(heads, 'head')}",
        f"{layers:,} 层（{first} 到 {last}），每层 {heads:,} 个头",
    )
