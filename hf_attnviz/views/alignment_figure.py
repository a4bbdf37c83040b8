"""The alignment of two texts as a figure: arrows above, the heat map of the weights with its numbers beneath."""

import unicodedata
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hf_attnviz.language import Text
from hf_attnviz.views import figures

_MOST_WORDS: Final = 40  # of a side, in arrows that can be told apart
_MOST_NUMBERS: Final = 400
_LETTER: Final = 0.095  # inches of a letter at 11 points; a Chinese one takes two
_GAP: Final = 0.28
_ARROW: Final = "#2b6cb0"


def draw_alignment(
    weights: npt.NDArray[Any],
    sources: Sequence[str],
    targets: Sequence[str],
    *,
    threshold: float,
    title: str,
    where: Text,
) -> Any:
    """A figure of weights ``[target, source]``."""
    rows, columns = weights.shape
    arrows = max(rows, columns) <= _MOST_WORDS
    above, below = _places(sources), _places(targets)
    width = min(max(4.5, _width(title) + 0.4, above[-1] + _GAP, below[-1] + _GAP, 1.4 + 0.42 * columns), 14)
    heat = min(max(1.3, 0.8 + 0.3 * rows), 9)
    figure = figures.new_figure(width, heat + 0.7 + (1.9 if arrows else 0))
    fonts = figures.fonts_for([title, str(where), _note(threshold, arrows), *sources, *targets])
    figures.write(figure.suptitle("", fontsize=11), title, fonts)
    figures.write(figure.supxlabel("", fontsize=8), f"{where} · {_note(threshold, arrows)}", fonts)
    panels = figure.subplots(2 if arrows else 1, 1, height_ratios=[1.9, heat] if arrows else None, squeeze=False)[:, 0]
    if arrows:
        _arrows(panels[0], weights, (above, sources), (below, targets), threshold, fonts)
    _heat(figure, panels[-1], weights, sources, targets, fonts)
    return figure


def _note(threshold: float, arrows: bool) -> str:
    if arrows:
        return str(Text(f"arrows: weights from {threshold:g} on", f"箭头：权重不低于 {threshold:g}"))
    return str(Text(f"no arrows: more than {_MOST_WORDS} words on one side", f"未画箭头：一侧超过 {_MOST_WORDS} 个词"))


def _places(texts: Sequence[str]) -> list[float]:
    """Where the middle of each word stands in a line, and where the line ends."""
    end, found = _GAP, []
    for text in texts:
        wide = max(_width(text), 0.2)
        found.append(end + wide / 2)
        end += wide + _GAP
    return [*found, end]


def _width(text: str) -> float:
    cells = sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in figures.readable(text))
    return cells * _LETTER


def _arrows(
    panel: Any,
    weights: npt.NDArray[Any],
    above: tuple[list[float], Sequence[str]],
    below: tuple[list[float], Sequence[str]],
    threshold: float,
    fonts: Any,
) -> None:
    from matplotlib.patches import FancyArrowPatch

    end = max(above[0][-1], below[0][-1])
    panel.set(xlim=(0, end), ylim=(0, 1))
    panel.axis("off")
    at = [[place + (end - places[-1]) / 2 for place in places[:-1]] for places, _ in (above, below)]
    for places, (_, texts), height in zip(at, (above, below), (0.93, 0.07), strict=True):
        for place, text in zip(places, texts, strict=True):
            figures.write(panel.text(place, height, "", ha="center", va="center", fontsize=11), text, fonts)
    for target, source in np.argwhere(weights >= threshold):
        weight = float(weights[target, source])
        style = {"linewidth": 0.4 + 3.6 * weight, "color": _ARROW, "alpha": 0.35 + 0.6 * weight}
        ends = (at[0][source], 0.84), (at[1][target], 0.16)
        arrow = FancyArrowPatch(
            *ends, arrowstyle="-|>", mutation_scale=5 + 7 * weight, shrinkA=0, shrinkB=0, capstyle="butt", **style
        )
        if weight > 0:
            panel.add_patch(arrow)


def _heat(
    figure: Any, panel: Any, weights: npt.NDArray[Any], sources: Sequence[str], targets: Sequence[str], fonts: Any
) -> None:
    image = figures.heat(panel, weights, diverging=False, low=0.0, high=1.0)
    panel.xaxis.tick_top()
    figures.label_ticks(panel.xaxis, sources, fonts, rotation=90 if len(sources) > 12 else 0)
    figures.label_ticks(panel.yaxis, targets, fonts)
    if weights.size <= _MOST_NUMBERS and weights.shape[1] <= 24:
        for (row, column), weight in np.ndenumerate(weights):
            if np.isfinite(weight):
                colour = "white" if weight > 0.55 else "black"
                panel.text(column, row, f"{weight:.2f}", ha="center", va="center", fontsize=7, color=colour, zorder=3)
    bar = figure.colorbar(image, ax=panel, shrink=0.9)
    bar.ax.tick_params(labelsize=8)
