"""A figure fitted to its page: long titles in lines, labels that would touch thinned; at a given width laid out anew.

What is measured is what is drawn: letters through matplotlib's own renderer, panels after its own layout.
"""

import itertools
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np

LEAST_LETTERS: Final = 7.0  # points; what journals ask for at least
MOST_LETTERS: Final = 9.0
_FLATTEST: Final = 0.45  # height over width: below, panels would be nothing but their labels
_MARGIN: Final = 0.08  # inches at the edges
_LEAST_PANEL: Final = 0.25  # inches
_LEAST_SHARE: Final = 1 / 3  # of a panel's place, for its picture; the rest is labels
_MOST_LINES: Final = 3
_TALLER: Final = 3  # times that a figure is made half as tall again, at most
_COLLAPSED: Final = ".*layout not applied"  # what matplotlib says of panels that came to nothing
_AIR: Final = 0.06  # of a line's height, above and below its letters: lines may touch there


def fit(figure: Any, width: float | None) -> bool:
    """Make a figure fit: at its natural size (None), or at ``width`` inches with letters of 7 to 9 points.

    Returns:
        Whether every panel has room: a third of its share, and a quarter of an inch. Where only the height lacks it,
        the figure is made taller.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    if width is not None:
        natural = figure.get_size_inches()
        height = max(natural[1] * width / natural[0], min(natural[1], _FLATTEST * width))
        figure.set_size_inches(width, height)
        _set_letters(figure)
    _wrap_all(figure)
    _thin_ahead(figure)
    wide, tall = _room(figure)
    for _ in range(_TALLER if width is not None and wide and not tall else 0):
        figure.set_size_inches(width, 1.5 * figure.get_size_inches()[1])
        wide, tall = _room(figure)
        if tall:
            break
    _part_title_and_legends(figure)
    _keep_inside(figure)
    for axes in figure.axes:
        _thin(figure, axes.xaxis, across=True)
        _thin(figure, axes.yaxis, across=False)
    return wide and tall


def wrapped(text: str, room: float, measure: Callable[[str], float], most: int = _MOST_LINES) -> str:
    """``text`` in lines no wider than ``room``, broken at blanks or, where there is none, between any two characters;
    what is left after the last line is cut with an ellipsis."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        rest = paragraph
        while rest:
            taken = _longest(rest, room, measure)
            lines.append(rest[:taken].rstrip())
            rest = rest[taken:].lstrip()
    if len(lines) > most:
        last = lines[most - 1]
        while last and measure(f"{last}…") > room:
            last = last[:-1]
        lines = [*lines[: most - 1], f"{last}…"]
    return "\n".join(lines)


def _longest(text: str, room: float, measure: Callable[[str], float]) -> int:
    """How many characters of ``text`` make the first line."""
    if measure(text) <= room:
        return len(text)
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if measure(text[:middle]) <= room else (low, middle - 1)
    blank = text.rfind(" ", 0, low + 1)
    return blank + 1 if blank > low // 2 else low


def _set_letters(figure: Any) -> None:
    from matplotlib.text import Text

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            ticks = axis.get_major_ticks()
            if ticks:
                axis.set_tick_params(labelsize=_readable_size(ticks[0].label1.get_size()))
    for text in figure.findobj(Text):
        text.set_size(_readable_size(text.get_size()))


def _readable_size(size: float) -> float:
    return float(min(max(size, LEAST_LETTERS), MOST_LETTERS))


def _wrap_all(figure: Any) -> None:
    """Titles, names of axes and legends in lines."""
    width, height = (size - 2 * _MARGIN * figure.dpi for size in figure.bbox.size)
    for text in (figure._suptitle, figure._supxlabel):
        if text is not None:
            _wrap(text, width)
    for legend in [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]:
        for text in legend.get_texts():
            _wrap(text, 0.4 * width)
    for axes in figure.axes:
        across, down = _share(axes)
        for text in (axes.title, axes._left_title, axes._right_title, axes.xaxis.label):
            _wrap(text, max(0.92 * across * width, 0.6 * figure.dpi))
        _wrap(axes.yaxis.label, max(0.8 * down * height, 0.6 * figure.dpi), most=2)


def _part_title_and_legends(figure: Any) -> None:
    """A title in the middle would run into a legend that stands in the upper right: it takes the room beside it."""
    title = figure._suptitle
    if title is None or not title.get_text():
        return
    for legend in figure.legends:
        if title.get_window_extent().overlaps(legend.get_window_extent()):
            left = legend.get_window_extent().x0 - 2 * _MARGIN * figure.dpi
            title.set_x((left / 2 + _MARGIN * figure.dpi) / figure.bbox.width)
            _wrap(title, left - _MARGIN * figure.dpi)


def _keep_inside(figure: Any) -> None:
    """Titles of panels that would run over the figure's edge, for their panel does not stand in the middle."""
    edge, margin = figure.bbox.width, _MARGIN * figure.dpi
    for axes in figure.axes:
        box, title = axes.get_window_extent(), axes.title
        middle = (box.x0 + box.x1) / 2
        room = 2 * min(middle, edge - middle) - margin
        if title.get_text() and title.get_window_extent().width > room:
            _wrap(title, max(room, box.width))


def _share(axes: Any) -> tuple[float, float]:
    """What part of the figure's width and height is a panel's own, whatever stands beside it."""
    place = axes.get_subplotspec()
    if place is None:
        return 1.0, 1.0
    grid = place.get_gridspec()
    wide, high = grid.get_width_ratios(), grid.get_height_ratios()
    across = sum(wide[n] for n in place.colspan) / sum(wide)
    return float(across), float(sum(high[n] for n in place.rowspan) / sum(high))


def _wrap(text: Any, room: float, most: int = _MOST_LINES) -> None:
    if text.get_text() and text.get_visible():
        text.set_text(wrapped(text.get_text(), room, _measure(text), most))


def _measure(text: Any) -> Callable[[str], float]:
    """How wide a piece of text would be in this text's letters, along its line."""
    from matplotlib.text import Text

    like = Text(fontproperties=text.get_fontproperties(), parse_math=False)
    like.set_figure(text.get_figure(root=True))
    return lambda content: _width(like, content)


def _width(like: Any, content: str) -> float:
    like.set_text(content)
    return float(like.get_window_extent().width)


def _room(figure: Any) -> tuple[bool, bool]:
    """Let matplotlib lay the figure out; whether enough is left of every panel's width, and of its height."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=_COLLAPSED)
        try:
            _lay_out(figure)
        except UserWarning as warning:
            if not re.match(_COLLAPSED, str(warning)):
                raise
            return True, False  # whichever it was, a taller figure is tried first
    left = [
        (size / figure.dpi >= _LEAST_PANEL) & (size / figure.bbox.size >= _LEAST_SHARE * np.array(_share(axes)))
        for axes in panels(figure)
        for size in [np.array(axes.get_window_extent().size)]
    ]
    wide, tall = np.all(left, axis=0) if left else (True, True)
    return bool(wide), bool(tall)


def _lay_out(figure: Any) -> None:
    engine = figure.get_layout_engine()
    if engine is None:
        figure.draw_without_rendering()
    else:
        engine.execute(figure)


def panels(figure: Any) -> Sequence[Any]:
    """Axes that hold a picture: no colour bars."""
    return [axes for axes in figure.axes if not hasattr(axes, "_colorbar") and axes.axison]


def _thin_ahead(figure: Any) -> None:
    """Of given labels leave as many as could stand if the panel had its whole share: measuring them is slow."""
    for axes in figure.axes:
        for axis, share, inches in zip((axes.xaxis, axes.yaxis), _share(axes), figure.get_size_inches(), strict=True):
            ticks = _labelled(axis)
            if ticks:
                _leave(ticks, math.ceil(len(ticks) * ticks[0].label1.get_size() / 72 / (share * inches)))


def _thin(figure: Any, axis: Any, *, across: bool) -> None:
    """Of given labels that would touch, leave every n-th; words below a panel stand upright first."""
    ticks = _labelled(axis)
    if across and _step(ticks, across) > 1 and any(_is_word(tick.label1) for tick in ticks):
        for tick in ticks:
            tick.label1.set_rotation(90)
        _room(figure)
    _leave(ticks, _step(ticks, across))


def _labelled(axis: Any) -> list[Any]:
    """The ticks whose labels were given; numbers that matplotlib chose by itself have room."""
    from matplotlib.ticker import FixedLocator

    if not isinstance(axis.get_major_locator(), FixedLocator):
        return []
    axis.get_ticklabels()  # which writes their texts
    return [tick for tick in axis.get_major_ticks() if tick.label1.get_visible() and tick.label1.get_text()]


def _leave(ticks: Sequence[Any], step: int) -> None:
    for number, tick in enumerate(ticks):
        if number % step:
            tick.label1.set_visible(False)
            tick.tick1line.set_visible(False)


def _is_word(label: Any) -> bool:
    return label.get_rotation() == 0 and not label.get_text().isdigit()


def _step(ticks: Sequence[Any], across: bool) -> int:
    """The smallest step at which no two labels touch."""
    spans = sorted(_spans(ticks, across))
    for step in range(1, len(spans)):
        kept = spans[::step]
        if all(first[1] <= second[0] for first, second in itertools.pairwise(kept)):
            return step
    return max(1, len(spans))


def _spans(ticks: Sequence[Any], across: bool) -> Iterator[tuple[float, float]]:
    """From where to where each label reaches along its axis; a slanted one as far as its line is high."""
    for tick in ticks:
        box, label = tick.label1.get_window_extent(), tick.label1
        low, high = (box.x0, box.x1) if across else (box.y0, box.y1)
        slant = label.get_rotation() % 180
        if across and 0 < slant < 90:
            high = min(high, low + 1.3 * label.get_size() * label.get_figure(root=True).dpi / 72)
        air = 0 if across and slant == 0 else _AIR * (high - low)
        yield low + air, high - air
