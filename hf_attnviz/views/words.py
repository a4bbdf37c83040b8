"""Names of axes, units and statistics for people, in both languages."""

from typing import Final

from hf_attnviz import axes
from hf_attnviz.language import Text

_AXES: Final = {
    axes.LAYER: Text("layer", "层"),
    axes.HEAD: Text("head", "头"),
    axes.QUERY: Text("query", "查询"),
    axes.KEY: Text("key", "键"),
    axes.STEP: Text("step", "步"),
    axes.BATCH: Text("example", "样本"),
    axes.STATISTIC: Text("statistic", "统计量"),
    axes.OTHER_HEAD: Text("other head", "另一个头"),
    axes.OTHER_LAYER: Text("other layer", "另一层"),
    axes.METHOD: Text("method", "方法"),
    axes.OTHER_METHOD: Text("other method", "另一方法"),
    axes.REMOVAL: Text("removal", "移除方式"),
    axes.SHARE: Text("share of the tokens", "词元占比"),
}
_UNITS: Final = {"share": Text("share", "占比"), "nats": Text("nats", "奈特"), "tokens": Text("tokens", "词元")}

_METHODS: Final = {
    "head statistics": Text("Head statistics", "注意力头统计"),
    "head similarity": Text("Head similarity", "注意力头相似度"),
    "attention rollout": Text("Attention rollout", "注意力 Rollout"),
    "evolution over decoding steps": Text("Attention while decoding", "解码过程中的注意力"),
    "agreement of rankings": Text("Agreement of rankings (Kendall τ-b)", "排序的一致性（Kendall τ-b）"),
    "ablation of the heads shown": Text("Ablation of the heads shown", "关闭所显示的头"),
}
_STATISTICS: Final = {
    "lookback_ratio": (
        Text("lookback ratio", "回看比"),
        Text(
            "Mean weight on prompt keys, over that plus mean weight on generated keys: above one half, it looks back.",
            "提示各键的平均权重 ÷（该值 + 已生成各键的平均权重）：大于一半即偏向回看提示。",
        ),
    ),
    "prompt_mass": (Text("prompt mass", "提示占比"), Text("Weight on the whole prompt.", "落在整个提示上的权重。")),
    "entropy": (
        Text("entropy (nats)", "熵（奈特）"),
        Text("How spread the weights are, in nats.", "权重分散的程度，单位奈特。"),
    ),
    "first_token": (
        Text("first token", "首词元"),
        Text("Weight on the first token, which often serves as a sink.", "落在第一个词元上的权重，它常充当汇点。"),
    ),
    "self_token": (
        Text("own token", "自身"),
        Text("Weight on the token that is read in this step.", "落在本步所读词元上的权重。"),
    ),
    "drift": (
        Text("drift (nats)", "漂移（奈特）"),
        Text("Jensen–Shannon divergence from the step before, in nats.", "与上一步的 Jensen–Shannon 散度，单位奈特。"),
    ),
    "argmax": (
        Text("strongest key", "最强的键"),
        Text("Number of the key with the largest weight.", "权重最大的键的序号。"),
    ),
    "normalised_entropy": (
        Text("normalised entropy", "归一化熵"),
        Text("Entropy over the logarithm of the allowed keys: 1 is uniform.", "熵 ÷ 可看的键数的对数：1 即均匀。"),
    ),
    "effective_span": (
        Text("effective span (tokens)", "有效跨度（词元）"),
        Text("Over how many keys the weights are spread, in effect.", "权重实际分散到多少个键上。"),
    ),
    "distance": (
        Text("distance (tokens)", "距离（词元）"),
        Text("How far back or ahead a head looks, weighted.", "加权平均的注视距离。"),
    ),
    "previous_token": (
        Text("previous token", "前一词元"),
        Text("Weight on the token before.", "落在前一个词元上的权重。"),
    ),
    "next_token": (Text("next token", "后一词元"), Text("Weight on the token after.", "落在后一个词元上的权重。")),
    "first_token_after_first_row": (
        Text("first token, after the first row", "首词元（不计首行）"),
        Text(
            "The same without the first row, which has no choice when causal.", "同上，但不计因果掩码下别无选择的首行。"
        ),
    ),
    "confidence": (
        Text("confidence", "置信度"),
        Text("The largest weight of a row, on average.", "每行最大权重的平均值。"),
    ),
    "previous_token_argmax": (
        Text("previous token is strongest", "前一词元最强"),
        Text("Share of rows whose largest weight is on the token before.", "最大权重落在前一词元上的行的占比。"),
    ),
    "attention": (
        Text("raw attention", "原始注意力"),
        Text("Weights of the last layer, mean over heads.", "最后一层的权重，各头平均。"),
    ),
    "rollout": (
        Text("attention rollout", "注意力 Rollout"),
        Text("Weights followed through all layers.", "逐层相乘的权重。"),
    ),
    "comprehensiveness": (
        Text("comprehensiveness", "完备性"),
        Text("Fall of the prediction without the top tokens: high is better.", "去掉前列词元后预测的下降：越高越好。"),
    ),
    "sufficiency": (
        Text("sufficiency", "充分性"),
        Text(
            "Fall of the prediction with the top tokens alone: low is better.", "仅保留前列词元时预测的下降：越低越好。"
        ),
    ),
    "special_tokens": (
        Text("special tokens", "特殊词元"),
        Text("Weight on special tokens (starts, ends, separators).", "落在特殊词元（起始、结束、分隔）上的权重。"),
    ),
    "top_head": (
        Text("the head shown", "所显示的头"),
        Text("Change of the prediction without the head that shows the evidence.", "去掉显示证据的头后预测的变化。"),
    ),
    "layer": (
        Text("all heads of its layer", "该层所有头"),
        Text("Change of the prediction without any head of that layer.", "去掉该层所有头后预测的变化。"),
    ),
    "random_mean": (
        Text("a random head, mean", "随机一头：平均"),
        Text(
            "Change of the prediction without one head drawn at random, on average.", "随机去掉一头后预测变化的平均。"
        ),
    ),
    "random_deviation": (
        Text("a random head, deviation", "随机一头：标准差"),
        Text("Standard deviation of that change.", "该变化的标准差。"),
    ),
    "random_share": (
        Text("random heads that matter less", "影响更小的随机头占比"),
        Text(
            "Share of the random heads that move the prediction less than the head shown.",
            "随机头中，对预测影响小于所显示之头的占比。",
        ),
    ),
    "padding": (Text("padding", "填充"), Text("The same text beside padding tokens.", "同一文本旁加上填充词元。")),
    "batch": (Text("batch", "成批"), Text("The same text in a batch with another one.", "同一文本与另一文本同批。")),
}
_REMOVALS: Final = {"deletion": Text("deletion", "删除"), "replacement": Text("replacement", "替换")}
_VERDICTS: Final = {
    "trust": Text("trust", "可信"),
    "do not": Text("do not trust", "不可信"),
    "undecided": Text("undecided", "无法判定"),
}


def removal_word(way: str) -> Text:
    """How tokens are taken away."""
    return _REMOVALS.get(way, Text(way, way))


def verdict_word(verdict: str) -> Text:
    """A verdict on a ranking."""
    return _VERDICTS.get(verdict, Text(verdict, verdict))


def method_word(method: str) -> Text:
    """A method as a title; what stands behind it in brackets stays."""
    name, bracket, rest = method.partition(" (")
    known = _METHODS.get(name)
    return Text(method, method) if known is None else Text(known.en + bracket + rest, known.zh + bracket + rest)


def statistic_words(name: str) -> tuple[Text, Text]:
    """A statistic's name and what it means."""
    return _STATISTICS.get(name, (Text(name, name), Text("", "")))


def axis_word(name: str) -> Text:
    """What an axis is called on a picture."""
    return _AXES.get(name, Text(name, name))


def unit_word(unit: str) -> Text:
    """What a unit is called on a picture."""
    return _UNITS.get(unit, Text(unit, unit))


def unit_line(unit: str) -> Text:
    """A longer unit as a line of its own."""
    return Text(f"Unit: {unit}", f"单位：{unit}")
