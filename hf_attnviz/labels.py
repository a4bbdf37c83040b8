"""Labels of one side of an attention map: what a person reads at each position, and what belongs together.

A tokenizer's pieces are bytes in disguise (``Ġ``, ``▁``, ``##``, ``<0xE5>``). They are turned back into bytes,
joined, and decoded over the piece boundaries, so that a character split over pieces is still recognised.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, overload

from hf_attnviz.errors import ArgumentError, ShapeError
from hf_attnviz.language import Text

SEGMENT_KINDS: Final = frozenset({"text", "patch", "frame", "special", "latent"})

_BYTE_FALLBACK = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_VISIBLE_SPACE = str.maketrans({"\n": "↵", "\r": "↵", "\t": "⇥"})
# Flags are two letters; joiners, skin tones and tags belong to what stands before them; a joiner binds two emoji.
_JOINED = re.compile(
    "[\U0001f1e6-\U0001f1ff]{2}"
    "|.+[\u200c\u200d\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]"
    "|.+\u200d[\u2190-\u2bff\U0001f000-\U0001faff]",
    re.DOTALL,
)
_LONGEST_CHARACTER: Final = 32  # each piece of a character shows all of it: a heap of accents must not grow as n²


@dataclass(frozen=True)
class Segment:
    """A run of positions of one kind.

    Attributes:
        kind: ``"text"``, ``"patch"``, ``"frame"``, ``"special"`` or ``"latent"``.
        start, stop: the positions ``start <= i < stop``.
        grid: rows and columns of the picture that image patches are cut from, else None.
        seconds: where an audio segment begins and ends, else None.
        part: which of several it belongs to (the first or second text of a pair, which picture or tile, which frame
            of a video), from 0; None where there is only one, or where that cannot be told.
    """

    kind: str
    start: int
    stop: int
    grid: tuple[int, int] | None = None
    seconds: tuple[float, float] | None = None
    part: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in SEGMENT_KINDS:
            raise ArgumentError(
                Text(
                    f"unknown segment kind {self.kind!r}; known: {', '.join(sorted(SEGMENT_KINDS))}",
                    f"未知的片段种类 {self.kind!r}；可用：{', '.join(sorted(SEGMENT_KINDS))}",
                )
            )

    def at(self, place: int) -> "Segment":
        """This segment cut down to one of its positions, with the seconds of that one."""
        seconds = self.seconds
        if seconds is not None:
            step = (seconds[1] - seconds[0]) / (self.stop - self.start)
            begin = seconds[0] + step * (place - self.start)
            seconds = (begin, begin + step)
        return replace(self, start=place, stop=place + 1, seconds=seconds)

    def _goes_on(self, other: "Segment") -> bool:
        """Whether ``other`` is the same run, going on after this one."""
        alike = (self.kind, self.grid, self.part) == (other.kind, other.grid, other.part)
        if not alike or self.seconds is None or other.seconds is None:
            return alike and self.seconds is other.seconds
        return math.isclose(self.seconds[1], other.seconds[0], abs_tol=1e-6)


@dataclass(frozen=True)
class Labels:
    """The positions of one side of a map.

    Attributes:
        texts: what a person reads at each position.
        ids: the token id, or None where there is none (image patches, unknown past).
        words: the number of the word each position belongs to, or None (special tokens).
        segments: runs of one kind, in order, covering every position.
        cells: row and column of each image patch in its grid (see :class:`Segment`), None elsewhere; None as a whole
            where there are no patches.
    """

    texts: tuple[str, ...]
    ids: tuple[int | None, ...]
    words: tuple[int | None, ...]
    segments: tuple[Segment, ...]
    cells: tuple[tuple[int, int] | None, ...] | None = None

    def __post_init__(self) -> None:
        given = [self.texts, self.ids, self.words, *([] if self.cells is None else [self.cells])]
        if len({len(one) for one in given}) > 1:
            raise ShapeError(
                Text(
                    "labels need one text, id, word and cell a position; got "
                    + ", ".join(str(len(one)) for one in given),
                    "标签应为每个位置各有一个文本、编号、词和格子；得到的个数为 "
                    + ", ".join(str(len(one)) for one in given),
                )
            )

    @classmethod
    def plain(cls, texts: Iterable[str], kind: str = "text") -> "Labels":
        """Labels from texts alone, each its own word."""
        found = tuple(texts)
        segments = (Segment(kind, 0, len(found)),) if found else ()
        return cls(found, (None,) * len(found), tuple(range(len(found))), segments)

    @classmethod
    def of(
        cls,
        texts: Sequence[str],
        ids: Sequence[int | None],
        words: Sequence[int | None],
        kinds: Sequence[str | Segment],
        cells: Sequence[tuple[int, int] | None] = (),
    ) -> "Labels":
        """Labels from a kind, or a segment of length one, for each position; runs of one kind become a segment."""
        segments: list[Segment] = []
        for i, kind in enumerate(kinds):
            one = Segment(kind, i, i + 1) if isinstance(kind, str) else replace(kind, start=i, stop=i + 1)
            if segments and segments[-1]._goes_on(one):
                begin = segments.pop()
                seconds = one.seconds and begin.seconds and (begin.seconds[0], one.seconds[1])
                one = replace(begin, stop=i + 1, seconds=seconds)
            segments.append(one)
        known = tuple(cells) if any(cell is not None for cell in cells) else None
        return cls(tuple(texts), tuple(ids), tuple(words), tuple(segments), known)

    @classmethod
    def joined(cls, parts: Iterable["Labels"]) -> "Labels":
        """Labels one after another; words are counted on."""
        several = [part for part in parts if len(part)]
        words: list[int | None] = []
        first = 0
        for part in several:
            words += [None if word is None else word + first for word in part.words]
            first = max((word + 1 for word in words if word is not None), default=first)
        return cls.of(
            [text for part in several for text in part.texts],
            [number for part in several for number in part.ids],
            words,
            [mark for part in several for mark in part.marks],
            [cell for part in several for cell in part.cells or (None,) * len(part)],
        )

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> "Labels": ...
    def __getitem__(self, place: int | slice) -> "str | Labels":
        if isinstance(place, slice):
            return self.at(range(*place.indices(len(self))))
        return self.texts[place]

    def at(self, places: Sequence[int]) -> "Labels":
        """The labels of chosen positions, in the order given."""
        if len(places) == len(self) and all(n == place for n, place in enumerate(places)):
            return self
        marks = self.marks
        return Labels.of(
            [self.texts[i] for i in places],
            [self.ids[i] for i in places],
            [self.words[i] for i in places],
            [marks[i] for i in places],
            [self.cells[i] for i in places] if self.cells is not None else (),
        )

    @cached_property
    def marks(self) -> tuple[Segment, ...]:
        """The segment of each position, cut down to that position."""
        marks = [Segment("text", i, i + 1) for i in range(len(self))]
        for segment in self.segments:
            for i in range(max(0, segment.start), min(segment.stop, len(self))):
                marks[i] = segment.at(i)
        return tuple(marks)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of each position."""
        return tuple(mark.kind for mark in self.marks)

    @property
    def parts(self) -> tuple[int | None, ...]:
        """Which of several texts, pictures or video frames each position belongs to; None where it is of none."""
        return tuple(mark.part for mark in self.marks)

    @property
    def seconds(self) -> tuple[tuple[float, float] | None, ...]:
        """Where the sound of each position begins and ends; None where it is no sound, or its place is not known."""
        return tuple(mark.seconds for mark in self.marks)

    @property
    def special(self) -> tuple[bool, ...]:
        """True where the position is a special token (``[CLS]``, ``</s>`` …)."""
        return tuple(kind == "special" for kind in self.kinds)


def label_tokens(ids: Sequence[int], tokenizer: Any) -> Labels:
    """Labels of token ids, read through a Hugging Face tokenizer; without one the texts are the ids.

    ``texts`` hold no marker of the tokenizer: a space before a word is dropped, a piece of white space is shown
    (``␣``, ``↵``, ``⇥``), a character split over several pieces reads ``吃⟨1/3⟩``; a letter with its accents, a flag
    and a joined emoji are one character. Each Han character is its own word unless one piece holds several; else
    words are runs of letters and digits, as white space and punctuation part them. The unknown token is a word.
    """
    numbers = [int(i) for i in ids]
    if tokenizer is None:
        return replace(Labels.plain(map(str, numbers)), ids=tuple(numbers))
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = _special_ids(tokenizer, added)
    tokens = [token if isinstance(token, str) else "" for token in tokenizer.convert_ids_to_tokens(numbers)]
    # The tokenizer names an added token as its normalizer leaves it; its own content is what was added.
    tokens = [added[i].content if i in added else token for i, token in zip(numbers, tokens, strict=True)]
    spell = _speller(tokenizer)
    kinds = ["special" if number in special else "text" for number in numbers]
    texts: list[str] = list(tokens)
    words: list[int | None] = [None] * len(tokens)
    next_word = 0
    for run in _runs(kinds):
        pieces = [spell(tokens[i], numbers[i] in added) for i in run]
        for i, text in zip(run, _readable([piece for piece, _ in pieces]), strict=True):
            texts[i] = text or f"⟨{numbers[i]}⟩"
        for i, begins in zip(run, _word_starts(pieces), strict=True):
            next_word += begins
            words[i] = next_word - 1
    return Labels.of(texts, numbers, words, kinds)


def _runs(kinds: Sequence[str]) -> list[range]:
    runs, start = [], 0
    for i in range(len(kinds) + 1):
        if i == len(kinds) or kinds[i] != "text":
            if i > start:
                runs.append(range(start, i))
            start = i + 1
    return runs


def _special_ids(tokenizer: Any, added: Mapping[int, Any]) -> set[int]:
    """The ids that are no text: those with a role, and added ones that say so (``<|im_start|>`` has no role).

    The unknown token stands where a word stood, so it is text, unless it has a second role as GPT-2's has.
    """
    special = set(getattr(tokenizer, "all_special_ids", ())) | {i for i, token in added.items() if token.special}
    unknown = getattr(tokenizer, "unk_token_id", None)
    roles = ("bos", "eos", "sep", "pad", "cls", "mask")
    if all(getattr(tokenizer, f"{role}_token_id", None) != unknown for role in roles):
        special.discard(unknown)
    return special


def _speller(tokenizer: Any) -> Callable[[str, bool], tuple[bytes, bool]]:
    """A function from a piece, and whether it was added, to its bytes and whether it continues the word before it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    model = getattr(backend, "model", None)
    machinery = _described(getattr(backend, "decoder", None)) + _described(getattr(backend, "pre_tokenizer", None))
    suffix = getattr(model, "end_of_word_suffix", None) or ""
    byte_level = "ByteLevel" in machinery or hasattr(tokenizer, "byte_decoder")
    slow = hasattr(tokenizer, "wordpiece_tokenizer")  # written in Python, as TAPAS' is
    word_piece = slow or type(model).__name__ == "WordPiece"
    prefix = "##" if slow else (getattr(model, "continuing_subword_prefix", None) or "") if word_piece else ""
    spaced = word_piece or type(model).__name__ == "WordLevel"  # such pieces are parted by spaces unless marked

    def spell(piece: str, added: bool) -> tuple[bytes, bool]:
        if added:  # written as it is read, but for Gemma's runs of spaces
            text = piece if piece.strip("▁") else " " * len(piece)
            return text.encode("utf-8", "replace"), not spaced
        text = piece.removesuffix(suffix)
        end = b"" if text == piece else b" "  # CLIP marks the space after a word, not the one before it
        fallback = _BYTE_FALLBACK.fullmatch(text)
        if fallback:
            return bytes([int(fallback[1], 16)]), True
        if byte_level and all(c in _BYTE_OF for c in text):
            return bytes(_BYTE_OF[c] for c in text) + end, True
        if spaced:
            continues = bool(prefix) and text.startswith(prefix) and len(text) > len(prefix)
            return text.removeprefix(prefix if continues else "").encode("utf-8", "replace"), continues
        return text.replace("▁", " ").encode("utf-8", "replace") + end, True

    return spell


def _described(part: Any) -> str:
    """A part of a tokenizer as JSON; its ``str()`` may panic on text that is not ASCII."""
    return bytes(part.__getstate__()).decode() if hasattr(part, "__getstate__") and part is not None else ""


def _byte_alphabet() -> dict[str, int]:
    """The inverse of GPT-2's byte alphabet: printable bytes stand for themselves, the others start at U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_OF: Final = _byte_alphabet()


def _characters(data: bytes) -> list[tuple[str, int, int]]:
    """Each character of UTF-8 data, as a reader counts them, with where its bytes begin and end.

    A stray byte reads ``\\xe5``.
    """
    found: list[tuple[str, int, int]] = []
    i = 0
    while i < len(data):
        size = next((n for n in (1, 2, 3, 4) if _decodes(data[i : i + n])), 0)
        character, start = data[i : i + size].decode() if size else f"\\x{data[i]:02x}", i
        i += max(size, 1)
        if found and _joined(found[-1][0], character):
            before, start, _ = found.pop()
            character = before + character
        found.append((character, start, i))
    return found


def _joined(before: str, character: str) -> bool:
    """Whether a reader sees one character: Unicode's grapheme clusters, as far as accents and emoji go."""
    if before.isspace() or len(before) >= _LONGEST_CHARACTER:
        return False
    return unicodedata.category(character[0])[0] == "M" or _JOINED.fullmatch(before + character) is not None


def _decodes(data: bytes) -> bool:
    try:
        return len(data.decode()) == 1
    except UnicodeDecodeError:
        return False


def _readable(pieces: Sequence[bytes]) -> list[str]:
    ends = [0]
    for piece in pieces:
        ends.append(ends[-1] + len(piece))
    owner = [number for number, piece in enumerate(pieces) for _ in piece]
    texts = [""] * len(pieces)
    for character, start, stop in _characters(b"".join(pieces)):
        owners = sorted(set(owner[start:stop]))
        for nth, number in enumerate(owners, 1):
            texts[number] += character if len(owners) == 1 else f"{_shown(character)}⟨{nth}/{len(owners)}⟩"
    return [_shown(text) for text in texts]


def _shown(text: str) -> str:
    """The piece without the space that merely parts words; what would leave the label blank is made visible."""
    kept = text.strip(" ") or text
    if kept.isspace():
        return re.sub(r"\s", "␣", kept.translate(_VISIBLE_SPACE))
    if all(unicodedata.category(c) in ("Cc", "Cf") for c in kept):
        return kept.encode("unicode_escape").decode()
    return kept.translate(_VISIBLE_SPACE)


def _word_starts(pieces: Sequence[tuple[bytes, bool]]) -> list[bool]:
    """Whether each piece begins a new word; decided on the first character that begins inside the piece."""
    owner = [number for number, (piece, _) in enumerate(pieces) for _ in piece]
    starts = [False] * len(pieces)
    first: set[int] = set()
    before = " "
    for character, start, _ in _characters(b"".join(piece for piece, _ in pieces)):
        number = owner[start]
        parted = not pieces[number][1]
        if number not in first and (parted or _boundary(before, character)):
            starts[number] = True
        if not character.isspace():
            first.add(number)
        before = character
    if starts:
        starts[0] = True
    return starts


def _boundary(before: str, character: str) -> bool:
    if character.isspace():
        return False  # the word begins with the letter after it
    return _word_class(before) != _word_class(character) or _word_class(character) in ("han", "mark")


def _word_class(character: str) -> str:
    if character.isspace():
        return "space"
    if character[0] in "'’_":
        return "letter"
    if unicodedata.name(character[0], "").startswith(("CJK", "IDEOGRAPHIC")):  # 〇 and 々 too
        return "han"
    category = unicodedata.category(character[0])[0]
    return "letter" if category in "LNM" else "mark"
