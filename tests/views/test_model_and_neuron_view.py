import dataclasses

import pytest
import torch

from hf_attnviz.errors import NotKeptError
from hf_attnviz.labels import Labels
from hf_attnviz.language import set_language
from hf_attnviz.trace import Trace
from hf_attnviz.views import model_view, neuron_view
from tests.views.builders import a_map, self_trace, translation

browser = pytest.mark.browser


@pytest.fixture(autouse=True)
def english():
    set_language("en")


@browser
def test_a_thumbnail_for_each_head_and_a_click_shows_it_large(open_page):
    trace = self_trace(["a", "b", "c"], layers=3, heads=4)
    page = open_page(model_view(trace), color_scheme="dark")
    assert page.locator("rect.attn_background").count() == 12
    lines = page.eval_on_selector_all(
        "#stage svg > g:has(#attn_background_2_1) line", "ls => ls.map(l => +l.getAttribute('stroke-opacity'))"
    )
    assert lines == pytest.approx(trace.encoder.maps[2].weights[1].flatten().tolist(), abs=0.004)
    page.get_by_role("button", name="Layer 2, head 1").focus()
    page.keyboard.press("Enter")
    assert page.eval_on_selector_all("text.token", "ts => ts.map(t => t.textContent)") == ["a", "b", "c"] * 2
    assert page.get_by_text("Layer 2, Head 1", exact=True).count() == 1
    page.click("#switch-language")
    assert page.get_by_text("第 2 层，第 1 头", exact=True).count() == 1
    background = page.eval_on_selector("rect.attn_background", "e => getComputedStyle(e).fill")
    assert background == "rgb(21, 24, 29)"


@browser
def test_the_pictures_of_a_long_text_are_no_taller_than_a_screen(open_page):
    trace = self_trace([f"w{n}" for n in range(120)], layers=2, heads=4)
    page = open_page(model_view(trace))
    height = "Number(document.querySelector('#stage svg').getAttribute('height'))"
    heights = page.eval_on_selector_all("rect.attn_background", "all => all.map((one) => +one.getAttribute('height'))")
    assert heights == pytest.approx([650] * 8)
    assert 1300 <= page.evaluate(height) < 1400
    first, last = (f"#stage svg > g:has(#attn_background_1_3) g[source-index='{n}'] line" for n in (0, 119))
    top, end = (float(page.locator(lines).first.get_attribute("y1")) for lines in (first, last))
    assert end - top == pytest.approx(119 / 120 * 640)
    page.get_by_role("button", name="Layer 0, head 1").focus()
    page.keyboard.press("Enter")
    lowest = page.eval_on_selector_all("text.token", "ts => Math.max(...ts.map(t => +t.getAttribute('y')))")
    assert page.evaluate(height) > lowest > 120 * 18  # an opened picture has all its tokens
    page.keyboard.press("Escape")
    assert page.evaluate(height) < 1400


@browser
def test_stacks_of_unequal_depth_in_the_model_view(open_page):
    page = open_page(model_view(translation()))
    assert page.eval_on_selector("#stack", "menu => menu.selectedOptions[0].textContent") == "Cross: decoder to encoder"
    assert page.locator("rect.attn_background").count() == 4
    page.select_option("#stack", label="Encoder")
    page.wait_for_selector("#stage[data-group='0']")
    assert page.locator("rect.attn_background").count() == 12
    page.select_option("#stack", label="Decoder")
    page.wait_for_selector("#stage[data-group='1']")
    assert page.locator("rect.attn_background").count() == 4


def dot_products(page):
    return page.eval_on_selector_all("rect.dotproduct", "rs => rs.map(r => +r.getAttribute('data-value'))")


@browser
def test_the_neuron_view_shows_the_scores_of_the_kernel(open_page):
    trace = self_trace(["a", "b", "c"], layers=2, heads=4, size=8, key_value_heads=2, first_layer=3)
    page = open_page(neuron_view(trace, layer=4, head=3))
    assert page.locator("#layer option").all_inner_texts() == ["3", "4"]
    page.locator("#collapsed #leftText g[tabindex]").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.get_attribute("#expanded", "visibility") == "visible"
    m = trace.encoder.layer(4)
    expected = (m.key_vectors.repeat_interleave(2, 0)[3] @ m.query_vectors[3, 1]).tolist()
    assert dot_products(page) == pytest.approx(expected, abs=1e-3)
    page.select_option("#att_head", "0")
    page.select_option("#layer", "0")
    page.locator("#expanded #leftText g[tabindex]").nth(2).focus()
    m = trace.encoder.layer(3)
    assert dot_products(page) == pytest.approx((m.key_vectors[0] @ m.query_vectors[0, 2]).tolist(), abs=1e-3)
    weights = page.eval_on_selector_all("#expanded #rightText .highlight", "rs => rs.map(r => +r.style.opacity)")
    assert weights == pytest.approx(m.weights[0, 2].tolist(), abs=0.004)


@browser
def test_the_neuron_view_keeps_its_place_when_the_theme_changes(open_page):
    labels = Labels.plain(["a", "b"])
    cross = a_map(labels, Labels.plain(["x", "y", "z"]), kind="cross", stack="decoder", size=4, heads=2)
    trace = Trace((*self_trace(["a", "b"], size=4, causal=True).maps, cross))
    page = open_page(neuron_view(trace), color_scheme="light")
    page.select_option("#stack", label="Cross: decoder to encoder")
    page.wait_for_selector("#stage[data-group='1']")
    page.select_option("#att_head", "1")
    page.click("#switch-theme")
    assert page.input_value("#att_head") == "1"
    fill = page.eval_on_selector("text.token", "e => getComputedStyle(e).fill")
    assert fill == "rgb(204, 204, 204)"
    page.hover("#collapsed #leftText text >> nth=0")
    page.click("#collapsed #leftText g >> nth=0 >> rect >> nth=1", force=True)
    expected = (cross.key_vectors[1] @ cross.query_vectors[1, 0]).tolist()
    assert dot_products(page) == pytest.approx(expected, abs=1e-3)


def test_without_vectors_it_says_what_to_keep():
    with pytest.raises(NotKeptError, match=r'keep=\["maps", av.Vectors\(\)\]'):
        neuron_view(self_trace(["a", "b"]))


def test_too_many_vectors_leave_one_layer():
    view = neuron_view(self_trace(["a", "b"], size=4), layer=1, max_bytes=400)
    assert "layer 1, heads 0–2): everything would take about" in view.html


def test_vectors_of_any_dtype():
    trace = self_trace(["a", "b"], size=4)
    maps = [
        dataclasses.replace(m, query_vectors=m.query_vectors.to(torch.bfloat16), key_vectors=m.key_vectors.half())
        for m in trace.maps
    ]
    assert neuron_view(Trace(tuple(maps))).height > 0
