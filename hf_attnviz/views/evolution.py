"""How attention statistics change from one generated token to the next: lines over decoding steps."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from hf_attnviz.axes import BATCH, HEAD, LAYER, STATISTIC, STEP
from hf_attnviz.errors import ArgumentError, listed
from hf_attnviz.language import Text
from hf_attnviz.legible import visible
from hf_attnviz.result import Axis, Result
from hf_attnviz.view import View
from hf_attnviz.views import figures
from hf_attnviz.views.encoding import packed
from hf_attnviz.views.page import fragment, in_both, own, page, vendored
from hf_attnviz.views.sources import source_line
from hf_attnviz.views.words import axis_word, method_word, statistic_words, unit_line

_ORDER: Final = (BATCH, STATISTIC, STEP, LAYER, HEAD)
_READING: Final = Text(
    "Left to right: decoding steps, each with the token that it put out. "
    "A line is a layer (mean over its heads), or one head of the layer chosen in the menu.",
    "从左到右为解码步，标签是该步产出的词元。一条线是一层（各头平均），或菜单所选层中的一个头。",
)
_PATHS: Final = Text(
    "Left to right: decoding steps, each with the token that it put out. A line is one head of the layer chosen in the "
    "menu; its height is the place of the key that it looks at most, the first key at the bottom.",
    "从左到右为解码步，标签是该步产出的词元。一条线是菜单所选层中的一个头；高度是它最关注的键的位置，第一个键在最下面。",
)
_REDUCED: Final = Text(
    "Left to right: step by step one word less; the labels are what is left, whole when pointed at.",
    "从左到右逐步减少一个词；标签是剩下的内容，指向即可看到全文。",
)
_UNDEFINED: Final = Text("Gaps are undefined.", "空缺表示未定义。")
_CAVEAT: Final = Text(
    "Not shown: whether the output depends on it. Attention is not an explanation.",
    "未显示：输出是否依赖于它。注意力本身不是解释。",
)
_ONE_WAY: Final = Text(
    "Not shown: the other ways to shorten the text; other words may be enough, too.",
    "未显示：其他缩减方式；别的词也可能足够。",
)


def evolution_view(result: Result, *, title: Text | str | None = None) -> View:
    """Lines over decoding steps, for the result of ``evolution(trace)`` or ``argmax_paths(trace)``; and over the steps
    of ``input_reduction``, which have no layers.

    Args:
        result: axes ``batch, statistic, step, layer, head``; all but ``step`` may be missing. ``batch`` becomes a menu.
            Where ``parameters["keys"]`` holds texts, the numbers are places of keys: heads are then never averaged.
        title: instead of the result's method.

    Raises:
        ArgumentError: no axis ``step``, axes beyond these, or a trace in place of a result.
    """
    if not isinstance(result, Result):
        raise ArgumentError(
            Text(
                f"expected a Result with an axis step, got {type(result).__name__}; of a generation's trace it is made "
                "by av.evolution_view(av.evolution(trace)), or av.argmax_paths(trace) in its place",
                f"应为带 step 轴的 Result，得到的是 {type(result).__name__}；由生成的 trace 可得："
                "av.evolution_view(av.evolution(trace))，"
                "也可用 av.argmax_paths(trace) 代替其中的 av.evolution(trace)",
            )
        )
    values, found = _five_axes(result)
    batch, statistics, steps, layers, heads = found
    keys = result.parameters.get("keys")
    heading = title or method_word(result.method)
    layered = LAYER in [axis.name for axis in result.axes]
    reading = _PATHS if keys is not None else _READING if layered else _REDUCED
    data = {
        "batch": [visible(text) for text in batch.labels],
        "statistics": [
            {"name": in_both(name), "meaning": in_both(meaning)}
            for name, meaning in map(statistic_words, statistics.labels)
        ],
        "steps": [visible(text) for text in steps.labels],
        "layers": [visible(text) for text in layers.labels],
        "heads": [visible(text) for text in heads.labels],
        "keys": None if keys is None else [visible(text) for text in keys],
        "layered": layered,
        "values": packed(values),
    }
    footer = [source_line(result.source)] if result.source else []
    footer += [unit_line(result.unit)] if result.unit else []
    gaps = [] if np.isfinite(values).all() else [_UNDEFINED]
    return page(
        heading,
        fragment("evolution.html"),
        how_to_read=[reading, *gaps, *result.notes, _CAVEAT if layered else _ONE_WAY],
        footer=footer,
        data=data,
        scripts=[vendored("d3.min.js"), own("evolution.js")],
        style=own("evolution.css"),
        wide=True,
        height=640,
        figures=figures.files(partial(_figure, values, found, str(heading), keys)),
    )


def _five_axes(result: Result) -> tuple[npt.NDArray[Any], list[Axis]]:
    """The values as ``[batch, statistic, step, layer, head]``; a missing axis gets one position."""
    present = [axis.name for axis in result.axes]
    if STEP not in present or not set(present) <= set(_ORDER) or not result.values.numel():
        raise ArgumentError(
            Text(
                f"expected axes batch, statistic, step, layer, head, none empty; got "
                f"{listed(f'{a.name} ({len(a.labels)})' for a in result.axes)}",
                "应有轴 batch, statistic, step, layer, head，且都不为空；得到 "
                f"{listed((f'{a.name} ({len(a.labels)})' for a in result.axes), '无')}",
            )
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


def _figure(values: npt.NDArray[Any], found: list[Axis], title: str, keys: Sequence[str] | None) -> Any:
    """A panel for each statistic, a line for each layer: the mean over heads. Of paths, a panel for each layer, a line
    for each head."""
    batch, statistics, steps, layers, heads = found
    if len(batch.labels) > 1:
        raise ArgumentError(
            Text(
                f"{len(batch.labels)} candidates are too many for one figure; pick one with result.select(batch=…)",
                f"{len(batch.labels)} 个候选放不进一张图；请用 result.select(batch=…) 选定一个",
            )
        )
    if keys is None:
        names = [str(statistic_words(name)[0]) for name in statistics.labels]
        panels = list(zip(names, map(mean_over_heads, values[0]), strict=True))
        word, lines = str(axis_word(LAYER)), layers
    else:
        panels = [(f"{axis_word(LAYER)} {name}", values[0, 0, :, n]) for n, name in enumerate(layers.labels)]
        word, lines = str(axis_word(HEAD)), heads
    return _lines(panels, steps, [f"{word} {text}" for text in lines.labels], title, keys)


def _lines(
    panels: Sequence[tuple[str, npt.NDArray[Any]]],
    steps: Axis,
    names: Sequence[str],
    title: str,
    keys: Sequence[str] | None,
) -> Any:
    """A figure of panels, each with a name and values ``[step, line]``."""
    from matplotlib import colormaps

    across = figures.beside(2 if len(panels) > 3 else 1)
    down = -(-len(panels) // across)
    width = max(4.2, min(9.0, 2.0 + 0.28 * len(steps.labels)))
    each = 2.2 if keys is None else min(2.2 + 0.13 * len(keys), 9.0)
    figure = figures.new_figure(width * across + 1, each * down + 1.2)
    fonts = figures.fonts_for([title, *names, *(name for name, _ in panels), *steps.labels, *(keys or ())])
    figures.write(figure.suptitle("", fontsize=11), title, fonts)
    colours = colormaps["viridis"](np.linspace(0, 0.88, max(len(names), 2)))
    drawn: list[Any] = []
    for number, (name, values) in enumerate(panels):
        panel = figure.add_subplot(down, across, number + 1)
        drawn = [panel.plot(values[:, i], color=colours[i], linewidth=1.3)[0] for i in range(len(names))]
        if len(steps.labels) == 1 or keys is not None:
            for line in drawn:
                line.set_marker("o")
        last = number >= len(panels) - across
        figures.label_ticks(panel.xaxis, steps.labels if last else [""] * len(steps.labels), fonts, rotation=60)
        panel.tick_params(labelsize=8)
        panel.set_xlim(-0.4, len(steps.labels) - 0.6)
        if keys is not None:
            figures.label_ticks(panel.yaxis, keys, fonts)
            panel.set_ylim(-0.5, len(keys) - 0.5)
        figures.write(panel.set_title("", fontsize=9, loc="left"), name, fonts)
        panel.spines[["top", "right"]].set_visible(False)
    legend = figure.legend(drawn, names, loc="outside right upper", fontsize=8)
    for text, label in zip(legend.get_texts(), names, strict=True):
        figures.write(text, label, fonts)
    return figure


def mean_over_heads(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The mean over the last axis of what is defined; NaN where nothing is."""
    defined = np.isfinite(values)
    count = defined.sum(-1)
    total = np.where(defined, values, 0).sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
