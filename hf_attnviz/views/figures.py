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
from hf_attnviz.views.fitting import fit
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


def write(text: Any, content: str, fonts: Any = None) -> None:
    """Put ``content`` into a matplotlib text: plain, in fonts that have its characters."""
    text.set_parse_math(False)
    text.set_text(readable(content))
    text.set_fontfamily(fonts or fonts_for([content]))


def label_ticks(axis: Any, labels: Sequence[str], fonts: Any = None, *, rotation: float = 0, size: float = 8) -> None:
    """Labels on the ticks of one axis, every n-th when there are many."""
    step = max(1, -(-len(labels) // _MOST_TICKS))
    places = list(range(0, len(labels), step))
    shown = [_shortened(readable(labels[i])) for i in places]
    family = fonts or fonts_for(shown)
    axis.set_ticks(places, shown, parse_math=False, fontfamily=family, fontsize=size, rotation=rotation)


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
        interpolation="nearest",
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
        f"{width:g} inches leave no room for the picture beside its labels: give a larger width, or draw a smaller part"
    )


def _rendered(draw: Callable[[], Any], name: str, *, width: float | None = None, dpi: float | None = None) -> bytes:
    file = io.BytesIO()
    undated = {"svg": ["Date"], "pdf": ["CreationDate"]}.get(name, [])
    with _our_settings():
        figure = laid_out(draw, width)
        title = "".join(figure.get_suptitle().split("\n"))
        metadata = {"Title": title or None} | dict.fromkeys(undated)
        with _letters_of_pdf(figure):
            figure.savefig(file, format=name, dpi=dpi or _DOTS, metadata=metadata, facecolor="white")
    return file.getvalue()


@contextmanager
def _our_settings() -> Iterator[None]:
    """matplotlib's settings as they come, for one figure at a time: they are one table for the whole process."""
    import matplotlib as mpl
    from matplotlib import style

    # Letters of an svg are paths: they look alike everywhere and no letter can be markup.
    ours = {"svg.fonttype": "path", "svg.hashsalt": "hf_attnviz"}
    with _drawing, mpl.rc_context(), style.context(["default", ours]):
        yield


@contextmanager
def _letters_of_pdf(figure: Any) -> Iterator[None]:
    """Letters of a pdf are embedded as TrueType (Type 42), which publishers ask for, where the fonts are TrueType."""
    import matplotlib as mpl
    from matplotlib.text import Text

    families = {family for text in figure.findobj(Text) for family in text.get_fontfamily()}
    with mpl.rc_context({"pdf.fonttype": 3 if any(map(has_curves_of_postscript, families)) else 42}):
        yield


def _shortened(text: str) -> str:
    """At most so many cells: a Han character takes two."""
    asked = _asked.get()
    room = _MOST_CELLS if asked is None else min(_MOST_CELLS, max(6, int(_CELLS_OF_AN_INCH * asked.width)))
    taken = np.cumsum([2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text])
    return text if not len(text) or taken[-1] <= room else f"{text[: int((taken < room).sum())]}…"
