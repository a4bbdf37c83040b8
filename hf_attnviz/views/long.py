"""A long text at a glance: what each head does along it, which keys receive most, and what flows through the layers.

The numbers are those of statistics row by row, so no map is needed; what a text has more of than the picture has pixels
is drawn in bins, each with its least, mean and largest number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch

from hf_attnviz.axes import GROUP, HEAD, KEY, LAYER, QUERY, STATISTIC
from hf_attnviz.errors import ArgumentError, listed
from hf_attnviz.language import Text
from hf_attnviz.legible import visible
from hf_attnviz.result import Result
from hf_attnviz.view import View
from hf_attnviz.views import figures
from hf_attnviz.views.encoding import packed
from hf_attnviz.views.heatmap import about
from hf_attnviz.views.long_data import bin_size, binned, coded, flow_bin_size, most, strongest_packed, texts_packed
from hf_attnviz.views.long_figure import figure
from hf_attnviz.views.page import fragment, in_both, own, page
from hf_attnviz.views.words import statistic_words

_WANTED: Final = {
    "rows": (STATISTIC, LAYER, HEAD, QUERY),
    "received": (LAYER, HEAD, KEY),
    "rolled": (LAYER, QUERY, GROUP),
}


@dataclass(frozen=True, eq=False)
class Along:
    """What is drawn of one stack.

    Attributes:
        rows: the result of ``row_statistics``, ``[statistic, layer, head, query]``.
        received: that of ``received``, ``[layer, head, key]``.
        rolled: rollout to groups of keys, ``[layer, query, group]``; None where it was not kept.
        strongest: weights and places of the strongest keys, each ``[layer, head, query, rank]``; or None.
    """

    rows: Result
    received: Result
    rolled: Result | None = None
    strongest: tuple[torch.Tensor, torch.Tensor] | None = None

    def __post_init__(self) -> None:
        for name, axes in _WANTED.items():
            result = getattr(self, name)
            if result is not None and tuple(axis.name for axis in result.axes) != axes:
                raise ArgumentError(
                    Text(
                        f"{name}: expected axes {listed(axes)}; got {listed(a.name for a in result.axes)}",
                        f"{name}：应有轴 {listed(axes)}；得到 {listed((a.name for a in result.axes), '无')}",
                    )
                )


def along_view(along: Along, *, title: Text | str | None = None, layer: int | None = None) -> View:
    """One page: a map of the heads, and for the one that is chosen its statistics along the text."""
    rows, received = along.rows, along.received
    names, layers, heads, queries = (axis.labels for axis in rows.axes)
    keys = received.axes[-1].labels
    series = (len(names) + 1) * len(layers) * len(heads)
    sizes = bin_size(len(queries), series), bin_size(len(keys), series)
    rolled = along.rolled
    data = {
        "layers": list(layers),
        "heads": len(heads),
        "start": _start(layers, layer),
        "statistics": [_named(name) for name in names],
        "means": packed(_means(rows.values)),
        "even": None if rows.baseline is None else packed(_means(rows.baseline)),
        "queries": _side(queries, sizes[0]),
        "keys": None if keys == queries else _side(keys, sizes[1]),
        "rows": _series(rows.values, sizes[0]),
        "rowsEven": None if rows.baseline is None else _series(rows.baseline[:, 0, 0], sizes[0]),
        "received": _series(received.values, sizes[1]),
        "receivedEven": None if received.baseline is None else _series(received.baseline[0, 0], sizes[1]),
        "most": most(received.values, received.baseline),
        "total": [float(v) for v in received.values.double().nansum(-1).flatten().tolist()],
        "rolled": None if rolled is None else _flow(rolled),
        "strongest": None if along.strongest is None else strongest_packed(*along.strongest),
    }
    heading = title or Text("Along the text", "沿文本观察")
    return page(
        heading,
        fragment("long.html", rolled=rolled is not None, strongest=along.strongest is not None),
        how_to_read=_reading(along, max(sizes)),
        footer=about(rows),
        data=data,
        scripts=[own("colours.js"), own("long.js")],
        style=own("long.css"),
        wide=True,
        height=1500,
        figures=figures.files(partial(figure, rows, received, _start(layers, layer), str(heading))),
    )


def _start(layers: Sequence[str], layer: int | None) -> int:
    return layers.index(str(layer)) if layer is not None and str(layer) in layers else 0


def _named(name: str) -> dict[str, Any]:
    word, meaning = statistic_words(name)
    return {"name": in_both(word), "meaning": in_both(meaning), "share": name == "first_token"}


def _means(values: torch.Tensor) -> Any:
    """``[statistic, layer, head, query]`` → the mean over the rows for which it is defined."""
    return values.detach().double().nanmean(-1).float().cpu().numpy()


def _side(texts: Sequence[str], size: int) -> dict[str, Any]:
    return {"count": len(texts), "size": size, "texts": texts_packed(texts)}


def _series(values: torch.Tensor, size: int) -> dict[str, Any]:
    """``[…, position]`` as series one after another."""
    found = binned(values, size)
    return coded(found.reshape(found.shape[0], -1, found.shape[-1]))


def _flow(rolled: Result) -> dict[str, Any]:
    """Means over the rows of a bin, a series a layer and group, and the same of uniform attention."""
    layers, queries, groups = (axis.labels for axis in rolled.axes)
    size = flow_bin_size(len(queries), len(layers) * len(groups))

    def means(values: torch.Tensor) -> dict[str, Any]:
        found = binned(values.transpose(1, 2), size)
        return coded(found[len(found) // 2].reshape(1, len(layers) * len(groups), -1))

    return {
        "layers": list(layers),
        "groups": list(map(visible, groups)),
        "size": size,
        "values": means(rolled.values),
        "even": None if rolled.baseline is None else means(rolled.baseline),
    }


_MAP: Final = Text(
    "The map: a row is a layer (0 is nearest the input), a column is a head, colour the mean over all rows. Choose "
    "one, and the pictures below show it along the text: from left to right the positions. Choose a position in any of "
    "them, and all show it.",
    "头图：每行是一层（0 层最靠近输入），每列是一个头，颜色为所有行的平均。选中一个头，下方各图即沿文本显示它："
    "自左至右为位置。在任一图中选中位置，各图同步显示。",
)
_DASHED: Final = Text(
    "The dashed line is uniform attention: even over all keys that a row may see. What a key receives is the sum of "
    "its weights over all rows, drawn on a logarithmic scale.",
    "虚线为均匀注意力：在一行可看的所有键上均匀。键所得为其在所有行上的权重之和，按对数刻度绘制。",
)
_FLOW: Final = Text(
    "What flows through the layers is attention rollout (Abnar & Zuidema 2020): how much of each row, up to a layer, "
    "comes from each stretch of the text. It drifts by itself: hold it against uniform attention.",
    "逐层流动的内容即注意力 Rollout（Abnar & Zuidema 2020）：到某层为止，每行有多少来自文本的各段。"
    "它自身会漂移：请与均匀注意力对照。",
)
_NOT_SHOWN: Final = Text(
    "Not shown: which key a row looks at where only statistics were kept, and whether the output depends on any of it. "
    "Attention is not an explanation.",
    "未显示：仅保留统计量时，某一行看向哪个键；以及输出是否依赖于它们。注意力本身不是解释。",
)


def _reading(along: Along, largest: int) -> list[Text]:
    bins = Text(
        f"Up to {largest} positions share a bin: the line is their mean, the band reaches from the least to the "
        "largest. The means in the map of the heads are of all rows.",
        f"至多 {largest} 个位置合为一格：线为平均，色带自最小至最大。头图中的平均取自所有行。",
    )
    flow = (_FLOW, *along.rolled.notes) if along.rolled is not None else ()
    notes = (*along.rows.notes, *along.received.notes)
    return list(dict.fromkeys([_MAP, _DASHED, *([bins] if largest > 1 else []), *flow, *notes, _NOT_SHOWN]))
