"""Verdicts on rankings of the evidence: each one's removal curves against chance, and its tokens with their ranks."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any, Final, Protocol

import torch

from hf_attnviz.axes import METHOD, REMOVAL, SHARE, STATISTIC
from hf_attnviz.errors import ArgumentError
from hf_attnviz.labels import Labels
from hf_attnviz.language import Text
from hf_attnviz.legible import visible
from hf_attnviz.result import Result
from hf_attnviz.trace import Trace
from hf_attnviz.view import View
from hf_attnviz.views import figures
from hf_attnviz.views.page import fragment, in_both, own, page
from hf_attnviz.views.sources import source_line
from hf_attnviz.views.words import removal_word, statistic_words, verdict_word

_BAND: Final = (0.05, 0.95)
_KINDS: Final = {"trust": "trust", "do not": "not"}
_AGREEMENT: Final = Text(
    "Do the methods agree? (Kendall τ-b, 1 is the same order)", "各方法一致吗？（Kendall τ-b，1 为次序相同）"
)
_FACTS: Final = Text("What else bears on it", "其他相关事实")
_TESTS: Final = {
    "comprehensiveness": Text("without the top, {way}", "去掉前列·{way}"),
    "sufficiency": Text("the top alone, {way}", "仅留前列·{way}"),
}
_GOOD: Final = {
    "comprehensiveness": Text("high is good", "越高越好"),
    "sufficiency": Text("low is good", "越低越好"),
}


class Judged(Protocol):
    """What is drawn: a :class:`hf_attnviz.Trust`."""

    @property
    def tokens(self) -> Labels: ...
    @property
    def verdicts(self) -> Mapping[str, str]: ...
    @property
    def sentences(self) -> Mapping[str, Text]: ...
    @property
    def asked(self) -> Text: ...
    @property
    def facts(self) -> Sequence[Text]: ...
    @property
    def notes(self) -> Sequence[Text]: ...
    @property
    def scores(self) -> Result: ...
    @property
    def curves(self) -> Result: ...
    @property
    def random(self) -> Result: ...
    @property
    def percentile(self) -> Result: ...
    @property
    def beats(self) -> Result: ...
    @property
    def agreement(self) -> Result: ...


def trust_view(trust: Judged, *, title: Text | str | None = None) -> View:
    """Each method's verdict, its removal curves against the band of random rankings, and its tokens with their ranks.

    Saves as html, svg, png and pdf.

    Raises:
        ArgumentError: a result or a trace in place of verdicts.
    """
    if isinstance(trust, Result | Trace):
        raise ArgumentError(
            Text(
                f"expected what av.trust(model, text) gives, got a {type(trust).__name__}; draw a result with "
                "picture(result), a trace with head_view(trace)",
                f"应为 av.trust(model, text) 的结果，得到的是 {type(trust).__name__}；Result 请用 picture(result) "
                "绘制，trace 请用 head_view(trace)",
            )
        )
    heading = title or Text("Does the explanation name the evidence?", "解释是否指出了真正的证据？")
    names = trust.curves.axis(METHOD).labels
    methods = [
        {
            "name": statistic_words(name)[0],
            "verdict": verdict_word(trust.verdicts[name]),
            "kind": _KINDS.get(trust.verdicts[name], "undecided"),
            "sentence": trust.sentences[name],
            "tokens": _tokens(trust.tokens.texts, trust.scores.select(method=name).values),
        }
        for name in names
    ]
    body = fragment(
        "trust.html",
        asked=trust.asked,
        methods=methods,
        agreement=[[_number(v) for v in row] for row in trust.agreement.values.tolist()] if len(names) > 1 else [],
        agreement_heading=_AGREEMENT,
        facts=trust.facts,
        facts_heading=_FACTS,
    )
    return page(
        heading,
        body,
        how_to_read=_reading(trust),
        footer=[*trust.notes, source_line(trust.curves.source)],
        data=_data(trust, names),
        scripts=[own("trust.js")],
        style=own("trust.css"),
        wide=True,
        height=570 + 400 * len(names),
        figures=figures.files(partial(_figure, trust, str(heading))),
    )


def _tokens(texts: Sequence[str], scores: torch.Tensor) -> list[dict[str, Any]]:
    """Each token with its rank, 1 the highest; tokens that are not ranked have none."""
    ranked = [n for n, score in enumerate(scores.tolist()) if math.isfinite(score)]
    order = sorted(ranked, key=lambda n: -float(scores[n]))
    flat = not order or float(scores[order[0]]) == float(scores[order[-1]])
    ranks = {} if flat else {n: 1 + sum(bool(scores[m] > scores[n]) for m in ranked) for n in ranked}
    return [
        {
            "text": visible(text),
            "rank": ranks.get(n),
            "strength": f"{1 - (ranks[n] - 1) / max(1, len(ranked) - 1):.3f}" if n in ranks else "0",
        }
        for n, text in enumerate(texts)
    ]


def _tests(trust: Judged) -> list[tuple[str, str]]:
    """Measure and way of each test, in the order of the charts."""
    return list(product(trust.curves.axis(STATISTIC).labels, trust.curves.axis(REMOVAL).labels))


def _test_name(measure: str, way: str) -> Text:
    told, by = _TESTS[measure], removal_word(way)
    return Text(told.en.format(way=by.en), told.zh.format(way=by.zh))


def _data(trust: Judged, names: Sequence[str]) -> dict[str, Any]:
    tests = []
    for measure, way in _tests(trust):
        low, mean, high = map(_plain, _chance(trust, measure, way))
        tests.append(
            {
                "measure": measure,
                "name": in_both(_test_name(measure, way)),
                "good": in_both(_GOOD[measure]),
                "low": low,
                "mean": mean,
                "high": high,
            }
        )
    methods, draws = [], _draws(trust)
    for name in names:
        where = [{"statistic": m, "removal": w, "method": name} for m, w in _tests(trust)]
        known = [bool(trust.curves.select(**one).values.isfinite().all()) for one in where]
        beaten = [float(trust.percentile.select(**one).values) for one in where]
        methods.append(
            {
                "name": in_both(statistic_words(name)[0]),
                "curves": [_plain(trust.curves.select(**one).values) for one in where],
                "beats": [
                    bool(trust.beats.select(**one).values) if k else None for one, k in zip(where, known, strict=True)
                ],
                "beaten": [round(draws * b) if math.isfinite(b) else None for b in beaten],
            }
        )
    return {"shares": _shares(trust), "tests": tests, "methods": methods, "draws": draws}


def _draws(trust: Judged) -> int:
    """How many random rankings there are."""
    return len(trust.random.axis(METHOD).labels)


def _needed(trust: Judged) -> int:
    """How many of them a ranking must beat: all up to the percentile's own, the next result above it."""
    return math.ceil(round(float(trust.curves.parameters["percentile"]) / 100 * (_draws(trust) - 1), 9)) + 1


def _chance(trust: Judged, measure: str, way: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The band of the random rankings and, between its ends, their mean, share by share."""
    values = trust.random.select(statistic=measure, removal=way).values
    low, high = (values.quantile(share, dim=0) for share in _BAND)
    return low, values.mean(0), high


def _shares(trust: Judged) -> list[str]:
    return [f"{100 * float(label):g} %" for label in trust.curves.axis(SHARE).labels]


def _plain(values: torch.Tensor) -> list[float | None]:
    """Numbers for JSON, which has no NaN."""
    return [float(f"{v:.6g}") if math.isfinite(v) else None for v in values.tolist()]


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−") if math.isfinite(value) else "–"


def _reading(trust: Judged) -> list[Text]:
    draws, needed, rule = _draws(trust), _needed(trust), trust.curves.parameters["percentile"]
    return [
        Text(
            "Each method puts the tokens in an order; the small number is the rank, a fuller colour is higher. Dashed "
            "tokens are not ranked and never removed.",
            "每种方法给词元排出次序：小号数字为名次，颜色越浓名次越高。虚线框的词元不参与排序，也从不移除。",
        ),
        Text(
            "Each chart: from left to right the share of tokens that is taken, upward how far the number named below "
            f"falls. Blue is the method; the grey band holds 90 % of {draws} random rankings, the dashed line is their "
            "mean. Without the top (comprehensiveness) a good ranking lies above the band; with the top alone "
            "(sufficiency) below it.",
            "每幅小图：横轴为所取前列词元的占比，纵轴为下面所写的那个数下降的幅度。"
            f"蓝线为该方法；灰带含 {draws} 个随机排序的 90 %，虚线为其平均。"
            "去掉前列（完备性）时，好的排序在带之上；仅留前列（充分性）时，在带之下。",
        ),
        Text(
            f"The rule: a chart is passed (✓) if the mean of its curve beats the {rule:g}th percentile of the random "
            f"rankings, that is at least {needed} of the {draws}. “Trust” if all four charts are passed, “do not "
            "trust” if none is, else “undecided”; so is a ranking that does as well as the best where not even "
            "the best can pass. Each method is tested for itself: that one of several passes by luck is "
            "likelier than that a single one does.",
            f"规则：曲线平均值胜过随机排序的第 {rule:g} 百分位，即 {draws} 个中至少 {needed} 个，该图通过（✓）。"
            "四幅全部通过为“可信”，无一通过为“不可信”，其余为“无法判定”；若连最好的排序也无法通过，与之不相上下者亦然。"
            "各方法分别检验：方法越多，其中有一种碰巧通过的机会越大。",
        ),
        Text(
            "Not shown: why the model answers so. Nobody writes texts with tokens missing, and on them a model may do "
            "what it never does elsewhere; that is why both ways of removal have to agree.",
            "未显示：模型为何如此作答。移除词元后的文本并非自然文本，"
            "模型在其上的表现可能反常，因此要求两种移除方式结论一致。",
        ),
    ]


def _figure(trust: Judged, title: str) -> Any:
    """A row of four panels for each method."""
    names, tests, shares = trust.curves.axis(METHOD).labels, _tests(trust), _shares(trust)
    figure = figures.new_figure(2.6 * len(tests) + 0.6, 1.9 * len(names) + 0.9)
    words = [f"{statistic_words(n)[0]}: {verdict_word(trust.verdicts[n])}" for n in names]
    fonts = figures.fonts_for([title, *words, *(f"{_test_name(*test)}{_GOOD[test[0]]}" for test in tests)])
    figures.write(figure.suptitle("", fontsize=11), title, fonts)
    panels = figure.subplots(len(names), len(tests), squeeze=False, sharex=True, sharey="all")
    for row, name in enumerate(names):
        for column, (measure, way) in enumerate(tests):
            panel = panels[row][column]
            own_values = trust.curves.select(statistic=measure, removal=way, method=name).values.numpy()
            low, mean, high = (one.numpy() for one in _chance(trust, measure, way))
            places = list(range(len(shares)))
            panel.fill_between(places, low, high, color="#c9d1db", alpha=0.7, linewidth=0)
            panel.plot(places, mean, color="#57606a", linestyle="--", linewidth=1)
            panel.plot(places, own_values, color="#0b62c4", marker="o", markersize=3, linewidth=1.5)
            panel.axhline(0, color="#a9b0b9", linewidth=0.7, zorder=0)
            panel.set_xticks(places, shares, fontsize=7)
            panel.tick_params(labelsize=7)
            panel.spines[["top", "right"]].set_visible(False)
            if row == 0:
                heading = f"{_test_name(measure, way)}\n{_GOOD[measure]}"
                figures.write(panel.set_title("", fontsize=8), heading, fonts)
            if column == 0:
                figures.write(panel.yaxis.label, words[row], fonts)
                panel.yaxis.label.set_fontsize(8)
    return figure
