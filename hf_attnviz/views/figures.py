"""Files for papers (svg, png, pdf), drawn by matplotlib's objects; pyplot and its global state are never touched.

Labels are tokens of others: none is read as mathematics, and a character that no installed font has is written out
as its code instead of a box. What the reader has set in matplotlib (a dark style, TeX) changes nothing here.

A figure is drawn at its natural size. For a paper it is laid out once more at the width that is asked for
(:mod:`hf_attnviz.views.fitting`): letters keep their size, what has no room beside each other stands one below the
other, and of labels that would touch every n-th is left.
"""

import io
import threading
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text
from hf_attnviz.views.fitting import fit, panels
from hf_attnviz.views.fonts import fonts_for as fonts_for
from hf_attnviz.views.fonts import has_curves_of_postscript
from hf_attnviz.views.fonts import readable as readable
from hf_attnviz.views.scales import Scale

FORMATS: Final = ("svg", "png", "pdf")
_MOST_TICKS: Final = 60
_MOST_CELLS: Final = 18  # of a label, counted in Latin letters
_CELLS_OF_AN_INCH: Final = 4  # of the width that is asked for: a label has about a third of one column
_DOTS: Final = 200  # an inch, of a png
_drawing: Final = threading.Lock()
_INK: Final = "#e6e9ed"  # the page's letters in the dark
_DARK: Final = dict.fromkeys(
    ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK
) | {
    "svg.hashsalt": "hf_attnviz in the dark"  # names of patterns, of their own where both stand in one page
}
_NOTHING: Final[Mapping[str, str]] = {}
_MOST_SQUARES: Final = 400  # cells across a picture that are still squares on paper
_NO_LIMIT: Final = 1_000_000


@dataclass
class _Asked:
    """What is asked of the figure that is being drawn: its width in inches, how many panels may stand beside each
    other; and how many did."""

    width: float
    most: int
    stood: int = 1


_asked: ContextVar[_Asked | None] = ContextVar("hf_attnviz_width", default=None)


def files(draw: Callable[[], Any]) -> Mapping[str, Callable[..., bytes]]:
    """For each format a function that draws the figure and gives the file's bytes; ``width`` (inches) and ``dpi`` are
    its arguments."""
    return {name: partial(_rendered, draw, name) for name in FORMATS}


def new_figure(width: float, height: float) -> Any:
    """An empty figure of so many inches: its natural size."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def beside(natural: int) -> int:
    """How many panels stand beside each other: ``natural``, or fewer where the width that is asked for has no room."""
    asked = _asked.get()
    if asked is None:
        return natural
    asked.stood = min(natural, asked.most)
    return asked.stood


def width_of_page(natural: float) -> float:
    """The inches that are asked for, else ``natural``: for a figure that sets its words in lines by itself."""
    asked = _asked.get()
    return natural if asked is None else asked.width


def write(text: Any, content: str, fonts: Any = None) -> None:
    """Put ``content`` into a matplotlib text: plain, in fonts that have its characters."""
    text.set_parse_math(False)
    text.set_text(readable(content))
    text.set_fontfamily(fonts or fonts_for([content]))


def label_ticks(
    axis: Any,
    labels: Sequence[str],
    fonts: Any = None,
    *,
    rotation: float = 0,
    size: float = 8,
    most: int = _MOST_CELLS,
) -> None:
    """Labels on the ticks of one axis, every n-th when there are many, cut to so many letters and less in a column."""
    step = max(1, -(-len(labels) // _MOST_TICKS))
    places = list(range(0, len(labels), step))
    shown = [shortened(labels[i], most) for i in places]
    family = fonts or fonts_for(shown)
    axis.set_ticks(places, shown, parse_math=False, fontfamily=family, fontsize=size, rotation=rotation)


def fitting(text: str, width: float, most: float) -> float:
    """A size of letters, at most ``most`` and at least 4, with which a line of text is about so many inches wide."""
    letters = sum(2 if ord(c) > 0x2E80 else 1 for c in readable(text))
    return float(max(4, min(most, width * 72 / (0.62 * max(letters, 1)))))


def heat(
    axes: Any,
    values: npt.NDArray[Any],
    *,
    diverging: bool = False,
    low: float,
    high: float,
    cmap: Any = None,
    aspect: str = "auto",
) -> Any:
    """An image of a matrix; cells that are undefined stay hatched grey."""
    from matplotlib.patches import Rectangle

    rows, columns = values.shape
    if not np.isfinite(values).all():
        hatched = Rectangle(
            (-0.5, -0.5), columns, rows, facecolor="#e9ebee", edgecolor="#a9b0b9", hatch="////", linewidth=0
        )
        axes.add_patch(hatched)
    return axes.imshow(
        np.ma.masked_invalid(values),
        cmap=cmap or ("RdBu_r" if diverging else "GnBu"),
        vmin=low,
        vmax=high,
        # few cells: sharp squares; many: every number goes into a svg or pdf, where squares cut to dots would lose some
        interpolation="nearest" if max(rows, columns) <= _MOST_SQUARES else "none",
        aspect=aspect,
        zorder=2,
    )


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


def laid_out(draw: Callable[[], Any], width: float | None = None) -> Any:
    """The figure, fitted: at its natural size, or at a width in inches, with fewer panels beside each other.

    Raises:
        ArgumentError: at that width nothing is left for the panels.
    """
    if width is None:
        figure = draw()
        fit(figure, None)
        return figure
    asked = _Asked(width, _NO_LIMIT)
    while asked.most >= 1:
        said = _asked.set(asked)
        try:
            figure = draw()
            if fit(figure, width):
                return figure
        finally:
            _asked.reset(said)
        asked = _Asked(width, asked.stood - 1)
    raise ArgumentError(
        Text(
            f"{width:g} inches leave no room for the picture beside its labels: "
            "give a larger width, or draw a smaller part",
            f"{width:g} 英寸容不下图及其标签：请给出更大的宽度，或只画一部分",
        )
    )


@dataclass(frozen=True)
class Inline:
    """A figure that stands in a page.

    Attributes:
        svg: its mark-up, from ``<svg`` on, without a background.
        boxes: of each panel its left, top, width and height, as parts of the figure's width and height.
    """

    svg: str
    boxes: tuple[tuple[float, float, float, float], ...]


def inline(draw: Callable[[], Any], *, dark: bool = False) -> Inline:
    """The figure for a page, in letters of the page's colour.

    Raises:
        ArgumentError: its size leaves no room for the panels.
    """
    file = io.StringIO()
    with _our_settings(_DARK if dark else {}):
        figure = draw()
        if not fit(figure, None):
            width, height = figure.get_size_inches()
            count = len(panels(figure))
            raise ArgumentError(
                Text(
                    f"{width:g} × {height:g} inches leave no room for {count} panels with their labels: "
                    "give a larger size",
                    f"{width:g} × {height:g} 英寸容不下 {count} 个图及其标签：请给出更大的尺寸",
                )
            )
        figure.savefig(file, format="svg", dpi=_DOTS, metadata={"Date": None}, transparent=True)
        boxes = [one.get_position().bounds for one in panels(figure)]
    text = file.getvalue()
    tops = tuple((left, 1 - bottom - height, width, height) for left, bottom, width, height in boxes)
    return Inline(text[text.index("<svg") :], tops)


def _rendered(draw: Callable[[], Any], name: str, *, width: float | None = None, dpi: float | None = None) -> bytes:
    file = io.BytesIO()
    undated = {"svg": ["Date"], "pdf": ["CreationDate"]}.get(name, [])
    with _our_settings():
        figure = laid_out(draw, width)
        title = "".join(figure.get_suptitle().split("\n"))
        metadata = ({"Title": title} if title else {}) | dict.fromkeys(undated)
        if name == "png":
            _averaged(figure)
        with _letters_of_pdf(figure):
            figure.savefig(file, format=name, dpi=dpi or _DOTS, metadata=metadata, facecolor="white")
    return file.getvalue()


@contextmanager
def _our_settings(more: Mapping[str, str] = _NOTHING) -> Iterator[None]:
    """matplotlib's settings as they come, for one figure at a time: they are one table for the whole process."""
    import matplotlib as mpl
    from matplotlib import style

    # Letters of an svg are paths: they look alike everywhere and no letter can be markup.
    ours = {"svg.fonttype": "path", "svg.hashsalt": "hf_attnviz"}
    with _drawing, mpl.rc_context(), style.context(["default", ours | dict(more)]):
        yield


def _averaged(figure: Any) -> None:
    """Cells that share a dot of a png are averaged: none is left out."""
    from matplotlib.image import AxesImage

    for image in figure.findobj(AxesImage):
        if image.get_interpolation() == "none":
            image.set_interpolation("auto")


@contextmanager
def _letters_of_pdf(figure: Any) -> Iterator[None]:
    """Letters of a pdf are embedded as TrueType (Type 42), which publishers ask for, where the fonts are TrueType."""
    import matplotlib as mpl
    from matplotlib.text import Text as Letters

    families = {family for text in figure.findobj(Letters) for family in text.get_fontfamily()}
    with mpl.rc_context({"pdf.fonttype": 3 if any(map(has_curves_of_postscript, families)) else 42}):
        yield


def shortened(text: str, most: int = _MOST_CELLS) -> str:
    """The text as it can be read, cut to so many cells: a Han character takes two."""
    text, asked = readable(text), _asked.get()
    room = most if asked is None else min(most, max(6, int(_CELLS_OF_AN_INCH * asked.width)))
    taken = np.cumsum([2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text])
    return text if not len(text) or taken[-1] <= room else f"{text[: int((taken < room).sum())]}…"
