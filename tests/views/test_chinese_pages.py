"""Every picture in Chinese has no English words but names: on its page, whatever is pointed at, and in its files."""

import html
import json
import re
from collections.abc import Iterator

import pytest
from matplotlib.text import Text as MatplotlibText

import hf_attnviz as av
from tests.views import hostile
from tests.views.test_every_picture import NAMES

TOKENS = tuple("春夏秋冬天地日月山水风云")
LATIN = re.compile(r"[A-Za-z][A-Za-z_]*[A-Za-z]")
KEPT_NAMES = (  # what has its name in every language, taken away before words are looked for
    r"\[(?:PAD|BOS|EOS|CLS)\]|\bregister\b",  # tokens
    r"参数：[^\n]*",  # arguments, as code takes them
    r"\b\w+=\[[^\]]*\]|\b\w+=[\w.…'\"()-]*|\bav\.\w+(?:\([\w, =]*\))?|\b\w+(?:_\w+)+\b|\b\w+\(\)",  # code
    r"parameters\['\w+'\]|evolution\(trace\) 的 confidence|：distance、|\((?:pearson|js)\)|\btrace\b|float\d+|\bid\b",
    r"[A-Z][A-Za-zü]+(?: & [A-Z][a-z]+|, [A-Z][a-z]+ & [A-Z][a-z]+| et al\.)? \d{4}",  # papers
    r"Jensen–Shannon|Kruskal stress|Kendall|Chefer|Rollout|rollout|Whisper|BertViz|ERASER|SmoothGrad|ALTI",  # methods
    r"Softmax|softmax|MLP|logit|NaN|mathdefault",
    r"\b(?:kB|MB|GB|Hz|Tab|Esc|Shift)\b",  # units and keys
    r"English",  # the switch of the language, which speaks to those who read English
)
NAMED = re.compile("|".join(KEPT_NAMES))
ENGLISH_SWITCH = "Show English"

# What is seen and what is read aloud, at first and each time that something was pointed at, focused, chosen or pressed.
READ = """async () => {
    const seen = (selector) => [...document.querySelectorAll(selector)].filter((one) => one.getClientRects().length);
    const found = new Set();
    const rest = () => new Promise((go) => requestAnimationFrame(() => setTimeout(go)));
    const look = async () => {
        await rest();
        document.body.innerText.split("\\n").forEach((line) => found.add(line));
        seen("svg text").forEach((one) => found.add(one.textContent));
        seen("[title], [aria-label], [aria-valuetext], [placeholder], [alt]").forEach((one) =>
            ["title", "aria-label", "aria-valuetext", "placeholder", "alt", "aria-description"].forEach((name) =>
                found.add(one.getAttribute(name) || "")));
        found.add(document.title);
    };
    const every = (all, most) => all.filter((_, n) => n % Math.ceil(all.length / most) === 0);
    const point = (one) => {
        const box = one.getBoundingClientRect();
        for (const type of ["pointerover", "mouseover", "pointerenter", "mouseenter", "pointermove", "mousemove"])
            one.dispatchEvent(new (type.startsWith("p") ? PointerEvent : MouseEvent)(type, {
                bubbles: !type.endsWith("enter"), clientX: box.left + box.width / 3, clientY: box.top + box.height / 3,
            }));
    };
    await look();
    const pointed = seen("main canvas, main svg *, main td, main [tabindex]");
    for (const one of every(pointed, 16)) { point(one); await look(); }
    for (const one of every(seen("main [tabindex='0']"), 8)) {
        one.focus();
        for (const key of ["ArrowRight", "ArrowDown", "Enter"])
            one.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
        await look();
    }
    for (const menu of seen("main select")) {
        for (const option of [...menu.options].slice(0, 3)) {
            menu.value = option.value;
            menu.dispatchEvent(new Event("input", {bubbles: true}));
            menu.dispatchEvent(new Event("change", {bubbles: true}));
            await look();
        }
        [...menu.options].forEach((option) => found.add(option.textContent));
    }
    for (const button of every(seen("main button"), 8)) { button.click(); await look(); }
    return [...found];
}"""


@pytest.fixture(scope="module")
def traces() -> Iterator[dict[str, av.Trace]]:
    """The traces of ``hostile`` with Chinese tokens and a Chinese name: every Latin word is then one of ours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hostile, "TOKENS", TOKENS)
        patch.setattr(hostile, "NAME", "模型")
        yield {kind: made.__wrapped__() for kind, made in hostile.TRACES.items() if kind != "by hand"}


def english(lines: list[str]) -> dict[str, list[str]]:
    """The lines that have English words in them which are no names, and those words."""
    found = {line: LATIN.findall(NAMED.sub(" ", line)) for line in lines if line != ENGLISH_SWITCH}
    return {line: words for line, words in found.items() if words}


def of(name: str, traces: dict[str, av.Trace]) -> av.View:
    return hostile.drawn(name, next(one for one in traces.values() if av.pictures()[name].suits(one)))


@pytest.mark.browser
@pytest.mark.parametrize("name", NAMES)
def test_a_chinese_page_has_no_english_words_but_names(open_page, traces, name: str) -> None:
    av.set_language("zh")
    page = open_page(of(name, traces))  # in a browser that asks for English: the page is in the language it was made in
    assert page.evaluate("document.documentElement.lang") == "zh"
    lines = page.evaluate(READ)
    assert any("中" in line or "的" in line for line in lines)
    assert not english(lines)
    page.click("#switch-language")
    assert page.evaluate("document.documentElement.lang") == "en"
    assert english(page.evaluate("[document.body.innerText, document.title]"))  # and such words would be found


@pytest.mark.parametrize("name", NAMES)
def test_a_chinese_figure_has_no_english_words_but_names(traces, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    put = MatplotlibText.set_text

    def spied(text, content) -> None:
        written.extend(str(content).split("\n"))
        put(text, content)

    monkeypatch.setattr(MatplotlibText, "set_text", spied)
    of_language = {}
    for language in ("zh", "en"):
        written.clear()
        with av.language.speaking(language):
            of(name, traces).figures["svg"]()
        of_language[language] = english(written)
    assert not of_language["zh"]
    assert of_language["en"]  # and such words would be found


# ---- pages of results, read without a browser: what they hold in Chinese


def chinese_of(page: str) -> list[str]:
    """What a page, and the pages framed in it, say in Chinese: in their spans, and in what their scripts read."""
    framed = [html.unescape(one) for one in re.findall(r'srcdoc="([^"]*)"', page)]
    spans = [html.unescape(one) for one in re.findall(r'<span lang="zh">(.*?)</span>', page, re.S)]
    told = [json.loads(f'"{one}"') for one in re.findall(r'"zh":\s*"((?:[^"\\\\]|\\\\.)*)"', page)]
    return [line for one in (*spans, *told) for line in one.split("\n")] + [
        line for one in framed for line in chinese_of(one)
    ]


def results(traces: dict[str, av.Trace]) -> Iterator[tuple[str, av.Result]]:
    for name, analysis in av.analyses().items():
        for trace in traces.values():
            try:
                found = analysis(trace, **({"stack": list(trace.stacks)[-1]} if "stack" in analysis.arguments else {}))
            except (av.errors.AttnvizError, ValueError):
                continue
            yield name, found
            break


def test_pages_of_results_have_no_english_words_but_names(traces) -> None:
    seen = set()
    for name, result in results(traces):
        seen.add(name)
        lines = chinese_of(av.picture(result).html)
        assert len(lines) > 5
        assert not english(lines), name
        assert not english([note.zh for note in result.notes]), name
    assert len(seen) >= 15, seen


def test_a_report_has_no_english_words_but_names(traces) -> None:
    for kind in ("text", "generation", "translation"):
        lines = chinese_of(av.report(traces[kind]).html)
        assert len(lines) > 100
        assert not english(lines), kind


def test_verdicts_and_comparisons_have_no_english_words_but_names() -> None:
    loaded = av.load_model("induction")
    found = av.trust(loaded, "春 夏 秋 冬 春 夏 秋")
    one, other = (av.trace_text(loaded, text, generate=False) for text in ("春 夏 秋 冬 春", "夏 春 秋 冬 春"))
    for view in (av.trust_view(found), av.compare_view(av.compare(one, other, by="word", word="秋"))):
        said = [re.sub(r"induction|<\w+>|GPT2LMHeadModel", "", line) for line in chinese_of(view.html)]  # its own names
        assert len(said) > 20
        assert not english(said)


def test_english_in_chinese_would_be_found() -> None:
    page = '<span lang="en">Layer</span><span lang="zh">Layer 层</span><script>{"zh": "all heads"}</script>'
    framed = f'<iframe srcdoc="{html.escape(page)}"></iframe>'
    assert list(english(chinese_of(page))) == list(english(chinese_of(framed))) == ["Layer 层", "all heads"]
    assert not english(['层 keep="maps"，av.trust(model, inputs)，Abnar & Zuidema 2020，head_statistics'])
