"""Tokens as a running text: where spaces stand between them, and on which side the line begins."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

_WITHOUT_SPACES: Final = re.compile(
    "[\u2e80-\u312f\u31c0-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff]"
)


def spaces_before(texts: Sequence[str], words: Sequence[int | None] | None = None) -> list[bool]:
    """Whether a space stands before each token: between words, but not beside Chinese or Japanese.

    Args:
        words: the number of the word of each token; None: each token is a word.

    >>> spaces_before(["un", "kind", "cat", "我", "爱"], [0, 0, 1, 2, 3])
    [False, False, True, False, False]
    """
    found = [False] * len(texts)
    for n in range(1, len(texts)):
        before, here = texts[n - 1], texts[n]
        same = words is not None and words[n] is not None and words[n] == words[n - 1]
        beside = _WITHOUT_SPACES.match(before[-1:]) or _WITHOUT_SPACES.match(here[:1])
        found[n] = not (same or beside or before.endswith("↵"))
    return found


def direction(texts: Iterable[str]) -> str:
    """``"rtl"`` where most letters are of a script that runs from right to left, else ``"ltr"``.

    >>> direction(["שלום", "hi"]), direction(["hello", "שם"])
    ('rtl', 'ltr')
    """
    kinds = [unicodedata.bidirectional(letter) for text in texts for letter in text]
    return "rtl" if sum(kind in ("R", "AL") for kind in kinds) > kinds.count("L") else "ltr"
