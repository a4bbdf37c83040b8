"""The picture of verdicts: what the DOM of a real browser shows, in both languages and themes, and files for papers."""

import json
import math
import re

import pytest
import torch

import hf_attnviz as av
from hf_attnviz.language import set_language
from tests.models import ids, tiny

browser = pytest.mark.browser
HOSTILE = "</script><b>mine"


@pytest.fixture(autouse=True)
def english():
    set_language("en")


@pytest.fixture(scope="module")
def judged() -> av.Trust:
    """Induction on a text long enough; a ranking with a hostile name; one without any order."""
    text = "the cat sat on my red hat the cat sat on my"
    rankings = {HOSTILE: torch.arange(13), "flat": torch.zeros(13)}
    return av.trust(
        av.load_model("induction"),
        text,
        methods=["attention", "rollout"],
        rankings=rankings,
        rule=av.TrustRule(draws=40),
    )


@browser
def test_what_stands_on_the_page(open_page, judged):
    page = open_page(judged.view)
    assert page.locator(".method").count() == 4
    assert page.locator(".charts svg").count() == 16
    heads = page.eval_on_selector_all(".method h2", "es => es.map(e => e.innerText.replace(/\\s+/g, ' '))")
    words = {"trust": "trust", "do not": "do not trust", "undecided": "undecided"}
    names = ["raw attention", "attention rollout", HOSTILE, "flat"]
    assert heads == [f"{n} {words[v]}" for n, v in zip(names, judged.verdicts.values(), strict=True)]
    assert page.inner_text(".method:nth-of-type(1) .sentence") == judged.sentences["attention"].en
    assert page.locator(".method:nth-of-type(1) .token").count() == 13
    assert page.locator(".method:nth-of-type(1) .token.unranked").all_inner_texts() == ["<s>", "my"]
    facts = page.inner_text(".beside ul")
    assert "of raw attention lies on the first token" in facts
    assert "Without the head" in facts
    assert "Beside padding" in facts
    assert page.locator("table td").count() == 1 + 16


@browser
def test_ranks_are_those_of_the_scores(open_page, judged):
    page = open_page(judged.view)
    scores = judged.scores.select(method="attention").values.tolist()
    expected = [
        str(1 + sum(other > one for other in scores if not math.isnan(other))) for one in scores if not math.isnan(one)
    ]
    assert page.locator(".method:nth-of-type(1) .token sub").all_inner_texts() == expected
    assert page.locator(".method:nth-of-type(4) .token sub").count() == 0  # no order, no ranks


@browser
def test_curves_bands_and_marks(open_page, judged):
    page = open_page(judged.view)
    marks = page.locator(".method:nth-of-type(1) figcaption > span:first-child").all_inner_texts()
    passed = judged.beats.select(method="attention").values.flatten().tolist()
    assert marks == ["✓" if one else "✗" for one in passed]
    assert page.locator(".method:nth-of-type(4) figcaption > span:first-child").all_inner_texts() == ["–"] * 4
    assert page.locator(".method:nth-of-type(4) .dot").count() == 0
    assert page.locator(".method:nth-of-type(1) .dot").count() == 20
    page.locator(".method:nth-of-type(1) .hit").nth(3).hover()
    own = judged.curves.select(statistic="comprehensiveness", removal="deletion", method="attention", share="0.2")
    mean = judged.random.select(statistic="comprehensiveness", removal="deletion", share="0.2").values.mean()
    text = page.inner_text("#readout").replace("−", "-")
    assert text.startswith("raw attention · without the top, deletion · 20 %: ")
    numbers = [float(n) for n in re.findall(r"-?\d+\.\d+", text)]
    assert numbers[:2] == pytest.approx([own.values.item(), mean.item()], abs=6e-4)


@browser
def test_a_point_stands_where_its_number_says(open_page, judged):
    """Zero and the ticks are read off the axis itself."""
    page = open_page(judged.view)
    chart = ".method:nth-of-type(2) figure:nth-of-type(3)"
    ticks = page.eval_on_selector_all(
        f"{chart} svg text[text-anchor=end]",
        "ts => ts.map(t => [+t.textContent.replace('−', '-'), +t.getAttribute('y')])",
    )
    (low, at_low), (high, at_high) = ticks[0], ticks[-1]
    drawn = page.eval_on_selector_all(f"{chart} .dot", "ds => ds.map(d => +d.getAttribute('cy'))")
    values = judged.curves.select(statistic="sufficiency", removal="deletion", method="rollout").values.tolist()
    scale = (at_high - at_low) / (high - low)
    assert [y + 3.5 for y in drawn] == pytest.approx([at_low + (v - low) * scale for v in values], abs=0.2)


@browser
def test_languages_and_themes(open_page, judged):
    page = open_page(judged.view, color_scheme="dark")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.click("#switch-language")
    assert page.inner_text("h1") == "解释是否指出了真正的证据？"
    assert page.inner_text(".method:nth-of-type(1) .sentence") == judged.sentences["attention"].zh
    assert "删除" in page.inner_text(".method:nth-of-type(1) figcaption >> nth=0")
    page.click("#switch-theme")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"


@browser
def test_a_narrow_page_does_not_scroll_sideways(open_page, judged):
    page = open_page(judged.view, viewport={"width": 420, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 420


def test_hostile_names_stay_text(judged):
    assert "<b>mine" not in judged.view.html.replace("&lt;b&gt;mine", "")
    data = re.search(r'id="attnviz-data">(.*?)</script>', judged.view.html, re.DOTALL)
    assert data is not None
    assert json.loads(data[1])["methods"][2]["name"]["en"] == HOSTILE


@pytest.mark.parametrize("name", ["svg", "png", "pdf"])
@pytest.mark.parametrize("tongue", ["en", "zh"])
def test_files_for_papers(tmp_path, judged, name, tongue):
    set_language(tongue)
    assert av.trust_view(judged).save(tmp_path / f"x.{name}").stat().st_size > 1000


@browser
def test_what_could_not_be_measured_is_drawn_empty(open_page):
    result = av.trust(tiny("gpt2"), {"input_ids": ids(1, 1)}, methods=["attention", "rollout"], replacement=3)
    page = open_page(result.view)
    assert page.locator(".charts svg").count() == 8
    assert page.locator(".dot").count() == 0
    assert "no token is left to rank" in page.inner_text(".sentence >> nth=0")


@browser
def test_headings_of_charts_keep_to_a_line_and_say_what_was_needed(open_page, judged):
    page = open_page(judged.view)
    page.set_viewport_size({"width": 1100, "height": 900})
    widest = "es => es.map(e => { e.textContent = 'high is good · beats 100 of 100'; return e.clientHeight; })"
    assert set(page.eval_on_selector_all(".method:nth-of-type(2) .beaten", widest)) == {17}  # one line
    heights = page.eval_on_selector_all(".method:nth-of-type(1) figcaption", "es => es.map(e => e.clientHeight)")
    assert len(set(heights)) == 1
    beaten = page.locator(".method:nth-of-type(1) .beaten").all_inner_texts()
    passed = judged.beats.select(method="attention").values.flatten().tolist()
    for text, one in zip(beaten, passed, strict=True):
        count = int(re.search(r"beats (\d+) of 40", text)[1])
        assert (count >= 39) == bool(one)  # 0.95 × 39, up to the next: the 39th of 40 random rankings
    assert "at least 39 of the 40" in page.inner_text(".how")


def test_a_result_or_a_trace_is_no_verdict():
    trace = av.trace_text(av.load_model("induction"), "sun moon", generate=False)
    for other in (trace, av.flow(trace)):
        with pytest.raises(av.errors.ArgumentError, match=f"got a {type(other).__name__}"):
            av.trust_view(other)
