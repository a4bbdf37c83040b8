"""Any result with two axes or more as a heat map; the axes before the last two become menus."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from hf_attnviz import axes as names
from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.axes import HEAD, KEY, LAYER, OTHER_HEAD, QUERY, STATISTIC
from hf_attnviz.errors import ArgumentError, listed
from hf_attnviz.language import Text
from hf_attnviz.legible import visible
from hf_attnviz.result import Axis, Result
from hf_attnviz.trace import AttentionStack, Trace
from hf_attnviz.view import View
from hf_attnviz.views import figures
from hf_attnviz.views.encoding import packed
from hf_attnviz.views.page import fragment, in_both, own, page
from hf_attnviz.views.scales import WHOLE, Scale, colour_scale
from hf_attnviz.views.sources import source_line
from hf_attnviz.views.words import (
    axis_word,
    beside_words,
    method_word,
    statistic_words,
    unit_line,
    unit_word,
)

_MOST_PANELS: Final = 64
_COLOURS: Final = Text(
    "Colour is the number; the bar beneath says which. The bar is set anew for each picture, so compare numbers, not "
    "colours, between pictures.",
    "颜色即数值，对应关系见下方色条。每幅图各自定标：不同图之间请比较数值，而非颜色。",
)
_FIXED: Final = Text(
    "Colour is the number; the bar beneath says which. It runs from −1 to 1 in every picture.",
    "颜色即数值，对应关系见下方色条；每幅图的色条都从 −1 到 1。",
)
_DIVERGING: Final = Text(
    "Numbers below zero are one hue, above zero the other; zero is in the middle.",
    "负数与正数各用一种色调，零在正中。",
)
_BY_ROW: Final = Text(
    "Each row has its own unit and its own colours: the fullest is that row's largest number, whatever its sign. Point "
    "at a cell for the number.",
    "每行单位不同，颜色也各自定标：最浓的是该行绝对值最大的数。指向某格可看到数值。",
)
_MEANINGS: Final = {  # what rows and columns are, where the axes' names do not say it
    "head roles": Text(
        "A row is a role, a column is a head: L0H3 is head 3 of layer 0.",
        "每行是一个角色，每列是一个头：L0H3 即第 0 层第 3 头。",
    ),
    "explanations of one number": Text(
        "A row is a method, a column is a token of the input.", "每行是一种方法，每列是输入的一个词元。"
    ),
    "token replacement": Text(
        "A column is a replacement: the token that was there → the one put in its place (its position, from 0).",
        "每列是一次替换：原来的词元 → 换上的词元（位置，从 0 数）。",
    ),
}
_UNDEFINED: Final = Text("Hatched cells are undefined (NaN).", "带斜纹的格子未定义（NaN）。")
_OF_ROW: Final = Text("share of the row's largest", "占该行最大值之比")
_ROWS_SUM: Final = Text("Each row sums to one.", "每一行之和为一。")
_ROWS_FREE: Final = Text("Rows need not sum to one.", "各行之和不一定为一。")
_CAVEAT: Final = Text(
    "Not shown: whether the output depends on it. Attention is not an explanation.",
    "未显示：输出是否依赖于它。注意力本身不是解释。",
)
_ESTIMATED: Final = Text(
    "Not shown: what really happens without it; trust and ablate measure that.",
    "未显示：真正去掉之后会怎样；trust 与 ablate 可以测量。",
)
_TRIED: Final = Text("Not shown: replacements that were not tried.", "未显示：没有试过的替换。")
_CAVEATS: Final = {  # methods that do speak of the output
    "attention × gradient": _ESTIMATED,
    "relevance": _ESTIMATED,
    "head importance": _ESTIMATED,
    "explanations of one number": _ESTIMATED,
    "layer attributions": _ESTIMATED,
    "token replacement": _TRIED,
}
_LETTERS: Final = {False: 18, True: 26}  # of a row on paper; names of statistics may begin alike


def heatmap(data: Result | AttentionMap, *, title: Text | str | None = None) -> View:
    """A heat map of a result, or of one layer's attention map.

    The last two axes are rows and columns (``query`` and ``key`` if both are there); each axis before them is a menu.
    Where an axis has an ``order``, it is drawn in that order. Saves as html, svg, png and pdf.

    Raises:
        ArgumentError: fewer than two axes, an empty one, or neither a result nor a map.
    """
    if isinstance(data, Trace | AttentionStack):
        raise ArgumentError(_of_which(data))
    if not isinstance(data, Result | AttentionMap):
        raise ArgumentError(
            Text(
                f"expected a Result or an AttentionMap (trace.encoder.layer(0)), got {type(data).__name__}",
                f"应为 Result 或 AttentionMap（trace.encoder.layer(0)），得到的是 {type(data).__name__}",
            )
        )
    result = _of_map(data) if isinstance(data, AttentionMap) else data
    return _draw(result, title or method_word(result.method), _reading(result))


def correlation_view(result: Result, *, title: Text | str | None = None) -> View:
    """How alike heads are: a square heat map ``[head, other_head]``, drawn in cluster order where the result has one.

    Raises:
        ArgumentError: the result has other axes.
    """
    if [axis.name for axis in result.axes[-2:]] != [HEAD, OTHER_HEAD]:
        raise ArgumentError(
            Text(
                f"expected axes ending in head, other_head; got {listed(a.name for a in result.axes)}: use "
                "heatmap(result)",
                f"末尾的轴应为 head, other_head；得到 {listed((a.name for a in result.axes), '无')}：请用 "
                "heatmap(result)",
            )
        )
    ordered = result.axes[-2].order is not None
    reading = [
        Text(
            "Each cell compares two heads (L0H3 is head 3 of layer 0); the diagonal is each head with itself."
            + (" Heads that are alike stand together: the order comes from clustering." if ordered else ""),
            "每格比较两个头（L0H3 即第 0 层第 3 头），对角线为头与自身。"
            + ("相近的头排在一起，次序来自聚类。" if ordered else ""),
        ),
        *_reading(result)[1:-1],
        Text(
            "Not shown: why heads are alike. Shared sinks or a shared diagonal make very different heads look alike.",
            "未显示：头为何相似。共同的汇点或对角线会让很不相同的头看起来相似。",
        ),
    ]
    return _draw(result, title or method_word(result.method), reading)


def _of_which(data: Trace | AttentionStack) -> Text:
    """What to draw of a trace or of a stack, since it holds more than one picture."""
    stacks = data.stacks.values() if isinstance(data, Trace) else [data]
    maps = listed(f"trace.{one.name}.layer({one.layers[0]})" for one in stacks)
    whole = Text("trace", "trace") if isinstance(data, Trace) else Text("stack", "堆栈")
    return Text(
        f"expected one layer's map or a Result, got a whole {whole.en}: pass one of its layers ({maps}) or an analysis "
        "(head_statistics(trace)), or draw all with model_view(trace)",
        f"应为一层的图或 Result，得到的是整个 {whole.zh}：请给出其中一层（{maps}）或一种分析（head_statistics(trace)）"
        "，或用 model_view(trace) 全部绘制",
    )


def _of_map(found: AttentionMap) -> Result:
    heads = Axis(HEAD, tuple(str(h) for h in range(found.heads)))
    method = f"{found.group} {found.layer}" if not found.module else f"{found.module}"
    labels = Axis(QUERY, found.plain().row_texts), Axis(KEY, found.keys.texts)
    return Result(found.weights.detach().cpu(), (heads, *labels), f"attention · {method}", unit="share")


def _draw(result: Result, title: Text | str, reading: Sequence[Text]) -> View:
    result = _arranged(result)
    if len(result.axes) < 2 or not result.values.numel():
        came = listed(f"{a.name} ({len(a.labels)})" for a in result.axes)
        raise ArgumentError(
            Text(
                f"a heat map needs two axes or more, none empty; got {came}",
                f"热图需要两个或更多的轴，且都不为空；得到 {came}",
            )
        )
    values = result.values.numpy()
    data = {
        "axes": [
            {"name": in_both(axis_word(a.name)), "labels": [_label(a.name, text) for text in a.labels]}
            for a in result.axes
        ],
        "square": [a.name for a in result.axes[-2:]] in ([QUERY, KEY], [HEAD, OTHER_HEAD]),
        "unit": in_both(unit_word(result.unit if _brief(result.unit) else "")),
        "byRow": _by_row(result),
        "start": _start(result),
        "scales": _scales(result),
        "values": packed(values),
        "beside": [
            {"name": in_both(beside_words(name)[0]), "values": packed(numbers.numpy())}
            for name, numbers in _beside(result).items()
        ],
    }
    rows, columns = (len(axis.labels) for axis in result.axes[-2:])
    several = any(a.name == STATISTIC for a in result.axes[:-2])  # each then says its own unit
    return page(
        title,
        fragment("heatmap.html", unit=None if _brief(result.unit) or several else unit_line(result.unit)),
        how_to_read=reading,
        footer=about(result),
        data=data,
        scripts=[own("colours.js"), own("heatmap.js")],
        style=own("heatmap.css"),
        height=round(rows * min(36, 680 / rows, 600 / columns if 3 > rows / columns > 1 / 3 else 36)) + 170,
        figures=figures.files(partial(_figure, values, result, str(title))),
    )


def _label(axis: str, text: str) -> str | dict[str, str]:
    return in_both(statistic_words(text)[0]) if axis == STATISTIC else visible(text)


def _by_row(result: Result) -> bool:
    """Whether rows are statistics of several units, which no one scale of colours can hold."""
    return result.axes[-2].name == STATISTIC and bool(result.unit) and not _brief(result.unit)


def _brief(unit: str) -> bool:
    """Whether a unit can stand behind a number; a longer one is a sentence of its own."""
    return len(unit) <= 12


def _beside(result: Result) -> dict[str, torch.Tensor]:
    """What stands beside the values and is known somewhere."""
    return {name: numbers for name, numbers in result.beside.items() if not bool(numbers.isnan().all())}


def _start(result: Result) -> list[int]:
    """Where the menus stand at first: what is followed through the layers is whole at the last one."""
    last = [a.name for a in result.axes[-2:]]
    return [len(a.labels) - 1 if a.name == LAYER and last == [QUERY, KEY] else 0 for a in result.axes[:-2]]


def _scales(result: Result) -> list[Scale]:
    """Where the colours of each picture begin and end, in the order of the menus' positions."""
    *leading, _, _ = result.axes
    kinds = [axis.labels if axis.name == STATISTIC else [""] * len(axis.labels) for axis in leading]
    return [colour_scale("".join(labels), result.unit) for labels in product(*kinds)]


def _arranged(result: Result) -> Result:
    """Float32 on the CPU, query and key last, each axis in its drawing order."""
    found, places = list(result.axes), list(range(len(result.axes)))
    if {QUERY, KEY} <= {a.name for a in found}:
        last = [next(i for i, a in enumerate(found) if a.name == name) for name in (QUERY, KEY)]
        places = [i for i in places if i not in last] + last
        found = [found[i] for i in places]
    orders = [axis.order or range(len(axis.labels)) for axis in found]
    found = [Axis(axis.name, tuple(axis.labels[i] for i in order)) for axis, order in zip(found, orders, strict=True)]

    def arranged(numbers: torch.Tensor) -> torch.Tensor:
        numbers = numbers.detach().to("cpu", torch.float32).permute(places)
        for place, order in enumerate(orders):
            numbers = numbers.index_select(place, torch.tensor(order, dtype=torch.long))
        return numbers.contiguous()

    return result.reshaped(arranged, found)


def _reading(result: Result) -> list[Text]:
    last = [a.name for a in result.axes]
    if {QUERY, KEY} <= set(last):
        last = [QUERY, KEY]
    row, column = (axis_word(name) for name in (last[-2:] if len(last) > 1 else ["?", "?"]))
    meaning = Text(f"A row is a {row.en}, a column is a {column.en}.", f"每行是一个{row.zh}，每列是一个{column.zh}。")
    if last[-2:] == [QUERY, KEY]:
        sums = _ROWS_SUM if _rows_sum_to_one(result) else _ROWS_FREE
        looks = Text(
            "A row is the token that looks (query), a column the token that is looked at (key).",
            "行是发出注意的词元（查询），列是被注意的词元（键）。",
        )
        meaning = Text(f"{looks.en} {sums.en}", f"{looks.zh}{sums.zh}")
    elif last[-2:] == [LAYER, HEAD]:
        meaning = Text(
            "A row is a layer (0 is nearest the input), a column is a head.",
            "每行是一层（0 层最靠近输入），每列是一个头。",
        )
    meaning = _MEANINGS.get(result.method.partition(" (")[0], meaning)
    finite = result.values.isfinite()
    scales = set(_scales(result)) if len(result.axes) > 1 else {None}
    by_row = len(result.axes) > 1 and _by_row(_arranged(result))
    told = [meaning, _BY_ROW if by_row else _FIXED if scales == {WHOLE} else _COLOURS]
    if bool((result.values[finite] < 0).any()) or scales != {None}:
        told.append(_DIVERGING)
    if not bool(finite.all()):
        told.append(_UNDEFINED)
    if _beside(result):
        meanings = [beside_words(name)[1] for name in _beside(result)]
        told.append(
            Text(
                f"Point at a cell for what stands beside its number: {'; '.join(m.en for m in meanings)}.",
                f"指向某格可看到数值旁的信息：{'；'.join(m.zh for m in meanings)}。",
            )
        )
    return [*told, *result.notes, _CAVEATS.get(result.method.partition(" (")[0], _CAVEAT)]


def _rows_sum_to_one(result: Result) -> bool:
    place = next(i for i, a in enumerate(result.axes) if a.name == KEY)
    sums = result.values.detach().float().sum(place)
    finite = sums[sums.isfinite()]
    return bool(finite.numel()) and bool(((finite - 1).abs() < 0.02).all())


def about(result: Result) -> list[Text]:
    """The small print of a result: source, parameters, precision."""
    lines = []
    if result.source:
        lines.append(source_line(result.source))
    settings = ", ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in result.parameters.items()
        if len(str(value)) < 80
    )
    if settings:
        lines.append(Text(f"Parameters: {settings}", f"参数：{settings}"))
    lines.append(Text("Numbers are stored in single precision (float32).", "数值以单精度（float32）存储。"))
    return lines


def _figure(values: npt.NDArray[Any], result: Result, title: str) -> Any:
    """One panel for each position of the leading axes."""
    *leading, rows, columns = result.axes
    picks = list(product(*(range(len(axis.labels)) for axis in leading)))
    if len(picks) > _MOST_PANELS:
        raise ArgumentError(
            Text(
                f"{len(picks)} pictures in one file are too many (at most {_MOST_PANELS}); pick with "
                f"result.select({', '.join(f'{axis.name}=…' for axis in leading)})",
                f"一个文件放不下 {len(picks)} 张图（最多 {_MOST_PANELS} 张）；请用 "
                f"result.select({', '.join(f'{axis.name}=…' for axis in leading)}) 选定",
            )
        )
    scales, unit = _scales(result), str(unit_word(result.unit)) if _brief(result.unit) else ""
    across = figures.beside(math.ceil(math.sqrt(len(picks))))
    down = math.ceil(len(picks) / across)
    width = min(max(3.2, 1.8 + 0.17 * len(columns.labels)), 9)
    height = min(max(2.4, 1.4 + 0.17 * len(rows.labels)), 9)
    figure = figures.new_figure(width * across, height * down + 0.3)
    words = [title, *rows.labels, *columns.labels, *(text for axis in leading for text in axis.labels)]
    words += [str(axis_word(name)) for name in names.NAMES] + [str(unit_line(result.unit)), str(_OF_ROW)]
    words += [text for axis in result.axes for text in _written(axis)]
    fonts = figures.fonts_for(words)
    figures.write(figure.suptitle("", fontsize=11), title, fonts)
    if not unit and result.unit and not any(axis.name == STATISTIC for axis in leading):  # a statistic says its own
        figures.write(figure.supxlabel("", fontsize=8), str(unit_line(result.unit)), fonts)
    for number, pick in enumerate(picks):
        panel = figure.add_subplot(down, across, number + 1)
        matrix = _shares_of_rows(values[pick]) if _by_row(result) else values[pick]
        low, high, diverging = figures.limits(matrix, scales[number])
        image = figures.heat(panel, matrix, diverging=diverging, low=low, high=high)
        figures.label_ticks(panel.xaxis, _written(columns), fonts, rotation=90 if _long(columns) else 0)
        figures.label_ticks(panel.yaxis, _written(rows), fonts, most=_LETTERS[rows.name == STATISTIC])
        figures.write(panel.xaxis.label, str(axis_word(columns.name)), fonts)
        figures.write(panel.yaxis.label, str(axis_word(rows.name)), fonts)
        chosen = ", ".join(_picked(axis, i) for axis, i in zip(leading, pick, strict=True))
        figures.write(panel.set_title("", fontsize=9), chosen, fonts)
        bar = figure.colorbar(image, ax=panel, shrink=0.9)
        bar.ax.tick_params(labelsize=8)
        figures.write(bar.ax.yaxis.label, str(_OF_ROW) if _by_row(result) else unit, fonts)
    return figure


def _written(axis: Axis) -> list[str]:
    """The labels of an axis as they are written on paper."""
    return [str(statistic_words(text)[0]) for text in axis.labels] if axis.name == STATISTIC else list(axis.labels)


def _shares_of_rows(matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Each row over its largest number without its sign; a row of zeros, or of nothing, stays."""
    sizes = np.nanmax(np.where(np.isfinite(matrix), np.abs(matrix), 0), axis=1, keepdims=True)
    return np.asarray(matrix / np.where(sizes > 0, sizes, 1))


def _picked(axis: Axis, place: int) -> str:
    """Where a menu stands, in words."""
    text = axis.labels[place]
    return str(statistic_words(text)[0]) if axis.name == STATISTIC else f"{axis_word(axis.name)} {text}"


def _long(axis: Axis) -> bool:
    return len(axis.labels) > 20 or max(map(len, axis.labels)) > 2
