"""A long text on paper: for each statistic the map of the heads, and beside it one head along the text."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from hf_attnviz.axes import HEAD, LAYER
from hf_attnviz.language import Text
from hf_attnviz.result import Result
from hf_attnviz.views import figures
from hf_attnviz.views.long_data import binned
from hf_attnviz.views.words import axis_word, statistic_words

_BINS: Final = 256  # along the text; a line on paper shows no more
_LINE, _EVEN = "#0868ac", "#57606a"
_RECEIVED: Final = Text("received by each key", "各键所得")
_MOST: Final = Text("received by one key, at most", "单个键所得的最大值")
_POSITION: Final = Text("position", "位置")

Floats = npt.NDArray[np.float64]


def figure(rows: Result, received: Result, start: int, title: str) -> Any:
    """The panels of ``row_statistics`` and ``received`` of one stack; ``start``: the layer whose first head is drawn
    along the text."""
    names, layers, heads, _ = (axis.labels for axis in rows.axes)
    count, across = len(names) + 1, figures.beside(2)
    drawn = figures.new_figure(4 * across, 1.7 * count * (3 - across) + 0.5)
    fonts = figures.fonts_for([title, *layers, *heads])
    figures.write(drawn.suptitle("", fontsize=11), title, fonts)
    grid = drawn.add_gridspec(count * (3 - across), across, width_ratios=(1, 2)[-across:])
    places = [grid[n // across, n % across] for n in range(2 * count)]
    words = [str(statistic_words(name)[0]) for name in names]
    for n, (values, even) in enumerate(_each(rows, received)):
        last = n == len(names)
        most = values.max(-1, initial=-np.inf, where=np.isfinite(values)) if last else _mean(values)
        _heads(drawn, places[2 * n], most, (layers, heads), str(_MOST) if last else words[n])
        panel = drawn.add_subplot(places[2 * n + 1])
        _along(panel, values[start, 0], None if even is None else even[start, 0], log=last)
        head = f"L{layers[start]}H{heads[0]}"
        figures.write(panel.set_title("", fontsize=9), f"{head} · {_RECEIVED if last else words[n]}")
        if last:
            figures.write(panel.xaxis.label, str(_POSITION))
    return drawn


def _each(rows: Result, received: Result) -> list[tuple[Floats, Floats | None]]:
    """Values ``[layer, head, position]`` of each statistic, and of uniform attention where it is known."""
    one = rows.to_numpy(), None if rows.baseline is None else rows.baseline.cpu().numpy()
    pairs = [(values, None if one[1] is None else one[1][n]) for n, values in enumerate(one[0])]
    last = None if received.baseline is None else received.baseline.cpu().numpy()
    return [*pairs, (received.to_numpy(), last)]


def _mean(values: Floats) -> Floats:
    known = np.isfinite(values)
    count = known.sum(-1)
    return np.where(count > 0, np.where(known, values, 0).sum(-1) / np.maximum(count, 1), np.nan)


def _heads(drawn: Any, place: Any, means: Floats, labels: Sequence[Sequence[str]], name: str) -> None:
    panel = drawn.add_subplot(place)
    low, high, diverging = figures.limits(means)
    image = figures.heat(panel, means, diverging=diverging, low=low, high=high)
    figures.label_ticks(panel.yaxis, labels[0])
    figures.label_ticks(panel.xaxis, labels[1])
    figures.write(panel.yaxis.label, str(axis_word(LAYER)))
    figures.write(panel.xaxis.label, str(axis_word(HEAD)))
    figures.write(panel.set_title("", fontsize=9), name)
    drawn.colorbar(image, ax=panel, shrink=0.9).ax.tick_params(labelsize=7)


def _along(panel: Any, values: Floats, even: Floats | None, *, log: bool) -> None:
    """The mean of each bin as a line, from its least to its largest as a band; uniform attention dashed."""
    size = -(-len(values) // _BINS)
    bins = binned(torch.from_numpy(np.asarray(values, dtype=np.float64)), size)
    places = (np.arange(bins.shape[-1]) + 0.5) * size - 0.5
    if len(bins) == 3:
        panel.fill_between(places, bins[0], bins[2], color=_LINE, alpha=0.25, linewidth=0)
    panel.plot(places, bins[len(bins) // 2], color=_LINE, linewidth=1, marker="." if len(places) == 1 else None)
    if even is not None:
        middle = binned(torch.from_numpy(np.asarray(even, dtype=np.float64)), size)
        panel.plot(places, middle[len(middle) // 2], color=_EVEN, linewidth=1, linestyle="--")
    if log and np.nanmax(np.where(np.isfinite(values), values, 0)) > 0:
        panel.set_yscale("log", nonpositive="mask")
    panel.tick_params(labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)
