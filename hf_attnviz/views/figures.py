"""Files for papers (svg, png, pdf), drawn by matplotlib's objects; pyplot and its global state are never touched.

Labels are tokens of others: none is read as mathematics, and a character that no installed font has is written out
as its code instead of a box.
"""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hf_attnviz.legible import visible
from hf_attnviz.views.scales import Scale

FORMATS: Final = ("svg", "png", "pdf")
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
_MOST_TICKS: Final = 60


def files(draw: Callable[[], Any]) -> Mapping[str, Callable[[], bytes]]:
    """For each format a function that draws the figure and gives the file's bytes."""
    return {name: partial(_rendered, draw, name) for name in FORMATS}


def new_figure(width: float, height: float) -> Any:
    """An empty figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def write(text: Any, content: str, fonts: Any) -> None:
    """Put ``content`` into a matplotlib text: plain, in fonts that have its characters."""
    text.set_parse_math(False)
    text.set_text(readable(content))
    text.set_fontfamily(fonts)


def label_ticks(axis: Any, labels: Sequence[str], fonts: Any, *, rotation: float = 0, size: float = 8) -> None:
    """Labels on the ticks of one axis, every n-th when there are many."""
    step = max(1, -(-len(labels) // _MOST_TICKS))
    places = list(range(0, len(labels), step))
    shown = [shortened(readable(labels[i])) for i in places]
    axis.set_ticks(places, shown, parse_math=False, fontfamily=fonts, fontsize=size, rotation=rotation)


def heat(axes: Any, values: npt.NDArray[Any], *, diverging: bool, low: float, high: float) -> Any:
    """An image of a matrix; cells that are undefined stay hatched grey."""
    from matplotlib.patches import Rectangle

    rows, columns = values.shape
    if np.isnan(values).any():
        hatched = Rectangle(
            (-0.5, -0.5), columns, rows, facecolor="#e9ebee", edgecolor="#a9b0b9", hatch="////", linewidth=0
        )
        axes.add_patch(hatched)
    cmap = "RdBu_r" if diverging else "GnBu"
    return axes.imshow(
        np.ma.masked_invalid(values), cmap=cmap, vmin=low, vmax=high, interpolation="nearest", aspect="auto", zorder=2
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
    """The text with what no installed font can draw written as ``⟨U+XXXX⟩``."""
    shown = visible(text)
    known = _known()
    return "".join(c if not known or ord(c) in known else f"<U+{ord(c):04X}>" for c in shown)


def limits(values: npt.NDArray[Any], scale: Scale = None) -> tuple[float, float, bool]:
    """Where the colours begin and end, and whether they diverge from zero; ``scale`` says so, else the numbers do."""
    if isinstance(scale, tuple):
        return *scale, scale[0] < 0
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0, False
    low, high = float(finite.min()), float(finite.max())
    if low < 0 or scale == "centred":
        bound = max(-low, high) or 1.0
        return -bound, bound, True
    low = 0.0 if low <= high / 2 else low
    return low, high if high > low else low + 1.0, False


def _rendered(draw: Callable[[], Any], name: str) -> bytes:
    file = io.BytesIO()
    dated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    draw().savefig(file, format=name, dpi=200, metadata=dated.get(name), facecolor="white")
    return file.getvalue()


def shortened(text: str) -> str:
    """A label of at most 18 characters."""
    return text if len(text) <= 18 else f"{text[:17]}…"


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
