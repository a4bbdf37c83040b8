"""Words, hidden tokens, chosen layers and heads, exact numbers and the budget of BertViz' views, in a real browser."""

import dataclasses
import math
import re

import pytest
import torch

import hf_attnviz as av
from hf_attnviz.errors import ArgumentError, UnknownNameError
from hf_attnviz.labels import Labels, Segment
from hf_attnviz.language import set_language
from hf_attnviz.trace import Trace
from hf_attnviz.views import compose, head_view, model_view, neuron_view
from tests.views.builders import a_map, rows, self_trace

browser = pytest.mark.browser
TEXTS = "elements => elements.map(element => element.textContent)"
WHOLE = "elements => elements.map(element => element.dataset.full)"
PAIR = Labels.of(
    ["[CLS]", "un", "seen", "[SEP]", "cats", "[SEP]"],
    [None] * 6,
    [None, 0, 0, None, 1, None],
    ["special", *[Segment("text", 0, 1, part=0)] * 2, "special", Segment("text", 0, 1, part=1), "special"],
)


@pytest.fixture(autouse=True)
def english():
    set_language("en")


def beside(page):
    return [float(text) for text in page.eval_on_selector_all("#stage .beside text", TEXTS)]


@browser
def test_hover_and_keyboard_write_the_numbers(open_page):
    trace = self_trace(["the", "cat", "sat"], layers=1, heads=3)
    weights = trace.encoder.maps[0].weights
    page = open_page(head_view(trace, exact=True))
    page.hover("#left g[tabindex] >> nth=1")
    assert beside(page) == pytest.approx(weights[:, 1].mean(0).tolist(), abs=6e-4)
    page.locator("[role=checkbox]").nth(2).focus()
    page.keyboard.press("Enter")  # head 2 alone
    page.locator("#right g[tabindex]").nth(0).focus()
    assert beside(page) == pytest.approx(weights[2, :, 0].tolist(), abs=3e-4)
    strongest = int(weights[2, :, 0].argmax())
    said = page.inner_text("#stage-reading")
    assert said.startswith(f"“the” is looked at by: {('the', 'cat', 'sat')[strongest]} {weights[2, strongest, 0]:.4f}")
    assert "float16" in page.inner_text("footer")
    page.locator("[role=checkbox]").nth(0).focus()
    assert (beside(page), page.inner_text("#stage-reading")) == ([], "")


@browser
def test_words_of_a_pair_without_special_tokens_keep_their_filters(open_page):
    m = a_map(PAIR, PAIR, heads=2, layer=5)
    page = open_page(head_view(Trace((m,)), words=True, hide="special", renormalise=True), color_scheme="dark")
    assert page.eval_on_selector_all("#left text", WHOLE) == ["unseen", "cats"]
    kept = m.weights[0][[1, 2]][:, [1, 2, 4]]
    kept = kept / kept.sum(-1, keepdim=True)
    page.locator("[role=checkbox]").nth(0).focus()
    page.keyboard.press("Enter")
    page.hover("#left g[tabindex] >> nth=0")
    wanted = kept.mean(0)
    assert beside(page) == pytest.approx([float(wanted[:2].sum()), float(wanted[2])], abs=0.005)
    page.select_option("#filter", label="Text A → text B")
    assert page.eval_on_selector_all("#left text", WHOLE) == ["unseen"]
    assert page.eval_on_selector_all("#right text", WHOLE) == ["cats"]
    share = float(m.weights[:, [1, 2, 4]][..., [0, 3, 5]].sum(-1).mean())
    assert f"special tokens, on which {share:.1%}" in page.inner_text("main")
    page.click("#switch-language")
    assert "特殊词元" in page.inner_text("main")


@browser
def test_chosen_layers_and_heads_keep_their_numbers(open_page):
    trace = self_trace(["a", "b"], layers=4, heads=5, first_layer=3, size=4)
    page = open_page(model_view(trace, layers=[4, 6], heads=[1, 3]))
    names = page.eval_on_selector_all("rect[role=button]", "rs => rs.map(r => r.getAttribute('aria-label'))")
    assert names == ["Layer 4, head 1", "Layer 4, head 3", "Layer 6, head 1", "Layer 6, head 3"]
    page.locator("rect[role=button]").nth(3).focus()
    page.keyboard.press("Enter")  # the first token of the enlarged head has the focus now
    assert beside(page) == pytest.approx(trace.encoder.layer(6).weights[3, 0].tolist(), abs=0.005)
    assert page.inner_text("#stage-reading").startswith("“a” looks at: ")
    page.keyboard.press("Escape")
    assert page.locator("#stage .detail").count() == 0
    page = open_page(neuron_view(trace, layers=[5], heads=[2, 4], head=4))
    assert page.locator("#layer option").all_inner_texts() == ["5"]
    assert page.locator("#att_head option").all_inner_texts() == ["2", "4"]
    assert page.eval_on_selector("#att_head", "menu => menu.selectedOptions[0].textContent") == "4"


@browser
def test_the_neuron_view_says_score_and_weight(open_page):
    trace = self_trace(["a", "b", "c"], layers=1, heads=4, size=8, key_value_heads=2, causal=True)
    m = trace.encoder.maps[0]
    page = open_page(neuron_view(trace, head=3, exact=True))
    page.locator("#collapsed #leftText g[tabindex]").nth(1).focus()
    page.keyboard.press("Enter")
    said = page.eval_on_selector_all("#stage .beside text", TEXTS)
    scores = m.key_vectors[1, :2] @ m.query_vectors[3, 1]
    assert [float(text.split(" → ")[0]) for text in said] == pytest.approx(scores.tolist(), abs=2e-3)
    assert [float(text.split(" → ")[1]) for text in said] == pytest.approx(m.weights[3, 1, :2].tolist(), abs=3e-4)
    page.hover("#expanded #keys .vector >> nth=2 >> .element >> nth=5")
    number = float(page.inner_text("#stage-reading").removeprefix("k[5] · c: "))
    assert number == pytest.approx(float(m.key_vectors[1, 2, 5]), abs=1e-3)
    page.hover("#expanded #queries .vector >> nth=0 >> .element >> nth=1")
    number = float(page.inner_text("#stage-reading").removeprefix("q[1] · a: "))
    assert number == pytest.approx(float(m.query_vectors[3, 0, 1]), abs=1e-3)


@browser
def test_a_triangle_is_read_as_the_matrix_it_was(open_page):
    """Rows of a generation that begin late, causal: only what a row may see is stored."""
    m = a_map(Labels.plain(["c", "d"]), Labels.plain(["a", "b", "c", "d"]), heads=2, causal=True, stack="decoder")
    page = open_page(head_view(Trace((m,)), heads=[1]))
    opacity = "lines => lines.map(line => +line.getAttribute('stroke-opacity'))"
    shown = page.eval_on_selector_all("#stage g.headAttention:nth-child(2) line", opacity)
    assert shown == pytest.approx(m.weights[1].flatten().tolist(), abs=0.004)
    assert 'widths":[3,4]' in head_view(Trace((m,))).html


@browser
def test_three_views_on_one_page(open_page):
    one, other = self_trace(["one", "two"], size=4), self_trace(["drei", "vier", "fünf"], size=4)
    page = open_page(compose("Three", [("1", head_view(one)), ("2", neuron_view(other)), ("3", model_view(other))]))
    frames = []
    for handle in page.query_selector_all("iframe"):
        handle.scroll_into_view_if_needed()
        frames.append(handle.content_frame())
        frames[-1].wait_for_selector("html[data-ready=yes]", state="attached")
    frames[0].hover("#left g[tabindex] >> nth=1")
    wanted = one.encoder.maps[0].weights[:, 1].mean(0).tolist()
    numbers = frames[0].eval_on_selector_all("#stage .beside text", TEXTS)
    assert [float(text) for text in numbers] == pytest.approx(wanted, abs=0.005)
    assert frames[1].eval_on_selector_all("#collapsed #leftText text", WHOLE) == ["drei", "vier", "fünf"]
    assert frames[1].inner_text("#stage-reading") == ""
    frames[2].click("rect[role=button] >> nth=0")
    assert frames[2].locator("text.token").count() == 6
    page.locator("#switch-theme").press("Enter")
    frames[0].wait_for_selector("html[data-theme=dark]", state="attached")


def test_numbers_of_any_exactness_are_within_what_the_page_says():
    from hf_attnviz.views.encoding import HALF_ERROR, weight_halves

    every = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    back = torch.from_numpy(weight_halves(every)).view(torch.float16).double()
    assert float((back - every).abs().max()) <= HALF_ERROR
    assert "within 0.00024 of the real number; they take 0.1 MB" in head_view(self_trace(["a", "b"]), exact=True).html


def test_what_is_too_large_is_left_out_and_the_page_says_so():
    trace = self_trace([f"t{n}" for n in range(40)], layers=6, heads=8)
    whole = len(head_view(trace).html)
    part = head_view(trace, layer=4, max_bytes=30_000)
    assert len(part.html) < whole - 30_000
    layers = re.search(r"\(Encoder: layers ([\d, ]+), heads 0–7\): everything would take about 0\.1 MB", part.html)[1]
    assert "4" in layers.split(", ")
    assert 1 < len(layers.split(", ")) < 6
    few = model_view(trace, max_bytes=5_000).html
    assert re.search(r"\(Encoder: layer 0, heads 0–[1-4]\)", few)
    with pytest.raises(ArgumentError, match=r"one head of 40 tokens takes .* more than max_bytes=100: .*long_view"):
        head_view(trace, max_bytes=100)


def test_a_page_of_many_heads_stays_within_its_budget():
    """144 heads of 512 tokens of sharp rows; only some layers are there at first."""
    labels = Labels.plain([f"t{n}" for n in range(512)])
    m = a_map(labels, labels, heads=1)
    m = dataclasses.replace(m, kept_weights=rows(12, 512, 512, 0))
    trace = Trace(tuple(dataclasses.replace(m, layer=layer) for layer in range(12)))
    view = model_view(trace, max_bytes=8_000_000)
    assert 4_000_000 < len(view.html) < 8_500_000
    assert "This page holds a part only" in view.html


def test_what_there_is_not_says_what_there_is():
    trace = self_trace(["a", "b"], layers=2, heads=3)
    with pytest.raises(UnknownNameError, match="expected layers of 0–1, got 7"):
        model_view(trace, layers=[0, 7])
    with pytest.raises(UnknownNameError, match="expected heads of 0–2, got 5"):
        model_view(trace, heads=5)
    with pytest.raises(UnknownNameError, match="got none"):
        head_view(trace, layers=[])


def test_a_tidied_trace_says_so_in_every_view():
    trace = av.tidied(Trace((a_map(PAIR, PAIR, size=4),)), hide="sink")
    for view in (head_view, model_view, neuron_view):
        assert "the first token, on which" in view(trace).html
        assert "sums to one unless" not in view(trace).how_to_read


def test_a_row_that_has_nothing_left_is_undefined_and_counted():
    m = a_map(PAIR, PAIR)
    m.weights[0, 1] = torch.tensor([1.0, 0, 0, 0, 0, 0])
    view = head_view(Trace((m,)), hide="special", renormalise=True)
    assert "drawn without lines: 1." in view.html
    assert math.isnan(av.tidied(Trace((m,)), hide="special", renormalise=True).maps[0].weights[0, 0, 0])
