"""Two texts in two lines, their words joined by arrows as thick as the weight; the table of weights beneath."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import torch

from hf_attnviz.axes import HEAD, KEY, LAYER, QUERY, STATISTIC
from hf_attnviz.errors import ArgumentError, UnknownNameError, listed
from hf_attnviz.language import Text
from hf_attnviz.legible import visible
from hf_attnviz.result import Result
from hf_attnviz.stack_names import stack_name
from hf_attnviz.view import View
from hf_attnviz.views import figures
from hf_attnviz.views.alignment_figure import draw_alignment
from hf_attnviz.views.flowing import direction
from hf_attnviz.views.held import Held, held, stored
from hf_attnviz.views.page import fragment, in_both, own, page
from hf_attnviz.views.sources import source_line

MEAN_OF_HEADS: Final = Text("mean over heads", "各头平均")
MEAN_OF_LAYERS: Final = Text("mean over layers", "各层平均")
_METHOD: Final = "alignment"
_MOST: Final = 6_500_000  # numbers: 8 MB of page at most
_MOST_CELLS: Final = 2_500
_MOST_ARROWS: Final = 3_000
_STRONGEST: Final = 5
_LEVELS: Final = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
_ARROWS: Final = Text(
    "An arrow runs from a word of the source (above) to a word of the target (below), as thick as the weight that the "
    "target gives the source. Weights below the threshold have no arrow; the table has them. Point at a word, or move "
    "with the arrow keys, for its own arrows with their numbers.",
    "箭头从源词（上）指向目标词（下），粗细即目标词给予源词的权重。低于阈值的不画箭头，表中则全部列出。"
    "指向某词或用方向键移动，可只看该词的箭头及数值。",
)
_TABLE: Final = Text(
    "In the table a row is a word of the target, a column a word of the source; the darker (in dark mode: the lighter) "
    "the larger, from 0 to 1 in every picture. – is undefined.",
    "表中每行是一个目标词，每列是一个源词；颜色越深（深色模式下越浅）越大，每幅图都从 0 到 1。– 表示未定义。",
)
_TOP: Final = Text(
    "The table would have {cells:,} cells; it lists for each word of the target its {top} strongest sources instead.",
    "完整的表将有 {cells:,} 格；此处改为列出每个目标词权重最大的 {top} 个源词。",
)
_CAVEAT: Final = Text(
    "Not shown: whether the output depends on it. Attention is not an explanation.",
    "未显示：输出是否依赖于它。注意力本身不是解释。",
)
_TITLE: Final = Text("Which source words each target word looks at", "每个目标词看向哪些源词")


def alignment_picture(
    result: Result,
    *,
    layer: int | None = None,
    head: int | None = None,
    threshold: float = 0.1,
    title: Text | str | None = None,
) -> View:
    """The result of ``alignment(trace)`` as arrows and a table, with menus for layers and heads.

    Args:
        result: with the weights of one layer and head, or of several.
        layer: shown first, by its number; default: the last.
        head: shown first; default: the mean over heads.
        threshold: the least weight that has an arrow at first; the page has a menu for it.
        title: the page's heading.

    Raises:
        ArgumentError: another result, or a threshold outside 0 … 1.
        UnknownNameError: no such layer or head.
    """
    if not 0 <= threshold <= 1:
        raise ArgumentError(
            Text(f"expected a threshold from 0 to 1, got {threshold:g}", f"阈值应在 0 到 1 之间，现为 {threshold:g}")
        )
    weights, layers, heads = _weights(result)
    targets, sources = result.axis(QUERY).labels, result.axis(KEY).labels
    place, chosen = _place(layer, layers, LAYER), _place(head, heads, HEAD)
    several = [partial(weights.__getitem__, n) for n in range(len(layers))]
    shape = (len(heads), len(targets), len(sources))
    kept = held(several, layers, shape, most=_MOST, layer=place, head=chosen)
    numbers, exactness = stored(kept.values)
    start = _start(kept, layers, place, chosen)
    full = len(targets) * len(sources) <= _MOST_CELLS
    notes = [note for note in result.notes if not note.en.startswith("“link”")]  # links are not drawn
    shortened = [] if full else [_filled(_TOP, cells=len(targets) * len(sources), top=_STRONGEST)]
    data = {
        "targets": _side(targets), "sources": _side(sources),
        "axes": _axes(kept, heads), "start": start, "threshold": threshold,
        "levels": sorted({*_LEVELS, threshold}), "full": full, "top": _STRONGEST, "mostArrows": _MOST_ARROWS,
        "numbers": numbers,
    }  # fmt: skip
    shown = (weights.mean(1) if chosen is None else weights[:, chosen])[-1 if place is None else place]
    about: dict[str, Any] = {
        "threshold": threshold,
        "title": str(title or _TITLE),
        "where": _where(layers, place, chosen),
    }
    draw = partial(draw_alignment, np.asarray(shown.to(torch.float32).numpy()), sources, targets, **about)
    return page(
        title or _TITLE,
        fragment("alignment.html", shortened=[*kept.notes, *shortened]),
        how_to_read=[_ARROWS, _TABLE, *notes, _CAVEAT],
        footer=[source_line(result.source), *_about(result), exactness],
        data=data,
        scripts=[own("colours.js"), own("numbers.js"), own("alignment.js")],
        style=own("alignment.css"),
        wide=True,
        height=420 + 26 * min(len(targets), 14),
        figures=figures.files(draw),
    )


def _weights(result: Result) -> tuple[torch.Tensor, tuple[str, ...], tuple[str, ...]]:
    """``[layer, head, target, source]``, and what layers and heads are called; a missing axis has one place."""
    names = [axis.name for axis in result.axes]
    known = ([STATISTIC, *more, QUERY, KEY] for more in ([LAYER, HEAD], [LAYER], [HEAD], []))
    if result.method != _METHOD or names not in list(known):
        raise ArgumentError(
            Text(
                f"expected the result of alignment(trace), got {result.method!r} with axes {listed(names)}: draw other "
                "results with heatmap(result)",
                f"应为 alignment(trace) 的结果，现为 {result.method!r}，轴为 {listed(names)}："
                "其他结果请用 heatmap(result)",
            )
        )
    values = result.values[result.axis(STATISTIC).labels.index("weight")].detach().cpu()
    if HEAD not in names:
        values = values.unsqueeze(-3)
    if LAYER not in names:
        values = values.unsqueeze(0)
    labels = [
        result.axis(name).labels if name in names else (str(result.parameters.get(name, "–")),)
        for name in (LAYER, HEAD)
    ]
    return values, labels[0], labels[1]


def _place(chosen: int | None, labels: Sequence[str], name: str) -> int | None:
    if chosen is None:
        return None
    if str(chosen) not in labels:
        raise UnknownNameError(
            Text(
                f"there is no {name} {chosen}; there are: {listed(labels)}",
                f"没有 {name} {chosen}；可用：{listed(labels)}",
            )
        )
    return labels.index(str(chosen))


def _start(kept: Held, layers: Sequence[str], layer: int | None, head: int | None) -> list[int]:
    """Where the menus stand at first; -1 is the mean."""
    first = layers[-1 if layer is None else layer]
    return [kept.layers.index(first), 0 if len(kept.heads) < 2 else -1 if head is None else head]


def _axes(kept: Held, heads: Sequence[str]) -> list[dict[str, Any]]:
    names = {LAYER: Text("layer", "层"), HEAD: Text("head", "头")}
    means = {LAYER: MEAN_OF_LAYERS, HEAD: MEAN_OF_HEADS}
    shown = {LAYER: kept.layers, HEAD: kept.heads and tuple(heads)}
    return [
        {"id": axis, "name": in_both(names[axis]), "labels": list(shown[axis]), "mean": in_both(means[axis])}
        for axis in (LAYER, HEAD)
    ]


def _side(texts: Sequence[str]) -> dict[str, Any]:
    return {"texts": [visible(text) for text in texts], "rtl": direction(texts) == "rtl"}


def _about(result: Result) -> list[Text]:
    stack, read = result.parameters.get("stack", ""), result.parameters.get("read", "")
    rows = {"output": "产出该词的行", "reading": "读入该词的行"}.get(read, read)
    return [Text(f"Stack: {stack} · rows: {read}", f"堆栈：{stack_name(stack).zh} · 行：{rows}")]


def _where(layers: Sequence[str], layer: int | None, head: int | None) -> Text:
    first = layers[-1 if layer is None else layer]
    en, zh = (MEAN_OF_HEADS.en, MEAN_OF_HEADS.zh) if head is None else (f"head {head}", f"第 {head} 头")
    return Text(f"layer {first} · {en}", f"第 {first} 层 · {zh}")


def _filled(text: Text, **values: Any) -> Text:
    return Text(text.en.format(**values), text.zh.format(**values))
