"""The two texts that an alignment joins: which rows and columns of a map stand for which tokens, and their words."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hf_attnviz.analysis.steps import producing_rows
from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.errors import ArgumentError, NotKeptError, UnknownNameError, listed
from hf_attnviz.language import Text
from hf_attnviz.trace import Trace
from hf_attnviz.words import END_MARKS, goes_on, piece

_ALIGNMENT: Final = Text("alignment", "对齐")
READS: Final = ("output", "reading")
_TIME_MARK = re.compile(r"<\|\d+\.\d+\|>")  # Whisper's; written like words, but no words


@dataclass(frozen=True)
class Side:
    """Tokens of one text, in order.

    Attributes:
        places: the row or column of the map that stands for each.
        texts: what a person reads.
        words: the number of the word each belongs to; None where that is not known, and for special tokens.
        special: True for what is no text: marks of beginning, end, time.
    """

    places: tuple[int, ...]
    texts: tuple[str, ...]
    words: tuple[int | None, ...]
    special: tuple[bool, ...]

    def text_only(self) -> "Side":
        """Without the special tokens."""
        return self._at([n for n, special in enumerate(self.special) if not special])

    def from_text_on(self) -> "Side":
        """Without the special tokens before the text."""
        begins = self.special.index(False) if False in self.special else 0
        return self._at(range(begins, len(self.special)))

    def _at(self, kept: Sequence[int]) -> "Side":
        return Side(
            tuple(self.places[n] for n in kept),
            tuple(self.texts[n] for n in kept),
            tuple(self.words[n] for n in kept),
            tuple(self.special[n] for n in kept),
        )

    @property
    def word_numbers(self) -> list[int]:
        """The word of each token, counted 0, 1, 2 …; a token whose word is not known is a word of its own, unless it
        goes on with a character of the token before."""
        numbers: list[int] = []
        before: int | None = None
        for text, word in zip(self.texts, self.words, strict=True):
            same = bool(numbers) and (word == before if word is not None else goes_on(text))
            numbers.append((numbers[-1] if numbers else -1) + (not same))
            before = word
        return numbers

    @property
    def word_texts(self) -> tuple[str, ...]:
        """The text of each word, its tokens joined; a character that was split over tokens stands there once."""
        numbers = self.word_numbers
        words = [
            "".join(piece(text) for text, number in zip(self.texts, numbers, strict=True) if number == word)
            for word in range(len(set(numbers)))
        ]
        return tuple(word.strip("␣") or word for word in words)  # a space that is a token of its own


def target_side(trace: Trace, one: AttentionMap, read: str) -> Side:
    """The tokens of the text that the decoder wrote (or was given), each with the row that stands for it.

    read: "output", the row that put out the token; "reading", the row that read it. The last token of a generation
    was never read. Of a plain pass, the row before a token is the one that would put it out, and the first token,
    which none precedes, is left out.

    Raises:
        UnknownNameError: another word for ``read``.
        NotKeptError: rows that ``keep`` left out.
        ArgumentError: no token at all.
    """
    if read not in READS:
        raise UnknownNameError(
            Text(
                f"expected read to be one of {listed(READS)}; got {read!r}; pick one of the list",
                f"read 应为 {listed(READS)} 之一；得到 {read!r}；请从中选择",
            )
        )
    rows = _plain_rows(trace, one) if one.produced is None else producing_rows(one, _ALIGNMENT)
    if one.produced is None:
        rows = rows[:-1]  # nothing after the last row says what it would put out
    pairs = [(n, n + 1) for n in rows] if read == "output" else [(n + 1, n + 1) for n in rows]
    pairs = [(row, token) for row, token in pairs if row < len(one.queries)]
    if not pairs:
        raise ArgumentError(
            Text(
                f"expected at least one token to align by its {read} row, got none; generate more, or "
                f"read={'output' if read == 'reading' else 'reading'!r}",
                f"应至少有一个词元可由其 {read} 行对齐，得到零个；请多生成一些，或用 "
                f"read={'output' if read == 'reading' else 'reading'!r}",
            )
        )
    return _tokens(trace, one, pairs)


def source_side(one: AttentionMap) -> Side:
    """The tokens of the text that was looked at: all keys of cross-attention; the prompt, in self-attention."""
    end = len(one.keys)
    if one.kind != "cross":
        if one.produced is None or one.positions is None:
            raise ArgumentError(
                Text(
                    "an alignment joins two texts: expected cross-attention, or a generation, whose prompt is the "
                    f"source; got self-attention of the stack {one.stack!r} in a plain pass",
                    f"对齐连接两段文本：应为交叉注意力，或一次生成（以提示为源）；得到的是堆栈 {one.stack!r} "
                    "在普通前向中的自注意力",
                )
            )
        end = one.positions[producing_rows(one, _ALIGNMENT)[0]] + 1
    keys, places = one.keys[:end], tuple(range(end))
    return Side(places, keys.texts, keys.words, tuple(map(_special, keys.texts, keys.special)))


def _plain_rows(trace: Trace, one: AttentionMap) -> list[int]:
    own = trace.stacks.get(one.stack)
    if own is not None and len(own.keys) != len(one.queries):
        raise NotKeptError(
            Text(
                f"alignment needs the row of every token; {one.module or one.stack} holds {len(one.queries)} of "
                f'{len(own.keys)}: capture with keep="maps"',
                f"对齐需要每个词元的行；{one.module or one.stack} 有 {len(own.keys)} 行，只保留了 {len(one.queries)} "
                "行："
                '请以 keep="maps" 捕获',
            )
        )
    return list(range(len(one.queries)))


def _tokens(trace: Trace, one: AttentionMap, pairs: Sequence[tuple[int, int]]) -> Side:
    """What was put out last was never read: nothing but its text is known, and that the other text may know it too."""
    labels, produced = one.queries, one.produced or ()
    known = {text for m in trace.maps for ends in (m.queries, m.keys) for text in _specials(ends.texts, ends.special)}
    texts, words, special = [], [], []
    for _, token in pairs:
        read = token < len(labels)
        texts.append(labels.texts[token] if read else produced[token - 1] or "")
        words.append(labels.words[token] if read else None)
        marked = labels.special[token] if read else texts[-1] in known | END_MARKS
        special.append(_special(texts[-1], marked))
    return Side(tuple(row for row, _ in pairs), tuple(texts), tuple(words), tuple(special))


def _specials(texts: Sequence[str], special: Sequence[bool]) -> list[str]:
    return [text for text, marked in zip(texts, special, strict=True) if marked]


def _special(text: str, marked: bool) -> bool:
    return marked or _TIME_MARK.fullmatch(text) is not None
