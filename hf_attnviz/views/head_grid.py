"""Every head of every layer on one page: small coarse maps, a map of the heads by any statistic, one head enlarged.

Thumbnails are means over blocks; the head that is enlarged is not coarse: each of its weights is within the bound that
the page states (:mod:`hf_attnviz.views.sparse_encoding`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from hf_attnviz.axes import HEAD, LAYER, STATISTIC
from hf_attnviz.errors import ArgumentError, UnknownNameError, listed
from hf_attnviz.language import Text, counted
from hf_attnviz.result import Result
from hf_attnviz.view import View
from hf_attnviz.views import figures
from hf_attnviz.views.encoding import SHADES, UNDEFINED, WEIGHT_ERROR, WEIGHT_NOTE, megabytes, weight_note
from hf_attnviz.views.groups import Group, starting_place
from hf_attnviz.views.head_grid_data import exactly, fitted, numbers, payload, thumbnails
from hf_attnviz.views.page import fragment, own, page
from hf_attnviz.views.sparse_encoding import STRETCH, Bytes
from hf_attnviz.views.words import axis_word


@dataclass(frozen=True, eq=False)
class Panel:
    """What is drawn together: maps, and numbers of their heads.

    Attributes:
        group: maps of one shape, one a layer.
        results: numbers ``[layer, head]``, or ``[statistic, layer, head]``, of exactly these layers and heads.
    """

    group: Group
    results: tuple[Result, ...] = ()

    def __post_init__(self) -> None:
        expected = [tuple(map(str, self.group.layers)), tuple(map(str, self.group.heads))]
        for result in self.results:
            names, labels = [a.name for a in result.axes], [a.labels for a in result.axes[-2:]]
            if names not in ([STATISTIC, LAYER, HEAD], [LAYER, HEAD]) or labels != expected:
                came = listed(f"{axis.name} ({len(axis.labels)})" for axis in result.axes)
                raise ArgumentError(
                    Text(
                        f"expected numbers of the {len(expected[0])} layers and {len(expected[1])} heads that are "
                        f"drawn, axes layer, head or statistic, layer, head; got {result.method} with {came}",
                        f"应为所画的 {len(expected[0])} 层、{len(expected[1])} 个头的数，轴为 layer, head 或 "
                        f"statistic, layer, head；得到 {result.method}，{came}",
                    )
                )


def grid_view(
    panels: Sequence[Panel],
    *,
    layer: int | None = None,
    statistic: str | None = None,
    exact: bool = False,
    model: str = "",
    title: Text | str | None = None,
) -> View:
    """The page; saves as svg, png and pdf, too: the thumbnails of the group that is shown first.

    Args:
        panels: groups of maps with their numbers; a menu when there are several.
        layer: the layer whose first head is enlarged at first; default: the first.
        statistic: the numbers that the map of the heads shows at first; default: the first there are.
        exact: embed 16-bit floats, whatever they take.
        model: its name.
        title: the page's heading.

    Raises:
        UnknownNameError: no such layer or statistic; the message lists those there are.
        ArgumentError: weights outside 0 to 1; exact weights that no browser would open.
    """
    found = [panel.group for panel in panels]
    start, place = starting_place(found, layer)
    told = [[one for result in panel.results for one in numbers(result)] for panel in panels]
    chosen = _place_of(statistic, told[start])
    bound, heads = (0.0, exactly(found)) if exact else fitted(found)
    thumbs = [thumbnails(group) for group in found]
    data = {
        "groups": [payload(*one) for one in zip(found, told, thumbs, heads, strict=True)],
        "start": {"group": start, "layer": place, "statistic": chosen},
        "exact": exact,
        "bound": bound,
        "within": max(bound, WEIGHT_ERROR),
        "stretch": STRETCH,
        "shades": SHADES,
        "undefined": UNDEFINED,
    }
    named = Text(f"Every head: {model}", f"所有注意力头：{model}") if model else Text("Every head", "所有注意力头")
    size = sum(len(text) for group in heads for text in group)
    return page(
        title or named,
        fragment("head_grid.html"),
        how_to_read=[*_READING, _held(bound, size, exact=exact), *_SIDES],
        footer=_about(model, found),
        data=data,
        scripts=[own(name) for name in ("colours.js", "head_grid_parts.js", "head_grid_large.js", "head_grid.js")],
        style=own("head_grid.css"),
        wide=True,
        height=1150,
        figures=figures.files(partial(_figure, found[start], thumbs[start], str(title or named))),
    )


def _place_of(statistic: str | None, told: Sequence[Mapping[str, Any]]) -> int:
    names = [one["id"] for one in told]
    if statistic is None:
        return 0
    if statistic not in names:
        raise UnknownNameError(
            Text(
                f"no statistic {statistic!r} of these heads; there are: {listed(names)}",
                f"这些头没有统计量 {statistic!r}；可用：{listed(names, '无')}",
            )
        )
    return names.index(statistic)


_READING: Final = (
    Text(
        "Each small picture is one head: a row of pictures is a layer (0 is nearest the input), a column is a head "
        "number. The strip beneath is the head's number by the statistic chosen. Click a head, or press Enter on it, "
        "and it is enlarged.",
        "每个小图是一个头：一行是一层（0 层最靠近输入），一列是一个头号。下方色条是该头在所选统计量上的数值。"
        "单击某头（或在其上按回车）即放大。",
    ),
    Text(
        "In a map, a row is the token that looks (query), a column the token that is looked at (key). Colour is the "
        "square root of the weight, so that small weights are seen: the middle of a bar is a quarter of its end. Small "
        "maps share one scale, 0 to 1, unless the menu says otherwise; the enlarged head’s colours end at its own "
        "largest weight, so compare its numbers, not its colours, with other heads.",
        "图中一行是发出注意的词元（查询），一列是被注意的词元（键）。颜色表示权重的平方根，使小权重也可见："
        "色条正中为其末端的四分之一。小图默认共用 0 到 1 的标度；放大的头以自身最大权重为上限："
        "与其他头请比较数值，而非颜色。",
    ),
    Text(
        "Small pictures are coarse where a text has more than 64 tokens: a cell is the share of a row’s weight that "
        "goes to a block of keys, mean over a block of rows. The enlarged head is not coarse: it holds every weight. "
        "Where it has more weights than pixels, a pixel is the largest of its weights; zoom in, or look into the lens.",
        "文本超过 64 个词元时小图是粗略的：每格是一行权重中落在一段键上的份额，对一段行取平均。"
        "放大的头不是粗略的：它含有每一个权重。当权重多于像素时，一个像素取其中最大的权重；可放大，或看透镜。",
    ),
)
_SIDES: Final = (
    Text(
        "Each row of weights sums to one, unless the model gives part of it to a sink; what a causal model may not see "
        "is 0. Hatched rows are undefined (everything is masked).",
        "每一行权重之和为一，除非模型把一部分分给了汇点；因果模型看不到的位置为 0。带斜纹的行未定义（全部被遮蔽）。",
    ),
    Text(
        "Not shown: what the attended token carries, and whether the output depends on it. Attention is not an "
        "explanation.",
        "未显示：被注意的词元究竟携带了什么，以及输出是否依赖于它。注意力本身不是解释。",
    ),
)


def _held(bound: float, size: int, *, exact: bool) -> Text:
    """How near the enlarged head's numbers are to the real ones, and what they take."""
    if exact:
        return weight_note(size, exact=True)
    amount = megabytes(size)
    takes = Text(f" They take {amount} of this page.", f"它们占此页 {amount}。")
    if bound == 0:
        told = WEIGHT_NOTE
    else:
        told = Text(
            f"A weight that stands out is stored in one byte, within {WEIGHT_ERROR} of the real number. For each of "
            f"the others, written with ≈, stands the mean of those others among {STRETCH} neighbouring keys of its "
            f"row, within {bound} of the real number: pale steps every {STRETCH} keys are of the page, not of the "
            "model.",
            f"突出的权重各用一个字节存储，与真实值相差不超过 {WEIGHT_ERROR}。其余权重（写作 ≈）以同一行相邻 {STRETCH} "
            f"个键中其余权重的平均表示，与真实值相差不超过 {bound}：每 {STRETCH} 个键一处的浅色台阶来自此页，"
            "而非模型。",
        )
    if bound > WEIGHT_ERROR:
        told = Text(
            f"{told.en} That is coarser than the usual {WEIGHT_ERROR}, for otherwise the page would be larger than 25 "
            "MB: choose one stack, or capture fewer layers, for finer numbers.",
            f"{told.zh}这比通常的 {WEIGHT_ERROR} 粗略，否则此页会超过 25 MB：要更精细的数值，请只选一个栈，"
            "或捕获更少的层。",
        )
    return Text(told.en + takes.en, told.zh + takes.zh)


def _about(model: str, found: Sequence[Group]) -> list[Text]:
    english = "; ".join(
        f"{g.name.en}: {counted(len(g.maps), 'layer')} × {counted(len(g.heads), 'head')}" for g in found
    )
    chinese = "；".join(f"{g.name.zh}：{len(g.maps)} 层 × {len(g.heads)} 头" for g in found)
    lines = [Text(f"{english}. Layer numbers are the model's block indices.", f"{chinese}。层号为模型的块序号。")]
    return [*([Text(f"Model: {model}", f"模型：{model}")] if model else []), *lines]


def _figure(group: Group, thumbs: Bytes, title: str) -> Any:
    """All thumbnails in one panel, and a colour bar for all."""
    from matplotlib.colors import PowerNorm
    from matplotlib.patches import Rectangle

    layers, heads = group.layers, len(group.heads)
    shares = np.where(thumbs == UNDEFINED, np.nan, (thumbs / SHADES) ** 2)
    figure = figures.new_figure(min(1.6 + 0.62 * heads, 12), min(1.2 + 0.62 * len(layers), 12))
    words = [str(axis_word(LAYER)), str(axis_word(HEAD)), str(_BAR)]
    fonts = figures.fonts_for([title, *words])
    figures.write(figure.suptitle("", fontsize=11), title, fonts)
    panel = figure.add_subplot(1, 1, 1)
    for n, one in enumerate(shares):
        row, column = divmod(n, heads)
        corner, side = (column - 0.46, row - 0.46), 0.92
        if np.isnan(one).any():  # rows that are undefined
            panel.add_patch(Rectangle(corner, side, side, facecolor="#e9ebee", edgecolor="#a9b0b9", hatch="////", lw=0))
        image = panel.imshow(
            np.ma.masked_invalid(one),
            cmap="GnBu",
            norm=PowerNorm(0.5, 0, 1),
            interpolation="nearest",
            extent=(corner[0], corner[0] + side, corner[1] + side, corner[1]),
            zorder=2,
        )
    panel.set(xlim=(-0.54, heads - 0.46), ylim=(len(layers) - 0.46, -0.54))
    figures.label_ticks(panel.xaxis, [str(n) for n in range(heads)], fonts)
    figures.label_ticks(panel.yaxis, [str(n) for n in layers], fonts)
    figures.write(panel.xaxis.label, words[1], fonts)
    figures.write(panel.yaxis.label, words[0], fonts)
    bar = figure.colorbar(image, ax=panel, shrink=0.7, ticks=[0, 0.01, 0.1, 0.25, 0.5, 1])
    bar.ax.tick_params(labelsize=8)
    figures.write(bar.ax.yaxis.label, words[2], fonts)
    return figure


_BAR: Final = Text("share of a row's weight (square-root scale)", "占一行权重的份额（平方根标度）")
