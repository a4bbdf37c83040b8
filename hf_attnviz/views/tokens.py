"""A text in the colours of the weights that its tokens get, from one query or from all on average."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import torch

from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.axes import HEAD, KEY, LAYER, METHOD, QUERY, STATISTIC
from hf_attnviz.errors import ArgumentError, UnknownNameError, listed
from hf_attnviz.language import Text
from hf_attnviz.legible import visible
from hf_attnviz.result import Axis, Result
from hf_attnviz.trace import Trace
from hf_attnviz.view import View
from hf_attnviz.views import figures
from hf_attnviz.views.flowing import direction, spaces_before
from hf_attnviz.views.groups import groups, starting_place
from hf_attnviz.views.heatmap import about
from hf_attnviz.views.held import held, stored
from hf_attnviz.views.page import fragment, in_both, own, page
from hf_attnviz.views.tokens_figure import draw_tokens
from hf_attnviz.views.words import axis_word, method_word, statistic_words, unit_line, unit_word

_MOST: Final = 13_000_000  # numbers: 12 layers of 1,024 tokens, 17 MB of page at most
_BRIEF: Final = 12  # letters of a unit that can stand behind a number
_MEANS: Final = {
    LAYER: Text("mean over layers", "各层平均"),
    HEAD: Text("mean over heads", "各头平均"),
}
_COLOURS: Final = Text(
    "The ground of a token and the bar under it show the number it gets: the longer the bar, the larger. Both are "
    "scaled to the largest number that is shown, so compare numbers, not colours, between pictures.",
    "词元的底色与其下的短条表示它得到的数值：条越长，数值越大。两者都以所示的最大值为满，因此不同图之间请比较数值而非颜色。",
)
_SIGNED: Final = Text(
    "Above zero the bar is under the token and the ground red, below zero the bar is above it and the ground blue.",
    "大于零：短条在词元下方，底色偏红；小于零：短条在上方，底色偏蓝。",
)
_QUERIES: Final = Text(
    "Click a token, or use the up and down keys, to choose the query: the token that looks, in a frame. The left and "
    "right keys move along the text and tell the numbers. Without a query it is the mean over all that see anything.",
    "点击词元或用上下键选择查询，即发出注意的词元，带方框。左右键沿文本移动并读出数值。未选查询时为所有查询的平均。",
)
_CAUSAL: Final = Text(
    "No token is seen by those before it, so on average early tokens get more: more queries can see them.",
    "每个词元都不被其前面的词元看到，因此平均而言靠前的词元得到更多：能看到它们的查询更多。",
)
_UNDEFINED: Final = Text("A hatched token has no number (NaN).", "带斜纹的词元没有数值（NaN）。")
_CAVEAT: Final = Text(
    "Not shown: whether the output depends on it. Attention is not an explanation.",
    "未显示：输出是否依赖于它。注意力本身不是解释。",
)
_TITLE: Final = Text("Attention on the text", "文本上的注意力")


@dataclass(frozen=True, eq=False)
class Shown:
    """Numbers along a text.

    Attributes:
        name: what a menu calls them.
        axes: the axes before, each a menu; a layer or head axis of one place has none.
        values: ``[*axes, query, key]``; one query where there is none to choose.
        keys: the text.
        spaces: whether a space stands before each of its tokens.
        queries: the tokens that look; empty where there is none to choose.
        stands: the place in the text of each query, None where they are of another text.
        notes: what was left out.
        causal: whether no query sees a later token.
    """

    name: Text
    axes: tuple[Axis, ...]
    values: torch.Tensor
    keys: tuple[str, ...]
    spaces: tuple[bool, ...]
    queries: tuple[str, ...] = ()
    stands: tuple[int, ...] | None = None
    notes: tuple[Text, ...] = ()
    causal: bool = False


def token_view(
    data: Trace | AttentionMap | Result,
    *,
    stack: str | None = None,
    layer: int | None = None,
    head: int | None = None,
    query: int | None = None,
    title: Text | str | None = None,
) -> View:
    """The text itself, each token on the colour of the weight that a query gives it, with a bar under it.

    Saves as html, svg, png and pdf; files show what the page shows at first.

    Args:
        data: a trace or one of its maps; or a result along tokens: with axes ``query`` and ``key``, of which the query
            is chosen, or with one of them (scores of tokens, which may be below zero). Its other axes become menus.
        stack: of a trace; default: all, in a menu.
        layer: shown first; default: the last.
        head: shown first; default: the mean over heads.
        query: the place of the token that looks at first; default: none, and the mean over all.
        title: the page's heading.

    Raises:
        UnknownStackError, UnknownNameError: no such stack, layer, head or query.
        ArgumentError: a result without tokens, or one too large for a page.
        NotKeptError: a trace without weights.
    """
    several, first = _shown(data, stack, layer, head)
    shown = several[first]
    start = [_start(axis, {LAYER: layer, HEAD: head}.get(axis.name)) for axis in shown.axes]
    if query is not None and not 0 <= query < len(shown.queries):
        last = len(shown.queries) - 1
        raise UnknownNameError(
            Text(
                f"there is no query {query}; there are {f'0 to {last}' if last >= 0 else 'none'}",
                f"没有查询 {query}；可用：{f'0 到 {last}' if last >= 0 else '无'}",
            )
        )
    heading = title or _title(data)
    signed = any(bool((one.values < 0).any()) for one in several)
    unit = data.unit if isinstance(data, Result) else "share"
    payload, exactness = zip(*map(_payload, several), strict=True)
    data_of_page = {
        "groups": payload, "first": first, "start": start, "query": query, "signed": signed,
        "unit": in_both(unit_word(unit if len(unit) <= _BRIEF else "")),
    }  # fmt: skip
    return page(
        heading,
        fragment("tokens.html", notes=list(dict.fromkeys(note for one in several for note in one.notes))),
        how_to_read=_reading(data, several, signed),
        footer=[*_footer(data), *dict.fromkeys(exactness)],
        data=data_of_page,
        scripts=[own("colours.js"), own("numbers.js"), own("tokens.js")],
        style=own("tokens.css"),
        wide=True,
        height=min(700, 200 + 2 * len(shown.keys)),
        figures=figures.files(partial(_figure, shown, start, query, str(heading), str(unit_word(unit)))),
    )


def _shown(
    data: Trace | AttentionMap | Result, stack: str | None, layer: int | None, head: int | None
) -> tuple[list[Shown], int]:
    if isinstance(data, Result):
        return [_of_result(data)], 0
    if isinstance(data, AttentionMap):
        found, first = groups(Trace((data,)), None), 0
    elif isinstance(data, Trace):
        found = groups(data, stack)
        first, _ = starting_place(found, layer)
    else:
        raise ArgumentError(
            Text(
                f"expected a trace, one of its maps, or a result along tokens; got {type(data).__name__}",
                f"应为 trace、其中一张图，或沿词元的结果；现为 {type(data).__name__}",
            )
        )
    most = _MOST // len(found)
    return [
        _of_maps(group.name, group.maps, layer if n == first else None, head if n == first else None, most)
        for n, group in enumerate(found)
    ], first


def _of_maps(name: Text, maps: Sequence[AttentionMap], layer: int | None, head: int | None, most: int) -> Shown:
    one = maps[0]
    if head is not None and not 0 <= head < one.heads:
        raise UnknownNameError(
            Text(
                f"there is no head {head}; there are 0 to {one.heads - 1}",
                f"没有第 {head} 头；可用 0 到 {one.heads - 1}",
            )
        )
    layers = [m.layer for m in maps]
    several = [partial(_weights, m) for m in maps]
    shape = (one.heads, len(one.queries), len(one.keys))
    place = None if layer is None else layers.index(layer)
    kept = held(several, list(map(str, layers)), shape, most=most, layer=place, head=head)
    heads = kept.heads or (str(_MEANS[HEAD]) if head is None else str(head),)
    return Shown(
        name,
        (Axis(LAYER, kept.layers), Axis(HEAD, tuple(heads))),
        kept.values,
        one.keys.texts,
        tuple(spaces_before(one.keys.texts, one.keys.words)),
        one.row_texts,
        one.positions,
        kept.notes,
        one.causal,
    )


def _weights(one: AttentionMap) -> torch.Tensor:
    return one.weights.detach().to("cpu", torch.float32)


def _of_result(result: Result) -> Shown:
    names = [axis.name for axis in result.axes]
    ends = [name for name in (QUERY, KEY) if name in names]
    if not ends or not result.values.numel():
        raise ArgumentError(
            Text(
                f"expected a result along tokens, with an axis query or key, none empty; got {listed(names)}: draw "
                "others with heatmap(result)",
                f"应为沿词元的结果，有非空的轴 query 或 key；现有 {listed(names)}：其他结果请用 heatmap(result)",
            )
        )
    if result.values.numel() > _MOST:
        raise ArgumentError(
            Text(
                f"a page holds {_MOST:,} numbers at most, got {result.values.numel():,}; pick a part with "
                "result.select(…)",
                f"一页至多容纳 {_MOST:,} 个数值，现有 {result.values.numel():,} 个；请用 result.select(…) 选一部分",
            )
        )
    leading = [axis for axis in result.axes if axis.name not in ends]
    order = [names.index(name) for name in (*(axis.name for axis in leading), *ends)]
    values = result.values.detach().to("cpu", torch.float32).permute(order)
    values = values if len(ends) == 2 else values.unsqueeze(-2)
    keys = result.axis(ends[-1]).labels
    queries = result.axis(QUERY).labels if len(ends) == 2 else ()
    stands = tuple(range(len(keys))) if queries == keys else None
    return Shown(
        method_word(result.method),
        tuple(leading),
        values.contiguous(),
        keys,
        tuple(spaces_before(keys)),
        queries,
        stands,
    )


def _start(axis: Axis, chosen: int | None) -> int:
    """Where a menu stands at first; -1 is the mean."""
    if chosen is not None:
        if len(axis.labels) == 1:
            return 0
        if str(chosen) not in axis.labels:
            raise UnknownNameError(
                Text(
                    f"there is no {axis.name} {chosen}; there are: {listed(axis.labels)}",
                    f"没有 {axis.name} {chosen}；可用：{listed(axis.labels)}",
                )
            )
        return axis.labels.index(str(chosen))
    if axis.name == HEAD and len(axis.labels) > 1:
        return -1
    return len(axis.labels) - 1 if axis.name == LAYER else 0


def _payload(shown: Shown) -> tuple[dict[str, Any], Text]:
    numbers, exactness = stored(shown.values)
    told: dict[str, Any] = {
        "name": in_both(shown.name),
        "axes": [
            {
                "id": axis.name, "name": in_both(axis_word(axis.name)),
                "labels": [_label(axis, text) for text in axis.labels],
                "mean": in_both(_MEANS[axis.name]) if axis.name in _MEANS else None,
            }
            for axis in shown.axes
        ],
        "keys": [visible(text) for text in shown.keys],
        "spaces": "".join("01"[space] for space in shown.spaces),
        "rtl": direction(shown.keys) == "rtl",
        "queries": [visible(text) for text in shown.queries],
        "stands": shown.stands,
        "otherRtl": direction(shown.queries) == "rtl",
        "numbers": numbers,
    }  # fmt: skip
    return told, exactness


def _label(axis: Axis, text: str) -> str | dict[str, str]:
    if axis.name == STATISTIC:
        return in_both(statistic_words(text)[0])
    return in_both(method_word(text)) if axis.name == METHOD else visible(text)


def _title(data: Trace | AttentionMap | Result) -> Text:
    if isinstance(data, Result):
        return method_word(data.method)
    model = data.model if isinstance(data, Trace) else data.module
    return Text(f"{_TITLE.en}: {model}", f"{_TITLE.zh}：{model}") if model else _TITLE


def _reading(data: Trace | AttentionMap | Result, several: Sequence[Shown], signed: bool) -> list[Text]:
    chosen = any(one.queries for one in several)
    undefined = any(bool(one.values.isnan().any()) for one in several)
    told = [(_COLOURS, True), (_SIGNED, signed), (_QUERIES, chosen), (_CAUSAL, any(one.causal for one in several))]
    notes = data.notes if isinstance(data, Result) else ()
    return [text for text, true in told if true] + [_UNDEFINED] * undefined + [*notes, _CAVEAT]


def _footer(data: Trace | AttentionMap | Result) -> list[Text]:
    if isinstance(data, Result):
        told = about(data)[:-1]  # how numbers are stored is said behind
        return [*told, unit_line(data.unit)] if len(data.unit) > _BRIEF else told
    model = data.model if isinstance(data, Trace) else ""
    return [Text(f"Model: {visible(model)}", f"模型：{visible(model)}")] if model else []


def _figure(shown: Shown, start: Sequence[int], query: int | None, title: str, unit: str) -> Any:
    """What the page shows at first."""
    values = shown.values
    for place in start:
        values = values.nanmean(0) if place < 0 else values[place]
    row = values.nanmean(0) if query is None else values[query]
    framed = None if query is None or shown.stands is None else shown.stands[query]
    return draw_tokens(
        np.asarray(row.numpy(), dtype=np.float64), shown.keys, shown.spaces, title=title, unit=unit, framed=framed,
        where=_where(shown, start, query),
    )  # fmt: skip


def _where(shown: Shown, start: Sequence[int], query: int | None) -> str:
    parts = [shown.name] if shown.queries else []
    for axis, place in zip(shown.axes, start, strict=True):
        label = _label(axis, axis.labels[place])
        said = Text(label["en"], label["zh"]) if isinstance(label, dict) else Text(label, label)
        word = axis_word(axis.name)
        named = axis.name in (LAYER, HEAD) and said.en.isdigit()
        parts.append(
            _MEANS[axis.name] if place < 0 else Text(f"{word.en} {said.en}", f"{word.zh} {said.zh}") if named else said
        )
    if shown.queries and query is None:
        parts.append(Text("mean over queries", "各查询平均"))
    elif shown.queries:
        parts.append(
            Text(f"query {shown.queries[query or 0]} ({query})", f"查询 {shown.queries[query or 0]}（{query}）")
        )
    return " · ".join(map(str, parts))
