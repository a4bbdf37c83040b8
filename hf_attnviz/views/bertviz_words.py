"""What the pages of BertViz' views say, and how they are to be read."""

from collections.abc import Sequence
from typing import Final

from hf_attnviz.language import Text, counted
from hf_attnviz.trace import Trace
from hf_attnviz.views.groups import Group

VECTORS: Final = Text(
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
_SIDES_TIDIED: Final = Text(
    "Left: what looks (query). Right: what is looked at (key); in cross-attention the left is the decoder, the right "
    "the encoder, and → marks what the row put out. What was done to the rows stands above the picture.",
    "左侧：发出注意的一方（查询）。右侧：被注意的一方（键）；交叉注意力中左为解码器，右为编码器，→ 标出该行的输出。"
    "对各行所做的处理写在图上方。",
)
_NUMBERS: Final = Text(
    "Hover or focus (Tab) a token to see its lines alone and the number of each; a weight below 0.0005 has none.",
    "悬停或聚焦（Tab 键）某个词元，只看它的连线及每条线的数值；小于 0.0005 的权重不标数值。",
)
_CAVEAT: Final = Text(
    "Not shown: what the attended token carries. A strong line is no proof that the output depends on that token; "
    "attention is not an explanation.",
    "未显示：被注意的词元究竟携带了什么。线条浓并不证明输出依赖该词元；注意力本身不是解释。",
)
_HEAD: Final = (
    Text(
        "Each line is one weight; each colour is one head (colours repeat after ten). Its strength is the weight "
        "divided by the number of heads switched on, so faint lines grow as heads are switched off.",
        "每条线是一个权重，每种颜色是一个头（十种颜色循环使用）。浓淡等于权重除以所开启的头数，关掉一些头，淡线会变浓。",
    ),
    _NUMBERS,
    Text(
        "The number is the mean of the heads switched on. Click a coloured square to switch a head; double-click "
        "(or Enter) to see only that head.",
        "数值为所开启各头的平均。单击彩色方块开关一个头；双击（或按回车）只看该头。",
    ),
)
_MODEL: Final = (
    Text(
        "Each small picture is one head: a row of pictures is a layer, a column is a head number. Colours tell layers "
        "apart. Darkness of a line is its weight. Click a picture (or press Enter) for its tokens, click again (or "
        "press Escape) to close it.",
        "每个小图是一个头：一行是一层，一列是一个头号；颜色区分各层，线条浓淡即权重。"
        "单击小图（或按回车）看词元，再次单击（或按 Esc）关闭。",
    ),
    _NUMBERS,
)
_NEURON: Final = (
    _NUMBERS,
    Text(
        "Click the + of a token on the left (or press Enter): query q, key k, their product number by number, and the "
        "sum q·k, the score before mask and bias. Blue is positive, orange negative; a stronger colour is a larger "
        "number, and each cell says its own on hover. A click keeps a token chosen.",
        "点击左侧词元的“+”（或按回车）：显示查询 q、键 k、逐元素乘积，以及总和 q·k，"
        "即加掩码与偏置之前的分数。蓝为正，橙为负，颜色越浓数值越大；悬停在格子上显示其数值。单击词元可保持选中。",
    ),
    Text(
        "q and k stand as the kernel got them: after rotary positions, q times the model's scaling, the key repeated "
        "for every head of its group.",
        "q 与 k 是内核实际收到的：已含旋转位置编码，q 已乘以模型的缩放系数，键在同组各头间重复。",
    ),
)
_READINGS: Final = {"head_view": _HEAD, "model_view": _MODEL, "neuron_view": _NEURON}


def reading(view: str, trace: Trace) -> list[Text]:
    """How a view is to be read."""
    sides = _SIDES_TIDIED if trace.notes else _SIDES
    own = _READINGS[view]
    return [own[0], sides, *own[1:], _CAVEAT] if view == "model_view" else [sides, *own, _CAVEAT]


def title(english: str, chinese: str, trace: Trace) -> Text:
    """The heading, with the model's name."""
    return Text(f"{english}: {trace.model}", f"{chinese}：{trace.model}") if trace.model else Text(english, chinese)


def about(trace: Trace, found: Sequence[Group]) -> list[Text]:
    """The small print: the model, how many layers and heads, what is undefined."""
    english = "; ".join(
        f"{g.name.en}: {counted(len(g.maps), 'layer')} × {counted(len(g.heads), 'head')}" for g in found
    )
    chinese = "；".join(f"{g.name.zh}：{len(g.maps)} 层 × {len(g.heads)} 头" for g in found)
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
