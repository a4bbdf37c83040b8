"""Fonts for figures: which installed families have the characters of a text, and what to write where none has."""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from hf_attnviz.legible import visible

_FAMILIES: Final = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Microsoft YaHei",
    "SimHei",
    "PingFang SC",
    "Hiragino Sans GB",
    "Arial Unicode MS",
    "Noto Sans",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
    "Symbola",
    "Noto Emoji",
)


def fonts_for(texts: Iterable[str]) -> list[str]:
    """Installed families that together have the characters of these texts, best first."""
    missing = {ord(c) for text in texts for c in visible(text)}
    chosen: list[str] = []
    for family in _installed():
        covered = missing & _characters(family)
        if covered or not chosen:
            chosen.append(family)
            missing -= covered
    return chosen or ["sans-serif"]


def readable(text: str) -> str:
    """The text with what no installed font can draw written as ``<U+XXXX>``."""
    shown = visible(text)
    known = _known()
    return "".join(c if not known or ord(c) in known else f"<U+{ord(c):04X}>" for c in shown)


@cache
def has_curves_of_postscript(family: str) -> bool:
    """Whether a family's outlines are PostScript's (CFF): matplotlib then mislabels it in a PDF of Type 42."""
    path = _files_of_fonts().get(family)
    if path is None:
        return False
    with Path(path).open("rb") as file:
        head = file.read(16)
        if head[:4] == b"ttcf":  # a collection: the first of its faces tells for all
            file.seek(int.from_bytes(head[12:16], "big"))
            head = file.read(4)
    return head[:4] == b"OTTO"


@cache
def _files_of_fonts() -> Mapping[str, str]:
    from matplotlib.font_manager import fontManager

    found: dict[str, str] = {}
    for entry in sorted(fontManager.ttflist, key=lambda e: (e.style != "normal", abs(_weight(e.weight) - 400))):
        found.setdefault(entry.name, entry.fname)
    return found


def _weight(weight: Any) -> float:
    return float(weight) if isinstance(weight, int | float) else 400.0


@cache
def _installed() -> tuple[str, ...]:
    return tuple(family for family in _FAMILIES if family in _files_of_fonts())


@cache
def _characters(family: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(_files_of_fonts()[family]).get_charmap())


@cache
def _known() -> frozenset[int]:
    return frozenset().union(*(_characters(family) for family in _installed()))
