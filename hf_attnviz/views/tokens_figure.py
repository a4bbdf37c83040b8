"""A text in the colours of its weights, as a figure: lines of tokens, a bar under each."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hf_attnviz.legible import visible
from hf_attnviz.views import figures
from hf_attnviz.views.flowing import direction

_WIDTH: Final = 7.0  # inches; points below
_SIZE: Final = 9.0
_LINE: Final = 19.0
_SPACE: Final = 3.0
_MARGIN: Final = 6.0
_BAR: Final = 1.8


def draw_tokens(
    values: npt.NDArray[Any],
    texts: Sequence[str],
    spaces: Sequence[bool],
    *,
    title: str,
    where: str,
    unit: str,
    framed: int | None,
) -> Any:
    """A figure of one number a token; the framed one is the query."""
    fonts = figures.fonts_for([title, where, unit, *texts])
    width = figures.width_of_page(_WIDTH)
    figure = figures.new_figure(width, 1.0)
    figure.set_layout_engine("none")  # every place is known
    shown = [figures.readable(text) for text in texts]
    widths = _widths(figure, shown, fonts)
    places, lines = _set_in_lines(shown, widths, spaces, width * 72 - 2 * _MARGIN)
    height = lines * _LINE + 78
    figure.set_size_inches(width, height / 72)
    panel = figure.add_axes((0, 0, 1, 1))
    panel.set(xlim=(0, width * 72), ylim=(height, 0))
    panel.axis("off")
    figures.write(panel.text(_MARGIN, 14, "", fontsize=11, va="center"), title, fonts)
    figures.write(panel.text(_MARGIN, 29, "", fontsize=8, va="center", color="#57606a"), where, fonts)
    low, high, signed = figures.limits(values)
    low = low if signed else 0.0
    backwards = direction(texts) == "rtl"
    for n, (x, line) in enumerate(places):
        x = width * 72 - x - _MARGIN - widths[n] if backwards else x + _MARGIN
        _token(
            panel,
            (x, 42 + line * _LINE, widths[n] - 0.7),
            (shown[n], float(values[n]), n == framed),
            (low, high),
            fonts,
        )
    _legend(figure, (low, high, signed), height, unit, fonts)
    return figure


def _widths(figure: Any, texts: Sequence[str], fonts: Any) -> list[float]:
    """How wide each text is, in points."""
    probe = figure.text(0, 0, "", fontsize=_SIZE)
    known = {}
    for text in set(texts):
        figures.write(probe, text, fonts)
        known[text] = probe.get_window_extent().width * 72 / figure.dpi + 3
    probe.remove()
    return [known[text] for text in texts]


def _set_in_lines(
    texts: Sequence[str], widths: Sequence[float], spaces: Sequence[bool], room: float
) -> tuple[list[tuple[float, int]], int]:
    """Where each token begins and in which line, and how many lines there are."""
    places: list[tuple[float, int]] = []
    x, line = 0.0, 0
    for n, width in enumerate(widths):
        x += _SPACE if spaces[n] and x else 0
        if x and (x + width > room or texts[n - 1] == visible("\n")):
            x, line = 0.0, line + 1
        places.append((x, line))
        x += width
    return places, line + 1


def _token(
    panel: Any,
    at: tuple[float, float, float],
    what: tuple[str, float, bool],
    limits: tuple[float, float],
    fonts: Any,
) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    (x, y, width), (text, value, framed), (low, high) = at, what, limits
    tall = _LINE - 8
    ink = "black"
    if np.isfinite(value):
        red, green, blue, _ = colormaps[_ramp(low < 0)]((value - low) / (high - low))
        panel.add_patch(Rectangle((x, y), width, tall, facecolor=(red, green, blue), linewidth=0))
        ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else "white"
        bar = width * abs(value) / max(abs(low), high)
        panel.add_patch(
            Rectangle((x, y - 2.5 if value < 0 else y + tall + 0.7), bar, _BAR, facecolor="black", linewidth=0)
        )
    else:
        panel.add_patch(
            Rectangle((x, y), width, tall, facecolor="#e9ebee", edgecolor="#a9b0b9", hatch="////", linewidth=0)
        )
    if framed:
        panel.add_patch(Rectangle((x, y), width, tall, fill=False, edgecolor="#0b62c4", linewidth=1.6, zorder=4))
    place = panel.text(x + width / 2, y + tall / 2 - 0.6, "", fontsize=_SIZE, ha="center", va="center", color=ink)
    figures.write(place, text, fonts)


def _legend(figure: Any, scale: tuple[float, float, bool], height: float, unit: str, fonts: Any) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    low, high, signed = scale
    wide = 72 * figure.get_size_inches()[0]
    strip = figure.add_axes((2.5 * _MARGIN / wide, 17 / height, 0.3, 6 / height))
    bar = figure.colorbar(ScalarMappable(Normalize(low, high), _ramp(signed)), cax=strip, orientation="horizontal")
    bar.ax.tick_params(labelsize=7, length=2)
    bar.outline.set_linewidth(0.4)
    figures.write(figure.text(0.3 + 4 * _MARGIN / wide, 17 / height, "", fontsize=7), unit, fonts)


def _ramp(signed: bool) -> str:
    return "RdBu_r" if signed else "GnBu"
