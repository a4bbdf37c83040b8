"""What differs between two traces: asked first, then drawn; as much of it as a page holds."""

from dataclasses import replace
from typing import Any, Final

from hf_attnviz import analysis, views
from hf_attnviz.axes import STATISTIC
from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text
from hf_attnviz.result import Result
from hf_attnviz.trace import Trace
from hf_attnviz.view import View

MOST_CELLS: Final = 1_500_000  # of one page: with them it stays below some 8 MB
_SIDES: Final = 3  # the first, the second, the change
_MEAN: Final = Text(
    "Too much for one page: the mean over all heads of all layers is compared; choose a layer with layer=….",
    "一页容不下：比较的是所有层所有头的平均；可用 layer=… 选择一层。",
)
_CHANGE: Final = Text(
    "Too much for one page: only the change is drawn, not the two that it is of.",
    "一页容不下：只画变化，不画两侧本身。",
)


def compare_view(
    first: Result | Trace,
    second: Trace | None = None,
    *,
    layer: int | None = None,
    title: Text | str | None = None,
    max_numbers: int = MOST_CELLS,
    **options: Any,
) -> View:
    """What differs between two traces, the change in two hues around zero; or a result of ``compare``.

    Args:
        first, second: two traces; or the result of ``compare(first, second)`` alone.
        layer: compare this layer alone.
        max_numbers: on one page. Whole maps (``by="word"`` without a word) of what has more are drawn as the mean over
            all heads, then as their change alone, and the page says so.
        options: those of :func:`hf_attnviz.compare`: ``by="head"`` (default: a heat map of layers × heads),
            ``by="word"`` (whole maps), ``word=…``, ``stack=…``, ``average=True`` …

    Raises:
        ArgumentError: a result and a second trace, or options beside a result; whole maps of different texts.
        ShapeError, UnknownNameError: as ``compare``.
    """
    if isinstance(first, Result):
        if second is not None or options or layer is not None:
            raise ArgumentError(
                Text(
                    "a result is drawn as it is; give options to compare(first, second, …)",
                    "Result 照原样绘制；选项请给 compare(first, second, …)",
                )
            )
        return views.compare_view(first, title=title)
    if second is None:
        raise ArgumentError(
            Text(
                "expected two traces, or the result of compare(first, second); got one",
                "应为两个 trace，或 compare(first, second) 的结果；只得到一个",
            )
        )
    sides = (
        [first, second] if layer is None else [_of_layer(one, options.get("stack"), layer) for one in (first, second)]
    )
    return views.compare_view(_compared(*sides, most=max_numbers, **options), title=title)


def _compared(first: Trace, second: Trace, *, most: int, **options: Any) -> Result:
    whole = options.get("by") == "word" and options.get("word") is None
    if not whole:
        return analysis.compare(first, second, **options)
    notes = []
    one = first.stack(options.get("stack")).maps
    if not options.get("average") and _SIDES * sum(m.shape.numel() for m in one) > most:
        options, notes = {**options, "average": True}, [_MEAN]
    found = analysis.compare(first, second, **options)
    if found.values.numel() > most:
        place = found.axis(STATISTIC).labels.index("change")
        found = found.reshaped(lambda values: values[place : place + 1], (_only_change(found), *found.axes[1:]))
        notes = [*notes, _CHANGE]
    return replace(found, notes=(*notes, *found.notes))


def _only_change(found: Result) -> Any:
    return replace(found.axes[0], labels=("change",), order=None)


def _of_layer(trace: Trace, stack: str | None, layer: int) -> Trace:
    """The trace with one layer of the stack alone, so that the others are not read."""
    chosen = trace.stack(stack)
    chosen.layer(layer)
    return replace(trace, maps=tuple(m for m in chosen.maps if m.layer == layer))
