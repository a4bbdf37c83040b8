"""What a verdict says to a person, in both languages: the rule's result, and what removal did beside chance."""

import math
from collections.abc import Mapping
from typing import Final

from hf_attnviz.explaining.target import Target
from hf_attnviz.explaining.verdict import DO_NOT, MEASURES, TRUST
from hf_attnviz.functional import top_counts
from hf_attnviz.language import Text
from hf_attnviz.result import Result
from hf_attnviz.views.words import removal_word, statistic_words

_SHARE: Final = 0.1
_BESIDE: Final = {
    "padding": Text("Beside padding", "加上填充后"),
    "batch": Text("In a batch with another text", "与另一文本同批时"),
}


def sentence(
    name: str, verdict: str, reason: Text | None, *, numbers: Mapping[str, Result], target: Target, tokens: int
) -> Text:
    """One ranking's verdict and why, for a person.

    Args:
        numbers: ``beats``, ``curves`` and ``random`` of a :class:`hf_attnviz.Trust`.
        target: what is explained.
        tokens: how many tokens are ranked.
    """
    who, meaning = statistic_words(name)
    quoted = who.en if meaning.en else f"“{who.en}”"  # a user's own name
    subject = Text(f"The ranking by {quoted}", f"“{who.zh}”排序")
    if reason is None:
        told = _verdict(subject, verdict, numbers["beats"].select(method=name))
    else:
        told = Text(f"{subject.en} is undecided: {reason.en}.", f"{subject.zh}：无法判定，因为{reason.zh}。")
    if not bool(numbers["curves"].select(method=name).values.isfinite().all()):
        return told
    moved = _moved(name, numbers["curves"], numbers["random"], target, tokens)
    return Text(f"{told.en} {moved.en}", f"{told.zh}{moved.zh}")


def spoken(target: Target) -> Text:
    """What is explained: the probability of a class or token, or the user's own scalar."""
    if target.function is not None:
        return target.subject
    return Text(f"the probability of {target.subject.en}", f"{target.subject.zh}的概率")


def asked(target: Target, probability: float, model: str) -> Text:
    """What was explained, and what the model said."""
    what = spoken(target)
    return Text(
        f"Explained: {what.en}, {probability:.3g}, by {model}.",
        f"所解释的是：{what.zh}，值为 {probability:.3g}（{model}）。",
    )


def facts(sink: Result | None, heads: Result | None, stability: Result | None, shift: Result | None) -> list[Text]:
    """What stands beside the verdicts, a sentence each."""
    found = [_sink(sink)] if sink is not None else []
    found += [_heads(heads)] if heads is not None else []
    if stability is not None and shift is not None:
        found += [_stable(way, stability.select(statistic=way), shift) for way in shift.axis("statistic").labels]
    return found


def _sink(sink: Result) -> Text:
    first, special = sink.values.tolist()
    return Text(
        f"In the row where the prediction is read, {_percent(first)} of raw attention lies on the first token and "
        f"{_percent(special)} on special tokens.",
        f"在读出预测的那一行，原始注意力的 {_percent(first)} 落在首词元上，{_percent(special)} 落在特殊词元上。",
    )


def _heads(heads: Result) -> Text:
    top, layer, mean, deviation = (
        float(heads.select(statistic=name).values) for name in ("top_head", "layer", "random_mean", "random_deviation")
    )
    about = heads.parameters
    spread = "" if math.isnan(deviation) else f" ± {signed(deviation).lstrip('+')}"
    return Text(
        f"Without the head that looks most at the token ranked first ({about['head']}) the prediction moves by "
        f"{signed(top)}, without any head of layer {about['layer']} by {signed(layer)}, without a random head by "
        f"{signed(mean)}{spread} ({about['random']} drawn).",
        f"去掉最注视首位词元的头（{about['head']}）时预测变化 {signed(top)}，去掉第 {about['layer']} 层所有头时变化 "
        f"{signed(layer)}，随机去掉一个头时变化 {signed(mean)}{spread}（抽取 {about['random']} 个）。",
    )


def _stable(way: str, stability: Result, shift: Result) -> Text:
    moved, where = float(shift.select(statistic=way).values), _BESIDE[way]
    if math.isnan(moved):
        return Text(f"{where.en}: not measured, this model cannot run so.", f"{where.zh}：未测量，该模型无法如此运行。")
    names = stability.axis("method").labels
    kept = [(statistic_words(name)[0], float(stability.select(method=name).values)) for name in names]
    en = "".join(f"; {name.en} keeps its order with τ {tau:.2f}" for name, tau in kept if math.isfinite(tau))
    zh = "".join(f"；“{name.zh}”的次序一致性 τ 为 {tau:.2f}" for name, tau in kept if math.isfinite(tau))
    return Text(f"{where.en} the prediction moves by {signed(moved)}{en}.", f"{where.zh}预测变化 {signed(moved)}{zh}。")


def signed(number: float) -> str:
    """A change as a person reads it.

    >>> signed(-0.412), signed(0.0)
    ('−0.41', '0.00')
    """
    text = f"{number:+.2f}" if abs(number) >= 0.005 or number == 0 else f"{number:+.1g}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")


def _verdict(subject: Text, verdict: str, won: Result) -> Text:
    count, of = int(won.values.sum()), won.values.numel()
    if verdict == TRUST:
        return Text(
            f"{subject.en} earns trust here: it beats chance in all {of} tests.",
            f"{subject.zh}在此可信：{of} 项检验全部胜过随机排序。",
        )
    if verdict == DO_NOT:
        return Text(
            f"{subject.en} is no better than chance here: it beats it in none of {of} tests.",
            f"{subject.zh}在此不比随机更好：{of} 项检验无一胜过随机排序。",
        )
    tests = [
        Text(f"{m} by {w}", f"{removal_word(w).zh}下的{statistic_words(m)[0].zh}")
        for m, row in zip(MEASURES, won.values, strict=True)
        for w, beaten in zip(won.axis("removal").labels, row, strict=True)
        if bool(beaten)
    ]
    return Text(
        f"{subject.en} is undecided here: it beats chance in {count} of {of} tests ({', '.join(t.en for t in tests)}).",
        f"{subject.zh}在此无法判定：{of} 项检验中有 {count} 项胜过随机排序（{'、'.join(t.zh for t in tests)}）。",
    )


def _moved(name: str, curves: Result, random: Result, target: Target, tokens: int) -> Text:
    """What removing the top tenth does, and what removing as many at random does."""
    labels = curves.axis("share").labels
    shares = [float(label) for label in labels]
    share = min(range(len(shares)), key=lambda n: abs(shares[n] - _SHARE))
    where = {"statistic": MEASURES[0], "removal": curves.axis("removal").labels[0], "share": labels[share]}
    own = -float(curves.select(method=name, **where).values)
    chance = -random.select(**where).values
    (count,) = top_counts(tokens, (shares[share],))
    what, percent = spoken(target), _percent(shares[share])
    mean, deviation = signed(float(chance.mean())), signed(float(chance.std())).lstrip("+")
    return Text(
        f"Removing its top {percent} ({count} of {tokens} tokens) moves {what.en} by {signed(own)}, random "
        f"removal by {mean} ± {deviation} (mean and standard deviation).",
        f"移除其排序前 {percent}（{tokens} 个词元中的 {count} 个）使{what.zh}变化 {signed(own)}，"
        f"随机移除为 {mean} ± {deviation}（平均与标准差）。",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\u00a0%"  # the sign does not stand alone on the next line
