"""Two traces side by side: a heat map a head, or the neighbours of one word in both texts as bars in one table."""

from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from hf_attnviz.axes import HEAD, KEY, LAYER, QUERY, STATISTIC
from hf_attnviz.errors import ArgumentError, listed
from hf_attnviz.language import Text
from hf_attnviz.legible import visible
from hf_attnviz.result import Result
from hf_attnviz.view import View
from hf_attnviz.views import figures
from hf_attnviz.views.encoding import packed
from hf_attnviz.views.heatmap import about, heatmap
from hf_attnviz.views.page import fragment, in_both, own, page
from hf_attnviz.views.words import axis_word, statistic_words

SIDES: Final = ("first", "second", "change")
_OTHERS: Final = {"(others)": Text("(others)", "（其他）")}
_COLOURS: Final = ("#4393c3", "#d6604d")
_BARS: Final = Text(
    "Each row is a word. The first two bars are its share in the two texts, on one scale; the third is the second "
    "minus the first, red to the right where it grew and blue to the left where it shrank. At first the mean over all "
    "heads is shown; the menus choose a layer and a head. A dash is undefined.",
    "每行是一个词。前两条为它在两段文本中的占比，尺度相同；第三条为第二个减第一个，增大为红色向右，减小为蓝色向左。"
    "初始显示所有头的平均；用菜单选择层和头。短横表示未定义。",
)
_CAVEAT: Final = Text(
    "Not shown: whether the difference matters to the output. Attention is not an explanation.",
    "未显示：这一差别是否影响输出。注意力本身不是解释。",
)


def compare_view(result: Result, *, title: Text | str | None = None) -> View:
    """The result of ``compare(first, second)`` as a picture: around one word bars, else a heat map.

    Raises:
        ArgumentError: another result.
    """
    names = [axis.name for axis in result.axes]
    if not result.method.startswith("comparison") or names[:3] != [STATISTIC, LAYER, HEAD]:
        raise ArgumentError(
            Text(
                f"expected the result of compare(first, second), got {result.method!r} with axes {listed(names)}: use "
                "heatmap(result)",
                f"应为 compare(first, second) 的结果，得到的是 {result.method!r}，轴为 {listed(names, '无')}：请用 "
                "heatmap(result)",
            )
        )
    if len(names) != 4:
        return heatmap(_change_first(result), title=title)
    return _bars(result, title or _title(result))


def _change_first(result: Result) -> Result:
    """Whole maps with the change before the two that it is of: it is what a comparison is about."""
    first, *rest = result.axes
    if first.labels != SIDES or first.order is not None:
        return result
    return replace(result, axes=(replace(first, order=(2, 0, 1)), *rest))


def _title(result: Result) -> Text:
    word = result.parameters.get("word", "")
    if result.axes[-1].name == KEY:
        return Text(f"What “{word}” looks at, in two texts", f"“{word}”在两段文本中看向什么")
    return Text(f"Who looks at “{word}”, in two texts", f"两段文本中谁在看“{word}”")


def _bars(result: Result, title: Text | str) -> View:
    values = np.ascontiguousarray(result.values.detach().to("cpu", torch.float32).numpy())
    words = result.axes[-1].labels
    sides = [_side(result, name) for name in SIDES]
    data = {
        "words": [in_both(_OTHERS.get(text, text)) for text in words],
        "layers": [visible(text) for text in result.axis(LAYER).labels],
        "heads": [visible(text) for text in result.axis(HEAD).labels],
        "values": packed(values),
    }
    end = axis_word(KEY if result.axes[-1].name == KEY else QUERY)
    return page(
        title,
        fragment("comparison.html", sides=sides, end=end),
        how_to_read=[_BARS, *result.notes, _CAVEAT],
        footer=about(result),
        data=data,
        scripts=[own("comparison.js")],
        style=own("comparison.css"),
        height=120 + 30 * len(words),
        figures=figures.files(partial(_figure, values, result, str(title))),
    )


def _side(result: Result, name: str) -> tuple[Text, str]:
    return statistic_words(name)[0], str(result.parameters.get(name, ""))


def _figure(values: npt.NDArray[Any], result: Result, title: str) -> Any:
    """Bars of the mean over all heads, both texts beside each other."""
    words = [str(_OTHERS.get(text, text)) for text in result.axes[-1].labels]
    figure = figures.new_figure(6.5, 1.6 + 0.42 * len(words))
    panel = figure.add_subplot()
    sides = [": ".join(map(str, filter(None, map(str, _side(result, name))))) for name in SIDES[:2]]
    mean_word = str(Text("share, mean over heads", "占比，各头平均"))
    fonts = figures.fonts_for([title, mean_word, *words, *sides])
    places = np.arange(len(words))
    bars = [
        panel.barh(places + shift, _means(side), height=0.36, color=colour)
        for side, shift, colour in zip(values, (-0.2, 0.2), _COLOURS, strict=False)
    ]
    figures.label_ticks(panel.yaxis, words, fonts)
    panel.invert_yaxis()
    panel.spines[["top", "right"]].set_visible(False)
    figures.write(figure.suptitle("", fontsize=11), title, fonts)
    figures.write(panel.xaxis.label, mean_word, fonts)
    legend = figure.legend(bars, sides, loc="outside lower center", fontsize=8)
    for text, label in zip(legend.get_texts(), sides, strict=True):
        figures.write(text, label, fonts)
    return figure


def _means(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``[layer, head, word]`` → the mean over what is defined, ``[word]``; NaN where nothing is."""
    defined = np.isfinite(values)
    count = defined.sum((0, 1))
    return np.where(count > 0, np.where(defined, values, 0).sum((0, 1)) / np.maximum(count, 1), np.nan)
