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
}
_UNITS: Final = {"share": Text("share", "占比"), "nats": Text("nats", "奈特"), "tokens": Text("tokens", "词元")}

_METHODS: Final = {
    "head statistics": Text("Head statistics", "注意力头统计"),
    "head similarity": Text("Head similarity", "注意力头相似度"),
    "attention rollout": Text("Attention rollout", "注意力 Rollout"),
    "value norms": Text("Weights and norms of what is moved", "权重与所搬运内容的范数"),
    "mixing ratio": Text("Mixing ratio", "混合比"),
    "ALTI rollout": Text("ALTI, followed down to the input", "ALTI（逐层追溯至输入）"),
    "ALTI contributions": Text("ALTI, each layer by itself", "ALTI（各层单独）"),
    "evolution over decoding steps": Text("Attention while decoding", "解码过程中的注意力"),
}
_STATISTICS: Final = {
    "weight": (Text("weight", "权重"), Text("Attention weight, mean over heads.", "注意力权重，对各头取平均。")),
    "weighted": (
        Text("norm of a head's part", "单头部分的范数"),
        Text("Length of weight × projected value of one head.", "单头的 权重 × 投影后的值 的长度。"),
    ),
    "summed": (
        Text("norm, summed over heads", "范数（各头求和）"),
        Text("Length of what a key adds to a query, all heads together.", "某键加到查询上的向量（各头求和）的长度。"),
    ),
    "with_residual": (
        Text("norm, with the residual", "范数（含残差）"),
        Text("The same, the query's residual in its own key's part.", "同上，查询的残差计入其自身的键。"),
    ),
    "normalised": (
        Text("norm, behind the layer's norm", "范数（归一化之后）"),
        Text("The same, behind the norm that follows.", "同上，经过其后的归一化。"),
    ),
    "mixing": (
        Text("mixing", "混合比"),
        Text("Share of other keys in what attention adds.", "注意力所加部分中来自其他键的占比。"),
    ),
    "mixing_with_residual": (
        Text("mixing, with the residual", "混合比（含残差）"),
        Text("Share of other keys, the residual counted as own.", "来自其他键的占比，残差计为自身。"),
    ),
    "mixing_normalised": (
        Text("mixing, behind the layer's norm", "混合比（归一化之后）"),
        Text("The same, behind the norm that follows.", "同上，经过其后的归一化。"),
    ),
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
}


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
