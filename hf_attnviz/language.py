"""English or Chinese: every sentence for people stands in the code in both, side by side."""

import locale
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Literal

from hf_attnviz.errors import UnknownNameError, listed

Language = Literal["en", "zh"]
LANGUAGES: Final[tuple[Language, ...]] = ("en", "zh")

_chosen: list[Language] = []
_speaking: ContextVar[Language | None] = ContextVar("hf_attnviz_language", default=None)


@dataclass(frozen=True)
class Text:
    """One sentence in both languages; ``str()`` gives the chosen one.

    >>> Text("rows sum to one", "每行之和为一").zh
    '每行之和为一'
    """

    en: str
    zh: str

    def __str__(self) -> str:
        return self.zh if language() == "zh" else self.en


def told(thing: object) -> Text:
    """What a sentence inside another one says: a Text as it is, an error of ours by its message, all else by ``str``.

    >>> why = told(UnknownNameError(Text("no layer 7", "没有第 7 层")))
    >>> f"{why.en}; {why.zh}; {told(KeyError('a')).zh}"
    "no layer 7; 没有第 7 层; 'a'"
    """
    if isinstance(thing, BaseException) and len(thing.args) == 1 and isinstance(thing.args[0], Text):
        return thing.args[0]
    return thing if isinstance(thing, Text) else Text(str(thing), str(thing))


def counted(number: int, noun: str) -> str:
    """A number and what it counts, in English.

    >>> counted(1, "layer"), counted(12, "head")
    ('1 layer', '12 heads')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def set_language(name: str) -> None:
    """Choose the language of views, reports and command line: ``"en"`` or ``"zh"``.

    Raises:
        UnknownNameError: another language.
    """
    _chosen[:] = [_known(name)]


@contextmanager
def speaking(name: str) -> Iterator[None]:
    """Another language inside the block, for this thread or task only: a server answers each visitor in theirs."""
    token = _speaking.set(_known(name))
    try:
        yield
    finally:
        _speaking.reset(token)


def language() -> Language:
    """The chosen language, else the one of the environment's locale, else English."""
    spoken = _speaking.get()
    if spoken is not None:
        return spoken
    if _chosen:
        return _chosen[0]
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):  # the order that POSIX gives
        if os.environ.get(variable):
            return "zh" if os.environ[variable].lower().startswith("zh") else "en"
    return "zh" if (locale.getlocale()[0] or "").lower().startswith(("zh", "chinese")) else "en"


def _known(name: str) -> Language:
    for language in LANGUAGES:
        if name == language:
            return language
    raise UnknownNameError(
        Text(f"unknown language {name!r}; known: {listed(LANGUAGES)}", f"未知语言 {name!r}；可用：{listed(LANGUAGES)}")
    )
