"""BertViz' three views (Vig 2019, https://arxiv.org/abs/1906.05714), drawn by its own JavaScript, without a network.

The JavaScript is read from the installed package ``bertviz``, whose Python part is never imported. Each group of
maps gets its own instance, started when it is first shown; weights lie in the page once, as bytes.
"""

import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.errors import ArgumentError, NotKeptError, UnknownNameError
from hf_attnviz.language import Text, counted
from hf_attnviz.optional import require
from hf_attnviz.trace import Trace
from hf_attnviz.view import View
from hf_attnviz.views.encoding import WEIGHT_NOTE, packed, scaled_integers
from hf_attnviz.views.groups import Group, checked_heads, groups, starting_place
from hf_attnviz.views.page import fragment, own, page, vendored

_VECTOR_ROOM: Final = 16_000_000  # numbers of query and key vectors that a page holds; beyond, one layer only
_VECTOR_NOTE: Final = Text(
    "Query and key vectors are stored as 16-bit integers: every number is within 1/65,000 of the largest of its head.",
    "查询与键向量以 16 位整数存储：每个数的误差不超过该头最大值的 1/65000。",
)
_SIDES: Final = Text(
    "Left: the token that looks (query). Right: the token that is looked at (key); in cross-attention the left is the "
    "decoder, the right the encoder, and → marks the token that the row put out. Each row of weights, over all keys, "
    "sums to one unless the model gives part of it to a sink.",
    "左侧：发出注意的词元（查询）。右侧：被注意的词元（键）；交叉注意力中左为解码器，右为编码器，→ 标出该行输出的词元。"
    "每一行对所有键的权重之和为一，除非模型把一部分分给了汇点。",
)
_CAVEAT: Final = Text(
    "Not shown: what the attended token carries. A strong line is no proof that the output depends on that token; "
    "attention is not an explanation.",
    "未显示：被注意的词元究竟携带了什么。线条浓并不证明输出依赖该词元；注意力本身不是解释。",
)
_HEAD_READING: Final = (
    _SIDES,
    Text(
        "Each line is one weight; each colour is one head (colours repeat after ten). Its strength is the weight "
        "divided by the number of heads switched on, so faint lines grow as heads are switched off.",
        "每条线是一个权重，每种颜色是一个头（十种颜色循环使用）。浓淡等于权重除以所开启的头数，关掉一些头，淡线会变浓。",
    ),
    Text(
        "Hover or focus a token to see its lines alone. Click a coloured square to switch a head; double-click "
        "(or Enter) to see only that head.",
        "悬停或聚焦某个词元，只看它的连线。单击彩色方块开关一个头；双击（或按回车）只看该头。",
    ),
    _CAVEAT,
)
_MODEL_READING: Final = (
    Text(
        "Each small picture is one head: a row of pictures is a layer, a column is a head number. Colours tell layers "
        "apart. Darkness of a line is its weight. Click a picture for its tokens, click again to close it.",
        "每个小图是一个头：一行是一层，一列是一个头号；颜色区分各层，线条浓淡即权重。单击小图看词元，再次单击关闭。",
    ),
    _SIDES,
    _CAVEAT,
)
_NEURON_READING: Final = (
    _SIDES,
    Text(
        "Hover or focus a token on the left, then click its + (or press Enter): query q, key k, their product number "
        "by number, and the sum q·k, the score before mask and bias. Blue is positive, orange negative; a stronger "
        "colour is a larger number.",
        "悬停或聚焦左侧词元，再点它的“+”（或按回车）：显示查询 q、键 k、逐元素乘积，以及总和 q·k，"
        "即加掩码与偏置之前的分数。蓝为正，橙为负，颜色越浓数值越大。",
    ),
    Text(
        "q and k stand as the kernel got them: after rotary positions, the key repeated for every head of its group.",
        "q 与 k 是内核实际收到的：已含旋转位置编码，键在同组各头间重复。",
    ),
    _CAVEAT,
)


def head_view(
    trace: Trace, *, stack: str | None = None, layer: int | None = None, heads: Iterable[int] | int | None = None
) -> View:
    """Lines from each token to the tokens it attends to, a colour a head.

    Args:
        trace: one sequence.
        stack: one stack; None shows a menu of all.
        layer: the block index shown at first.
        heads: the heads switched on at first; None for all.
    """
    found = groups(trace, stack)
    start, place = starting_place(found, layer)
    settings = {"layer": place, "heads": checked_heads(heads, found[start])}
    longest = max(max(len(g.maps[0].queries), len(g.maps[0].keys)) for g in found)
    title = _title("Attention by head", "各头的注意力", trace)
    payloads = [group.payload() for group in found]
    return _bertviz_page("head_view", title, _HEAD_READING, trace, found, payloads, start, settings, longest * 23 + 100)


def model_view(trace: Trace, *, stack: str | None = None) -> View:
    """Every head of every layer at a glance, a small picture each; a click shows one large."""
    found = groups(trace, stack)
    title = _title("All layers and heads", "所有层与头", trace)
    height = 0
    for group in found:
        tokens = max(len(group.maps[0].queries), len(group.maps[0].keys))
        height = max(height, int(len(group.maps) * (tokens * 84 / group.heads + 10)) + 60, tokens * 18 + 100)
    payloads = [group.payload() for group in found]
    start, _ = starting_place(found, None)
    return _bertviz_page("model_view", title, _MODEL_READING, trace, found, payloads, start, {}, height)


def neuron_view(trace: Trace, *, stack: str | None = None, layer: int | None = None, head: int = 0) -> View:
    """How query and key vectors make up a score, number by number.

    Args:
        trace: one sequence, captured with ``keep=["maps", av.Vectors()]``.
        stack: one stack; None shows a menu of those that have vectors.
        layer: the block index shown at first; None for the first there is.
        head: the head shown at first.

    Raises:
        NotKeptError: the vectors were not kept.
    """
    found = [group for group in groups(trace, stack) if _has_vectors(group)]
    if not found:
        raise NotKeptError(
            Text(
                "the neuron view needs query and key vectors, and this trace holds none"
                f'{f" for stack {stack!r}" if stack else ""}: capture with keep=["maps", av.Vectors()]',
                f"neuron 视图需要查询与键的向量，而这个 trace{f' 的堆栈 {stack!r}' if stack else ''}没有："
                '请以 keep=["maps", av.Vectors()] 捕获',
            )
        )
    start, place = starting_place(found, layer)
    checked_heads(head, found[start])
    numbers = sum(_vector_numbers(m) for group in found for m in group.maps)
    footer = [_VECTOR_NOTE]
    if numbers > _VECTOR_ROOM:
        found = [Group(found[start].name, (found[start].maps[place],))]
        start, place = 0, 0
        footer.append(
            Text(
                f"The page holds layer {found[0].layers[0]} only: all layers would be {numbers:,} numbers.",
                f"此页只含第 {found[0].layers[0]} 层：全部层共有 {numbers:,} 个数。",
            )
        )
    payloads = [group.payload() | _vectors(group) for group in found]
    settings = {"layer": place, "head": head}
    longest = max(max(len(g.maps[0].queries), len(g.maps[0].keys)) for g in found)
    title = _title("Queries and keys", "查询与键", trace)
    height = longest * 26 + 180
    return _bertviz_page("neuron_view", title, _NEURON_READING, trace, found, payloads, start, settings, height, footer)


def to_bertviz(trace: Trace, *, stack: str | None = None) -> dict[str, Any]:
    """The arguments for BertViz' own functions: ``bertviz.head_view(**to_bertviz(trace))``.

    Raises:
        ArgumentError: stacks of unequal depth or heads, which BertViz cannot draw together: choose one.
    """
    names = list(trace.stacks) if stack is None else [stack]
    chosen = {name: trace.stack(name) for name in names}
    for name, found in chosen.items():
        if len(groups(trace, name)) > 1:
            raise ArgumentError(
                Text(
                    f"the layers of stack {name!r} differ in heads or lengths, which BertViz cannot draw together; "
                    "use head_view(trace), which can",
                    f"堆栈 {name!r} 各层的头数或长度不同，BertViz 无法一起绘制；请用 head_view(trace)，它可以",
                )
            )
        found.stacked()
    arguments: dict[str, Any] = {"prettify_tokens": False}
    if len(chosen) == 1:
        only = next(iter(chosen.values()))
        if only.queries.texts == only.keys.texts and only.maps[0].kind == "self":
            return arguments | {"attention": _four_axes(only.maps), "tokens": list(only.queries)}
        cross = {"cross_attention": _four_axes(only.maps)}
        return arguments | cross | {"decoder_tokens": list(only.queries), "encoder_tokens": list(only.keys)}
    if not set(chosen) <= {"encoder", "decoder", "cross"}:
        raise ArgumentError(
            Text(
                f"BertViz draws one stack, or encoder, decoder and cross; choose with stack=…: {names}",
                f"BertViz 可绘制一个堆栈，或 encoder、decoder 与 cross 一起；请用 stack=… 选定：{names}",
            )
        )
    sizes = {name: (len(found.maps), found.maps[0].heads) for name, found in chosen.items()}
    if len(set(sizes.values())) > 1:
        raise ArgumentError(
            Text(
                f"BertViz cannot draw stacks of unequal depth or heads together; (layers, heads) are {sizes}. "
                "Choose one with stack=…, or use head_view(trace), which can",
                f"BertViz 无法一起绘制深度或头数不等的堆栈；（层数, 头数）为 {sizes}。"
                "请用 stack=… 选定一个，或用 head_view(trace)，它可以",
            )
        )
    sides: dict[str, set[tuple[str, ...]]] = {}
    for name, found in chosen.items():
        arguments[f"{name}_attention"] = _four_axes(found.maps)
        left, right = ("decoder", "encoder") if name == "cross" else (name, name)
        for side, labels in ((left, found.queries), (right, found.keys)):
            sides.setdefault(side, set()).add(labels.texts)
    for side, texts in sides.items():
        if len(texts) > 1:
            raise ArgumentError(
                Text(
                    f"the stacks name the tokens of the {side} differently; choose one with stack=…: {names}",
                    f"各堆栈对 {side} 词元的命名不同；请用 stack=… 选定一个：{names}",
                )
            )
        arguments[f"{side}_tokens"] = list(next(iter(texts)))
    return arguments


def _bertviz_page(
    view: str,
    title: Text,
    reading: Sequence[Text],
    trace: Trace,
    found: Sequence[Group],
    payloads: Sequence[dict[str, Any]],
    start: int,
    settings: dict[str, Any],
    height: int,
    footer: Sequence[Text] = (),
) -> View:
    source = _javascript(view)
    # BertViz reads its data from a placeholder that is a JavaScript name, so it can simply be an argument.
    wrapped = f"function runBertviz(PYTHON_PARAMS, window, require, requirejs, console) {{\n{source}\n}}"
    data = {"view": view, "groups": list(payloads), "start": start, **settings}
    return page(
        title,
        fragment("bertviz.html", view=view),
        how_to_read=reading,
        footer=[*_about(trace, found), WEIGHT_NOTE, *footer],
        data=data,
        scripts=[vendored("jquery.slim.min.js"), vendored("d3.min.js"), wrapped, own("bertviz.js")],
        style=own("bertviz.css"),
        wide=view != "head_view",
        height=min(height, 900),
    )


def _javascript(view: str) -> str:
    """The text of one of BertViz' scripts, found without importing BertViz."""
    spec = importlib.util.find_spec("bertviz")
    if spec is None or not spec.submodule_search_locations:
        require("bertviz", "bertviz")
        raise UnknownNameError(
            Text(
                "the installed 'bertviz' is not the package of that name from PyPI",
                "已安装的 'bertviz' 不是 PyPI 上的那个包",
            )
        )
    return (Path(spec.submodule_search_locations[0]) / f"{view}.js").read_text(encoding="utf-8")


def _title(english: str, chinese: str, trace: Trace) -> Text:
    return Text(f"{english}: {trace.model}", f"{chinese}：{trace.model}") if trace.model else Text(english, chinese)


def _about(trace: Trace, found: Sequence[Group]) -> list[Text]:
    english = "; ".join(f"{g.name.en}: {counted(len(g.maps), 'layer')} × {counted(g.heads, 'head')}" for g in found)
    chinese = "；".join(f"{g.name.zh}：{len(g.maps)} 层 × {g.heads} 头" for g in found)
    lines = [Text(f"{english}. Layer numbers are the model's block indices.", f"{chinese}。层号为模型的块序号。")]
    if trace.model:
        lines.insert(0, Text(f"Model: {trace.model}", f"模型：{trace.model}"))
    undefined = sum(g.undefined_rows for g in found)
    if undefined:
        lines.append(
            Text(
                f"Undefined rows (NaN: everything is masked), drawn without lines: {undefined:,}.",
                f"{undefined:,} 行未定义（NaN：全部被遮蔽），不画线。",
            )
        )
    return lines


def _four_axes(maps: Sequence[AttentionMap]) -> list[torch.Tensor]:
    return [m.weights.detach().float().cpu()[None] for m in maps]


def _has_vectors(group: Group) -> bool:
    return all(m.query_vectors is not None and m.key_vectors is not None for m in group.maps)


def _vector_numbers(m: AttentionMap) -> int:
    assert m.query_vectors is not None
    assert m.key_vectors is not None
    return m.query_vectors.numel() + m.key_vectors.numel()


def _vectors(group: Group) -> dict[str, Any]:
    """Query and key vectors of every layer; keys once for each group of heads."""
    layers = []
    for m in group.maps:
        assert m.query_vectors is not None
        assert m.key_vectors is not None
        entry: dict[str, Any] = {"size": int(m.query_vectors.shape[-1])}
        for side, vectors in (("queries", m.query_vectors), ("keys", m.key_vectors)):
            codes, units = scaled_integers(vectors)
            entry[side] = {"codes": packed(codes), "units": units, "heads": int(vectors.shape[0])}
        layers.append(entry)
    hides_later = all(m.whole and m.causal for m in group.maps)
    return {"vectors": layers, "bidirectional": not hides_later}
