"""Heads as points on a plane: near ones look at the same things."""

from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hf_attnviz.axes import HEAD, LAYER, STATISTIC
from hf_attnviz.errors import ArgumentError, listed
from hf_attnviz.language import Text
from hf_attnviz.legible import visible
from hf_attnviz.result import Result
from hf_attnviz.view import View
from hf_attnviz.views import figures
from hf_attnviz.views.page import fragment, own, page
from hf_attnviz.views.words import axis_word, method_word

_SIDE: Final = 620  # of the picture, in its own units
_MARGIN: Final = 46
_MOST_NAMES: Final = 60  # beyond, names are told on hovering only
_READING: Final = (
    Text(
        "A point is a head (L0H3 is head 3 of layer 0), its colour the layer. Points stand close together where heads "
        "spread their weights alike on the same rows.",
        "每个点是一个头（L0H3 即第 0 层第 3 头），颜色表示层。在相同的行上权重分布相近的头彼此靠近。",
    ),
    Text(
        "Not shown: why heads are alike. A shared sink brings very different heads together.",
        "未显示：头为何相似。共同的汇点会让很不相同的头靠在一起。",
    ),
)


def head_map_view(result: Result, *, title: Text | str | None = None) -> View:
    """A scatter picture of the result of ``head_map(traces)``: its first two dimensions. Saves as svg, png, pdf too.

    Raises:
        ArgumentError: other axes than ``head, statistic``, fewer than two dimensions, or no head with a place.
    """
    if [axis.name for axis in result.axes] != [HEAD, STATISTIC] or len(result.axes[1].labels) < 2:
        came = listed(f"{axis.name} ({len(axis.labels)})" for axis in result.axes)
        raise ArgumentError(
            Text(
                f"expected axes head, statistic with two dimensions, as head_map gives; got {came}",
                f"应有轴 head, statistic，且为二维，如 head_map 所给；得到 {came}",
            )
        )
    places = result.to_numpy()[:, :2].astype(np.float64)
    known = np.flatnonzero(np.isfinite(places).all(1))
    if not known.size:
        raise ArgumentError(
            Text(
                "expected at least one head with a place, got NaN alone; every head's rows are undefined",
                "应至少有一个头有位置，得到的全是 NaN；所有头的行都未定义",
            )
        )
    names = [result.axes[0].labels[n] for n in known]
    heading = title or method_word(result.method)
    missing = [result.axes[0].labels[n] for n in range(len(places)) if n not in set(known)]
    notes = [_READING[0], *result.notes, *([_undefined(missing)] if missing else []), _READING[1]]
    return page(
        heading,
        fragment("head_map.html", **_picture(places[known], names)),
        how_to_read=notes,
        footer=[Text(f"Source: {result.source}", f"出处：{result.source}")],
        scripts=["attnviz.ready();"],
        style=own("head_map.css"),
        height=_SIDE + 60,
        figures=figures.files(partial(_figure, places[known], names, str(heading))),
    )


def _undefined(names: list[str]) -> Text:
    listed_names = " ".join(names[:20])
    return Text(f"Without a place (undefined): {listed_names}", f"没有位置（未定义）：{listed_names}")


def _layer(name: str) -> str:
    """``L0H3`` → ``0``."""
    return name[1:].partition("H")[0]


def _colours(names: list[str]) -> dict[str, str]:
    """A colour for each layer, from dark to light as layers rise."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    layers = list(dict.fromkeys(map(_layer, names)))
    shades = colormaps["viridis"](np.linspace(0, 0.95, max(len(layers), 2)))
    return {layer: to_hex(shade) for layer, shade in zip(layers, shades, strict=False)}


def _picture(places: npt.NDArray[np.float64], names: list[str]) -> dict[str, Any]:
    """What the template draws: points in a square, one scale for both dimensions."""
    low, span = places.min(0), max(float(np.ptp(places, axis=0).max()), 1e-9)
    middle = (span - np.ptp(places, axis=0)) / 2
    inside = (places - low + middle) / span * (_SIDE - 2 * _MARGIN) + _MARGIN
    colours = _colours(names)
    points = [
        {"x": f"{x:.1f}", "y": f"{_SIDE - y:.1f}", "name": visible(name), "colour": colours[_layer(name)]}
        for (x, y), name in zip(inside, names, strict=True)
    ]
    return {"side": _SIDE, "points": points, "named": len(points) <= _MOST_NAMES, "layers": list(colours.items())}


def _figure(places: npt.NDArray[np.float64], names: list[str], title: str) -> Any:
    figure = figures.new_figure(6, 6)
    fonts = figures.fonts_for([title, str(axis_word(LAYER)), *names])
    panel = figure.add_subplot(1, 1, 1)
    figures.write(figure.suptitle("", fontsize=11), title, fonts)
    for layer, colour in _colours(names).items():
        x, y = places[[_layer(name) == layer for name in names]].T
        panel.scatter(x, y, color=colour, edgecolors="black", linewidths=0.4, label=layer)
    for place, name in zip(places, names if len(names) <= _MOST_NAMES else [], strict=False):
        label = panel.annotate("", place, xytext=(4, 3), textcoords="offset points", fontsize=7)
        figures.write(label, name, fonts)
    panel.set_aspect("equal", adjustable="datalim")
    legend = panel.legend(fontsize=7, title=" ")
    figures.write(legend.get_title(), str(axis_word(LAYER)), fonts)
    return figure
