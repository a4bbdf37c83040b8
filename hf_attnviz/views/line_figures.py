"""BertViz' lines for papers: one layer with its tokens, or a small picture of every head, drawn by matplotlib.

A line's strength is its weight. Beyond some thousands of lines the strongest are drawn, as an image inside the file, so
that it stays small; its text stays text.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hf_attnviz.language import Text
from hf_attnviz.views.figures import fonts_for, label_ticks, new_figure, readable, shortened, write
from hf_attnviz.views.groups import Group

COLOURS: Final = (  # D3's category10, BertViz' own
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"
)  # fmt: skip
_WIDTH: Final = 5.5  # inches: a column and a half of a paper
_TALLEST: Final = 18.0  # inches: beyond, lines stand closer
_LINE: Final = 0.18  # inches between two tokens' names
_IN_A_ROW: Final = 16  # heads in one row of the legend
_PICTURE: Final = 0.82  # of a head's place in the grid, the rest is the gap
_FOLD: Final = 84  # letters of 6.5 points in a figure's width
_INVISIBLE: Final = 1 / 510  # an opacity that rounds to nothing in eight bits
_PATHS: Final = 3_000  # up to so many lines each is a path of its own in the file
_MOST: Final = 20_000  # beyond, a picture of this size is full


def one_layer_figure(group: Group, place: int, heads: Sequence[int], title: Text | str, notes: Sequence[Text]) -> Any:
    """One layer: tokens on both sides, a line a weight, a colour a head; strength is weight over number of heads."""
    left, right = group.maps[place].row_texts, group.maps[place].keys.texts
    layer = group.layers[place]
    named = Text(f"{group.name.en}, layer {layer}", f"{group.name.zh}，第 {layer} 层")
    headings = [str(title), str(named)]
    fonts = fonts_for([*left, *right, *headings, *map(str, notes)])
    tall = min(max(group.longest * 0.2, 0.8), _TALLEST)
    figure = new_figure(_WIDTH, tall + 1.1 + 0.25 * len(notes))
    axes = figure.add_subplot()
    weights = _numbers(group, place)
    lines = _Lines()
    for head in heads:
        lines.add(weights[group.heads.index(head)] / len(heads), COLOURS[head % 10], (0.0, 1.0), (0.0, 1.0))
    faintest = lines.draw(axes, 1.4)
    step = max(1, round(group.longest * _LINE / tall))  # of a text too long for a page every n-th token is named
    for texts, x, side in ((left, -0.03, "right"), (right, 1.03, "left")):
        for row in range(0, len(texts), step):
            write(axes.text(x, row, "", ha=side, va="center", fontsize=8), shortened(texts[row]), fonts)
    write(axes.text(-0.72, -1.5 * step, "", ha="left", va="center", fontsize=7), str(Text("head", "头")), fonts)
    for number, head in enumerate(heads):
        x, y = -0.5 + (number % _IN_A_ROW) * 2.2 / _IN_A_ROW, -step * (1.5 + number // _IN_A_ROW)
        axes.plot([x], [y], marker="s", markersize=5, color=COLOURS[head % 10], linestyle="none")
        write(axes.text(x + 0.04, y, "", ha="left", va="center", fontsize=7), str(head), fonts)
    axes.set(xlim=(-0.75, 1.75), ylim=(group.longest - 0.4, -step * (2.2 + (len(heads) - 1) // _IN_A_ROW)))
    axes.axis("off")
    _write_around(figure, axes, headings, notes, faintest, fonts)
    return figure


def all_heads_figure(group: Group, title: Text | str, notes: Sequence[Text]) -> Any:
    """A small picture of every head: a row a layer, a column a head; colours tell layers apart."""
    headings = [str(title), str(group.name)]
    fonts = fonts_for([*headings, *map(str, notes)])
    columns, rows = len(group.heads), len(group.maps)
    figure = new_figure(max(_WIDTH, 0.6 * columns + 0.6), max(0.6 * rows, 1.2) + 1.1 + 0.25 * len(notes))
    axes = figure.add_subplot()
    lines = _Lines()
    for row, layer in enumerate(group.layers):
        weights = _numbers(group, row)
        for column in range(columns):
            step = _PICTURE / max(group.longest - 1, 1)
            lines.add(weights[column], COLOURS[layer % 10], (column, column + _PICTURE), (row, step))
    faintest = lines.draw(axes, min(1.0, 24 / group.longest))
    axes.set(xlim=(-0.15, columns), ylim=(rows, -0.15))
    label_ticks(axes.xaxis, [str(head) for head in group.heads], fonts)
    label_ticks(axes.yaxis, [str(layer) for layer in group.layers], fonts)
    axes.set_xticks([n + _PICTURE / 2 for n in axes.get_xticks()], axes.get_xticklabels())
    axes.set_yticks([n + _PICTURE / 2 for n in axes.get_yticks()], axes.get_yticklabels())
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    write(axes.xaxis.label, str(Text("head", "头")), fonts)
    write(axes.yaxis.label, str(Text("layer", "层")), fonts)
    _write_around(figure, axes, headings, notes, faintest, fonts)
    return figure


class _Lines:
    """Lines from left to right, the strength of each its weight."""

    def __init__(self) -> None:
        self._ends: list[npt.NDArray[Any]] = []
        self._colours: list[npt.NDArray[Any]] = []

    def add(
        self, weights: npt.NDArray[Any], colour: str, across: tuple[float, float], down: tuple[float, float]
    ) -> None:
        """The lines of one head, ``[query, key]``; ``down`` is where the first token stands, and a token's height."""
        from matplotlib.colors import to_rgb

        queries, keys = np.nonzero(weights > _INVISIBLE)
        start, step = down
        ends = np.empty((len(queries), 2, 2))
        ends[:, 0, 0], ends[:, 1, 0] = across
        ends[:, 0, 1], ends[:, 1, 1] = start + queries * step, start + keys * step
        colours = np.empty((len(queries), 4))
        colours[:, :3], colours[:, 3] = to_rgb(colour), weights[queries, keys].clip(0, 1)
        self._ends.append(ends)
        self._colours.append(colours)

    def draw(self, axes: Any, width: float) -> float:
        """Draws the strongest; the strength below which lines were left out, 0 where none were that can be seen."""
        from matplotlib.collections import LineCollection

        ends, colours = np.concatenate(self._ends), np.concatenate(self._colours)
        order = np.argsort(colours[:, 3])[-_MOST:]
        faintest = float(colours[order[0], 3]) if len(order) < len(colours) else 0.0
        lines = LineCollection(ends[order], colors=colours[order], linewidths=width)
        lines.set_rasterized(len(order) > _PATHS)
        axes.add_collection(lines)
        return faintest


def _numbers(group: Group, place: int) -> npt.NDArray[Any]:
    """``[head, query, key]``; undefined rows have no lines."""
    numbers: npt.NDArray[Any] = group.weights(place).detach().cpu().float().nan_to_num().numpy()
    return numbers


def _write_around(
    figure: Any, axes: Any, headings: Sequence[str], notes: Sequence[Text], faintest: float, fonts: Sequence[str]
) -> None:
    _write_lines(axes.set_title("", fontsize=9), [line for heading in headings for line in _folded(heading, 62)], fonts)
    below = [*map(str, notes)]
    if faintest:
        below.append(
            str(Text(f"Lines fainter than {faintest:.3f} are left out.", f"略去了浓度小于 {faintest:.3f} 的线条。"))
        )
    if below:
        folded = [line for sentence in below for line in _folded(sentence, _FOLD)]
        _write_lines(figure.supxlabel("", fontsize=6.5), folded, fonts)


def _write_lines(text: Any, lines: Sequence[str], fonts: Sequence[str]) -> None:
    write(text, "", fonts)
    text.set_text("\n".join(map(readable, lines)))


def _folded(text: str, width: int) -> list[str]:
    """The text in lines of so many letters; a Chinese character takes the place of two.

    >>> _folded("one two three", 8), _folded("两个字", 4)
    (['one two ', 'three'], ['两个', '字'])
    """
    lines, taken = [""], 0
    for word in re.findall(r"[\u2e80-\uffef]|[^\s\u2e80-\uffef]+\s*|\s+", text):
        wide = sum(2 if ord(c) > 0x2E80 else 1 for c in word.rstrip())
        if taken + wide > width and lines[-1]:
            lines.append("")
            taken = 0
        lines[-1] += word
        taken += sum(2 if ord(c) > 0x2E80 else 1 for c in word)
    return lines
