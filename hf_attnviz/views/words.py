"""Names of axes, units and statistics for people, in both languages."""

from typing import Final

from hf_attnviz import axes
from hf_attnviz.language import Text
from hf_attnviz.role_names import OF_ROLES
from hf_attnviz.views.comparison_words import OF_COMPARISONS

_AXES: Final = {
    axes.LAYER: Text("layer", "层"),
    axes.HEAD: Text("head", "头"),
    axes.QUERY: Text("query", "查询"),
    axes.KEY: Text("key", "键"),
    axes.GROUP: Text("group of tokens", "词元组"),
    axes.STEP: Text("step", "步"),
    axes.BATCH: Text("example", "样本"),
    axes.STATISTIC: Text("statistic", "统计量"),
    axes.OTHER_HEAD: Text("other head", "另一个头"),
    axes.OTHER_LAYER: Text("other layer", "另一层"),
    axes.METHOD: Text("method", "方法"),
    axes.OTHER_METHOD: Text("other method", "另一方法"),
    axes.REMOVAL: Text("removal", "移除方式"),
    axes.SHARE: Text("share of the tokens", "词元占比"),
    axes.SEGMENT: Text("segment", "片段"),
}
_BESIDE: Final = {
    "low": (Text("from", "自"), Text("the lower end of the 95 % interval over examples", "按样本计的 95% 区间的下限")),
    "high": (Text("to", "至"), Text("its upper end", "其上限")),
    "baseline": (
        Text("uniform attention", "均匀注意力"),
        Text("what uniform attention under the same mask gets", "同一掩码下均匀注意力的得分"),
    ),
    "verdict": (Text("passes", "达标"), Text("1 where it passes its threshold, else 0", "达到阈值为 1，否则为 0")),
}
_UNITS: Final = {
    "share": Text("share", "占比"),
    "nats": Text("nats", "奈特"),
    "tokens": Text("tokens", "词元"),
    "relevance": Text("relevance", "相关性"),
    "seconds": Text("seconds", "秒"),
    "patches": Text("patches", "图块"),
    "rows": Text("rows", "行"),
    "pixels": Text("pixels", "像素"),
    "share of the input": Text("share of the input", "输入的占比"),
    "number of a key": Text("number of a key", "键的序号"),
    "capacity, 0 to 1": Text("capacity, 0 to 1", "容量，0 到 1"),
    "of the target": Text("that of the number explained", "与所解释的数相同"),
    "of the scalar": Text("that of the number whose gradient was taken", "与求梯度的那个数相同"),
    "each method's own": Text("each method's own", "各方法自有"),
    "share (probability), tokens (left)": Text("share (probability), tokens (left)", "占比（概率）、词元（剩余）"),
    "change of the target; share (probability)": Text(
        "change of the number explained; share (probability)", "所解释的数的变化；占比（概率）"
    ),
    "correlation, −1 to 1": Text("correlation, −1 to 1", "相关系数，−1 到 1"),
    "rank correlation, −1 to 1": Text("rank correlation, −1 to 1", "秩相关系数，−1 到 1"),
    "cosine, 0 to 1": Text("cosine, 0 to 1", "余弦，0 到 1"),
    "squared distance, 0 to 1": Text("squared distance, 0 to 1", "距离的平方，0 到 1"),
    "1 or 0 (link), share (weight)": Text("1 or 0 (link), share (weight)", "1 或 0（链接）、占比（权重）"),
    "nats (entropy, drift), tokens (span, distance), shares (all others)": Text(
        "nats (entropy, drift), tokens (span, distance), shares (all others)",
        "奈特（熵、漂移）、词元（跨度、距离）、占比（其余）",
    ),
}

_METHODS: Final = {
    "value zeroing": Text("Value zeroing", "值置零"),
    "value zeroing, rolled out": Text("Value zeroing, followed down to the input", "值置零（逐层追溯至输入）"),
    "value norms": Text("Weights and norms of what is moved", "权重与所搬运内容的范数"),
    "mixing ratio": Text("Mixing ratio", "混合比"),
    "ALTI rollout": Text("ALTI, followed down to the input", "ALTI（逐层追溯至输入）"),
    "ALTI contributions": Text("ALTI, each layer by itself", "ALTI（各层单独）"),
    "head statistics": Text("Head statistics", "注意力头统计"),
    "head similarity": Text("Head similarity", "注意力头相似度"),
    "attention rollout": Text("Attention rollout", "注意力 Rollout"),
    "grouped attention rollout": Text("Attention rollout of groups of tokens", "注意力 Rollout（按词元组）"),
    "attention flow": Text("Attention flow", "注意力流"),
    "attention sinks": Text("Attention sinks", "注意力汇点"),
    "row statistics": Text("Statistics row by row", "逐行统计"),
    "attention received": Text("Attention that each key receives", "各键所得的注意力"),
    "head roles": Text("Head roles", "注意力头的角色"),
    "mass by segment": Text("Mass by segment", "各片段上的权重"),
    "head map": Text("Map of the heads", "注意力头分布图"),
    "image distance": Text("Distance across the picture", "图像上的注视距离"),
    "attention × gradient": Text("Attention × gradient", "注意力 × 梯度"),
    "relevance": Text("Relevance", "相关性传播（Chefer）"),
    "head importance": Text("Head importance", "注意力头重要性"),
    "explanations of one number": Text("Explanations of one number", "对同一个数的多种解释"),
    "input reduction": Text("Input reduction", "输入缩减"),
    "token replacement": Text("Token replacement", "词元替换"),
    "layer attributions": Text("Layer attributions", "逐层归因"),
    "evolution over decoding steps": Text("Attention while decoding", "解码过程中的注意力"),
    "comparison by head": Text("Two traces, head by head", "两个 trace：逐头比较"),
    "comparison by word": Text("Two traces, word by word", "两个 trace：逐词比较"),
    "agreement of rankings": Text("Agreement of rankings (Kendall τ-b)", "排序的一致性（Kendall τ-b）"),
    "ablation of the heads shown": Text("Ablation of the heads shown", "关闭所显示的头"),
    "alignment": Text("Alignment", "对齐"),
    "alignment scores": Text("How well each head aligns", "各头对齐得如何"),
    "word times": Text("When each word was spoken", "每个词的发声时间"),
    "argmax paths": Text("The key each head looks at most", "每个头最关注的键"),
}
_STATISTICS: Final = {
    **OF_COMPARISONS,
    **OF_ROLES,
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
    "link": (Text("link", "链接"), Text("1 where the two are linked.", "两者相连处为 1。")),
    "weight": (Text("weight", "权重"), Text("The weight of attention between the two.", "两者之间的注意力权重。")),
    "mean_weight": (
        Text("mean weight", "平均权重"),
        Text("Attention weight, mean over heads.", "注意力权重，对各头取平均。"),
    ),
    "error_rate_output": (
        Text("error rate, row that puts out", "错误率（产出行）"),
        Text("Alignment error rate of the row that put out each target.", "以产出各目标的行计算的对齐错误率。"),
    ),
    "error_rate_reading": (
        Text("error rate, row that reads", "错误率（读入行）"),
        Text("Alignment error rate of the row that read each target.", "以读入各目标的行计算的对齐错误率。"),
    ),
    "monotone_output": (
        Text("monotone, row that puts out", "单调（产出行）"),
        Text("Share of steps that do not go back.", "不后退的步的比例。"),
    ),
    "monotone_reading": (
        Text("monotone, row that reads", "单调（读入行）"),
        Text("Share of steps that do not go back.", "不后退的步的比例。"),
    ),
    "kendall_tau_output": (
        Text("Kendall's τ, row that puts out", "Kendall τ（产出行）"),
        Text("Agreement of the two orders, −1 to 1.", "两种次序的一致程度，−1 到 1。"),
    ),
    "kendall_tau_reading": (
        Text("Kendall's τ, row that reads", "Kendall τ（读入行）"),
        Text("Agreement of the two orders, −1 to 1.", "两种次序的一致程度，−1 到 1。"),
    ),
    "start": (Text("start (s)", "开始（秒）"), Text("When the word begins.", "词开始的时间。")),
    "end": (Text("end (s)", "结束（秒）"), Text("When the word ends.", "词结束的时间。")),
    "argmax paths": (
        Text("strongest key", "最强的键"),
        Text("The key with the largest weight, head by head.", "各头权重最大的键。"),
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
    "uniform_drift": (
        Text("drift of uniform attention (nats)", "均匀注意力的漂移（奈特）"),
        Text(
            "How much uniform attention would drift, merely because there is one key more.",
            "注意力完全均匀时，仅因多了一个键而产生的漂移。",
        ),
    ),
    "generated_mass": (
        Text("generated mass", "生成占比"),
        Text("Weight on all that was generated so far.", "落在已生成内容上的权重。"),
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
    "sink_mass": (
        Text("sink mass", "汇点权重"),
        Text("Mean weight of all rows on the sink.", "各行落在汇点上的平均权重。"),
    ),
    "sink_mass_after_first_row": (
        Text("sink mass, after the first row", "汇点权重（不计首行）"),
        Text("The same without the first row.", "同上，但不计首行。"),
    ),
    "image_distance": (
        Text("distance across the picture", "图像上的注视距离"),
        Text("Mean distance between a patch and what it looks at.", "图块与其所看图块的平均距离。"),
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
    "attention_gradient": (
        Text("attention × gradient", "注意力 × 梯度"),
        Text("Weights of the last layer times their gradients, sign kept.", "最后一层的权重乘以其梯度，保留正负号。"),
    ),
    "relevance": (
        Text("relevance", "相关性传播（Chefer）"),
        Text("Positive weight × gradient of all layers, added up.", "各层权重 × 梯度的正值部分累加。"),
    ),
    "saliency": (
        Text("saliency", "显著性"),
        Text("Length of the gradient at each position's vector.", "每个位置向量处梯度的长度。"),
    ),
    "smoothgrad": (
        Text("SmoothGrad", "SmoothGrad"),
        Text("Length of the mean gradient under noise.", "加噪声后平均梯度的长度。"),
    ),
    "input_x_gradient": (
        Text("input × gradient", "输入 × 梯度"),
        Text("Each position's vector times the gradient there.", "每个位置的向量与该处梯度的内积。"),
    ),
    "integrated_gradients": (
        Text("integrated gradients", "积分梯度"),
        Text(
            "The change from the baseline to the input, shared out among positions.",
            "从基线到输入的变化在各位置间的分摊。",
        ),
    ),
    "estimate": (
        Text("estimated change", "估计的变化"),
        Text("Change of the number by its gradient.", "由梯度估计的变化。"),
    ),
    "measured": (
        Text("measured change", "实测的变化"),
        Text("Change of the number when the model runs again.", "模型重新运行后实测的变化。"),
    ),
    "probability": (
        Text("probability", "概率"),
        Text("Probability of the prediction.", "该预测的概率。"),
    ),
    "left": (Text("tokens left", "剩余词元数"), Text("How many tokens are left.", "还剩多少个词元。")),
    "norms": (
        Text("norms of what is moved", "所搬运内容的范数"),
        Text(
            "How much of each token the last layer moves, all heads together.", "最后一层各头合计从每个词元搬运的量。"
        ),
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
_BRACKETED: Final = {"minus uniform attention)": "减去均匀注意力)", "uniform attention)": "均匀注意力)"}
CHANGE_IN: Final = "change_in_"  # such a statistic is the second trace's number minus the first's
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
    told = _BRACKETED.get(rest, rest)
    return Text(method, method) if known is None else Text(known.en + bracket + rest, known.zh + bracket + told)


def statistic_words(name: str) -> tuple[Text, Text]:
    """A statistic's name and what it means."""
    if name.startswith(CHANGE_IN):
        of, meaning = statistic_words(name.removeprefix(CHANGE_IN))
        return Text(f"change: {of.en}", f"变化：{of.zh}"), meaning
    return _STATISTICS.get(name, (Text(name, name), Text("", "")))


def axis_word(name: str) -> Text:
    """What an axis is called on a picture."""
    return _AXES.get(name, Text(name, name))


def beside_words(name: str) -> tuple[Text, Text]:
    """What stands beside a number: its name and what it means."""
    return _BESIDE.get(name, (Text(name, name), Text(name, name)))


def unit_word(unit: str) -> Text:
    """What a unit is called on a picture."""
    return _UNITS.get(unit, Text(unit, unit))


def unit_line(unit: str) -> Text:
    """A longer unit as a line of its own."""
    word = unit_word(unit)
    return Text(f"Unit: {word.en}", f"单位：{word.zh}")
