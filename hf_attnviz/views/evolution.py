"""How attention statistics change from one generated token to the next: lines over decoding steps."""

from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from hf_attnviz.axes import HEAD, LAYER, STATISTIC, STEP
from hf_attnviz.errors import ArgumentError, listed
from hf_attnviz.language import Text
from hf_attnviz.legible import visible
from hf_attnviz.result import Axis, Result
from hf_attnviz.view import View
from hf_attnviz.views import figures
from hf_attnviz.views.encoding import packed
from hf_attnviz.views.page import fragment, in_both, own, page, vendored
from hf_attnviz.views.words import axis_word, statistic_words, unit_line

_ORDER: Final = (STATISTIC, STEP, LAYER, HEAD)
_READING: Final = (
    Text(
        "Left to right: decoding steps, each with the token that it put out. "
        "A line is a layer (mean over its heads), or one head of the layer chosen in the menu.",
        "从左到右为解码步，标签是该步产出的词元。一条线是一层（各头平均），或菜单所选层中的一个头。",
    ),
    Text(
        "Step 0 is the last row of the prompt. Gaps are undefined: at step 0 there is nothing generated to look back "
        "on and no step before.",
        "第 0 步是提示的最后一行。空缺表示未定义：第 0 步尚无已生成的词元，也没有上一步。",
    ),
    Text(
        "Not shown: part of any trend is only that there are more keys at each step. Attention is not an explanation.",
        "未显示：任何趋势都有一部分只是因为每一步的键更多了。注意力本身不是解释。",
    ),
)


def evolution_view(result: Result, *, title: Text | str | None = None) -> View:
    """Lines over decoding steps, for the result of ``evolution(trace)``.

    Args:
        result: axes ``statistic, step, layer, head``; all but ``step`` may be missing.
        title: instead of the result's method.

    Raises:
        ArgumentError: no axis ``step``, or axes beyond these.
    """
    values, found = _four_axes(result)
    statistics, steps, layers, heads = found
    heading = title or Text("Attention while decoding", "解码过程中的注意力")
    data = {
        "statistics": [
            {"name": in_both(name), "meaning": in_both(meaning)}
            for name, meaning in map(statistic_words, statistics.labels)
        ],
        "steps": [visible(text) for text in steps.labels],
        "layers": [visible(text) for text in layers.labels],
        "heads": [visible(text) for text in heads.labels],
        "values": packed(values),
    }
    footer = [Text(f"Source: {result.source}", f"出处：{result.source}")] if result.source else []
    footer += [unit_line(result.unit)] if result.unit else []
    return page(
        heading,
        fragment("evolution.html"),
        how_to_read=[*_READING[:-1], *result.notes, _READING[-1]],
        footer=footer,
        data=data,
        scripts=[vendored("d3.min.js"), own("evolution.js")],
        style=own("evolution.css"),
        wide=True,
        height=640,
        figures=figures.files(partial(_figure, values, found, str(heading))),
    )


def _four_axes(result: Result) -> tuple[npt.NDArray[Any], list[Axis]]:
    """The values as ``[statistic, step, layer, head]``; a missing axis gets one position."""
    present = [axis.name for axis in result.axes]
    if STEP not in present or not set(present) <= set(_ORDER) or not result.values.numel():
        raise ArgumentError(
            f"expected axes statistic, step, layer, head, none empty; got "
            f"{listed(f'{a.name} ({len(a.labels)})' for a in result.axes)}"
        )
    values = result.values.detach().to("cpu", torch.float32)
    values = values.permute([present.index(name) for name in _ORDER if name in present])
    found = []
    for place, name in enumerate(_ORDER):
        if name not in present:
            values = values.unsqueeze(place)
        found.append(result.axis(name) if name in present else Axis(name, (_stand_in(result, name),)))
    return np.ascontiguousarray(values.numpy()), found


def _stand_in(result: Result, name: str) -> str:
    return str(result.parameters.get(name, result.method if name == STATISTIC else "–"))


def _figure(values: npt.NDArray[Any], found: list[Axis], title: str) -> Any:
    """A panel for each statistic, a line for each layer: the mean over heads."""
    from matplotlib import colormaps

    statistics, steps, layers, _ = found
    names = [str(statistic_words(name)[0]) for name in statistics.labels]
    across = 2 if len(names) > 3 else 1
    down = -(-len(names) // across)
    width = max(4.2, min(9.0, 2.0 + 0.28 * len(steps.labels)))
    figure = figures.new_figure(width * across + 1, 2.2 * down + 1.2)
    layer_word = str(axis_word(LAYER))
    fonts = figures.fonts_for([title, layer_word, *names, *steps.labels, *layers.labels])
    figures.write(figure.suptitle("", fontsize=11), title, fonts)
    colours = colormaps["viridis"](np.linspace(0, 0.88, max(len(layers.labels), 2)))
    lines: list[Any] = []
    for number, name in enumerate(names):
        panel = figure.add_subplot(down, across, number + 1)
        means = mean_over_heads(values[number])
        lines = [panel.plot(means[:, i], color=colours[i], linewidth=1.3)[0] for i in range(len(layers.labels))]
        if len(steps.labels) == 1:
            for line in lines:
                line.set_marker("o")
        last = number >= len(names) - across
        figures.label_ticks(panel.xaxis, steps.labels if last else [""] * len(steps.labels), fonts, rotation=60)
        panel.tick_params(labelsize=8)
        panel.set_xlim(-0.4, len(steps.labels) - 0.6)
        figures.write(panel.set_title("", fontsize=9, loc="left"), name, fonts)
        panel.spines[["top", "right"]].set_visible(False)
    legend = figure.legend(
        lines, [f"{layer_word} {text}" for text in layers.labels], loc="outside right upper", fontsize=8
    )
    for text, label in zip(legend.get_texts(), layers.labels, strict=True):
        figures.write(text, f"{layer_word} {label}", fonts)
    return figure


def mean_over_heads(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The mean over the last axis of what is defined; NaN where nothing is."""
    defined = np.isfinite(values)
    count = defined.sum(-1)
    total = np.where(defined, values, 0).sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
