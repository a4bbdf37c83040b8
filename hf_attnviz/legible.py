"""Text of others (tokens, names, titles) made safe to look at: nothing invisible, nothing that turns the line round."""

import unicodedata

_TURNS_THE_LINE = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNSEEN = frozenset("\u00ad\u180e\u200b\u200c\u200d\u2060\ufeff")
_NAMES = {"\n": "↵", "\r": "↵", "\t": "⇥"}


def visible(text: str) -> str:
    """``text`` with control characters, bidirectional overrides and lone surrogates written out.

    >>> visible("a\\x00b\\u202e")
    'a⟨U+0000⟩b⟨U+202E⟩'
    """
    shown = "".join(_NAMES.get(c) or (_code(c) if _hidden(c) else c) for c in text)
    if shown and all(c in _UNSEEN for c in shown):  # a joiner inside an emoji is meant; alone it would be nothing
        return "".join(map(_code, shown))
    return shown


def json_safe(text: str) -> str:
    """JSON that may stand in a ``<script>``: no ``<``, no ``&``, no line separators of JavaScript."""
    escapes = {
        "<": "\\u003c",
        ">": "\\u003e",
        "&": "\\u0026",
        "\u2028": "\\u2028",
        "\u2029": "\\u2029",
    }
    for character, escaped in escapes.items():  # far quicker than translate() where the text is megabytes of data
        text = text.replace(character, escaped)
    return text


def _hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _TURNS_THE_LINE


def _code(character: str) -> str:
    return f"⟨U+{ord(character):04X}⟩"
