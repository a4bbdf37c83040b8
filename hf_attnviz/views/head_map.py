"""Heads as points on a plane: near ones look at the same things."""

from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hf_attnviz.axes import HEAD, LAYER, OTHER_HEAD, STATISTIC
from hf_attnviz.errors import ArgumentError, listed
from hf_attnviz.language import Text
from hf_attnviz.legible import visible
from hf_attnviz.result import Result
from hf_attnviz.view import View
from hf_attnviz.views import figures
from hf_attnviz.views.encoding import packed
from hf_attnviz.views.page import fragment, in_both, own, page
from hf_attnviz.views.words import axis_word, method_word, statistic_words, unit_word

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


_BESIDE: Final = Text(
    "Beside it: how far every two heads are apart (Jensen–Shannon divergence: 0 is alike), in the order of a "
    "clustering, so that groups of like heads are squares of small numbers along the diagonal. Point at either; both "
    "show it.",
    "右侧：每两个头之间的距离（Jensen–Shannon 散度，0 为相同），按聚类次序排列，相近的头在对角线上成数值小的方块。"
    "指向任一侧，两侧同步显示。",
)


def head_map_view(
    result: Result,
    *,
    statistics: Result | None = None,
    likeness: Result | None = None,
    title: Text | str | None = None,
) -> View:
    """A scatter picture of the result of ``head_map(traces)``: its first two dimensions. Saves as svg, png, pdf too.

    Args:
        statistics: the result of ``head_statistics`` of the same traces: what is told of the head that is pointed at.
        likeness: that of ``head_correlation(traces, method="js")``: drawn beside the map in cluster order.

    Raises:
        ArgumentError: other axes than ``head, statistic``, fewer than two dimensions, no head with a place; statistics
            or likeness of other heads.
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
    _check(result, statistics, likeness)
    heading = title or method_word(result.method)
    missing = [result.axes[0].labels[n] for n in range(len(places)) if n not in set(known)]
    beside = [] if likeness is None else [_BESIDE]
    notes = [_READING[0], *beside, *result.notes, *([_undefined(missing)] if missing else []), _READING[1]]
    return page(
        heading,
        fragment("head_map.html", **_picture(places[known], names), beside=likeness is not None),
        how_to_read=notes,
        footer=[Text(f"Source: {result.source}", f"出处：{result.source}")],
        data={
            "heads": [int(n) for n in known],
            "names": list(map(visible, result.axes[0].labels)),
            "statistics": [] if statistics is None else [in_both(statistic_words(n)[0]) for n in _names(statistics)],
            "numbers": None if statistics is None else packed(_flat(statistics)),
            "likeness": None if likeness is None else packed(likeness.values.detach().float().cpu().numpy()),
            "order": None if likeness is None else list(likeness.axes[0].order or range(len(places))),
            "unit": in_both(unit_word("" if likeness is None else likeness.unit)),
        },
        scripts=[own("colours.js"), own("head_map.js")],
        style=own("head_map.css"),
        wide=likeness is not None,
        height=_SIDE + 60,
        figures=figures.files(partial(_figure, places[known], names, str(heading))),
    )


def _check(result: Result, statistics: Result | None, likeness: Result | None) -> None:
    heads = len(result.axes[0].labels)
    for name, one, axes in (
        ("statistics", statistics, [STATISTIC, LAYER, HEAD]),
        ("likeness", likeness, [HEAD, OTHER_HEAD]),
    ):
        if one is not None and ([axis.name for axis in one.axes] != axes or one.values[0].numel() != heads):
            came = listed(f"{axis.name} ({len(axis.labels)})" for axis in one.axes)
            raise ArgumentError(
                Text(
                    f"{name}: expected axes {listed(axes)} of the same {heads} heads, got {came}",
                    f"{name}：应有轴 {listed(axes)}，且为同样的 {heads} 个头，得到 {came}",
                )
            )


def _names(statistics: Result) -> tuple[str, ...]:
    return statistics.axes[0].labels


def _flat(statistics: Result) -> npt.NDArray[Any]:
    """``[statistic, head]``, float32, heads layer after layer."""
    values: npt.NDArray[Any] = statistics.values.detach().float().cpu().flatten(1).numpy()
    return values


def _undefined(names: list[str]) -> Text:
    listed_names = " ".join(names[:20])
    return Text(f"Without a place (undefined): {listed_names}", f"没有位置（未定义）：{listed_names}")


def _layer(name: str) -> str:
    """``L0H3`` → ``0``."""
    return name[1:].partition("H")[0]


def _colours(names: list[str], low: float = 0.0, high: float = 0.95) -> dict[str, str]:
    """A colour for each layer, from dark to light as layers rise; from ``low`` on, so that it stands out from the
    background."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    layers = list(dict.fromkeys(map(_layer, names)))
    shades = colormaps["viridis"](np.linspace(low, high, max(len(layers), 2)))
    return {layer: to_hex(shade) for layer, shade in zip(layers, shades, strict=False)}


def _picture(places: npt.NDArray[np.float64], names: list[str]) -> dict[str, Any]:
    """What the template draws: points in a square, one scale for both dimensions."""
    low, span = places.min(0), max(float(np.ptp(places, axis=0).max()), 1e-9)
    middle = (span - np.ptp(places, axis=0)) / 2
    inside = (places - low + middle) / span * (_SIDE - 2 * _MARGIN) + _MARGIN
    light, dark = _colours(names), _colours(names, 0.3, 1.0)
    layers = [(layer, colour, dark[layer]) for layer, colour in light.items()]
    points = [
        {"x": f"{x:.1f}", "y": f"{_SIDE - y:.1f}", "name": visible(name), "colour": light[layer], "dark": dark[layer]}
        for (x, y), name, layer in zip(inside, names, map(_layer, names), strict=True)
    ]
    return {"side": _SIDE, "points": points, "named": len(points) <= _MOST_NAMES, "layers": layers}


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
