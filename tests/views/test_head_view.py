import dataclasses
from dataclasses import replace
from io import BytesIO

import pytest
import torch
from matplotlib.image import imread

from hf_attnviz.errors import MissingPackageError, UnknownNameError, UnknownStackError
from hf_attnviz.labels import Labels
from hf_attnviz.language import set_language
from hf_attnviz.trace import Trace
from hf_attnviz.views import head_view, model_view
from tests.views.builders import a_map, rows, self_trace, translation

browser = pytest.mark.browser
TEXTS = "elements => elements.map(element => element.textContent)"
HOSTILE = "</script><script>alert(1)</script>"


@pytest.fixture(autouse=True)
def english():
    set_language("en")


def opacities(page, left, right):
    return page.eval_on_selector_all(
        f"#stage line[left-token-index='{left}'][right-token-index='{right}']",
        "lines => lines.map(line => +line.getAttribute('stroke-opacity'))",
    )


def close_to(weights, heads):
    return pytest.approx((weights / heads).tolist(), abs=0.004 / heads)


@browser
def test_tokens_and_weights_are_the_traces(open_page):
    trace = self_trace(["the", "cat", "sat"], layers=2, heads=3)
    page = open_page(head_view(trace))
    assert page.eval_on_selector_all("#left text", TEXTS) == ["the", "cat", "sat"]
    assert opacities(page, 1, 2) == close_to(trace.encoder.maps[0].weights[:, 1, 2], 3)
    page.select_option("#layer", "1")
    assert opacities(page, 1, 2) == close_to(trace.encoder.maps[1].weights[:, 1, 2], 3)


@browser
def test_layers_are_called_by_their_block_number(open_page):
    trace = self_trace(["a", "b"], layers=3, first_layer=7)
    page = open_page(head_view(trace, layer=8, heads=[1]))
    assert page.locator("#layer option").all_inner_texts() == ["7", "8", "9"]
    assert page.input_value("#layer") == "8"
    weight = trace.encoder.layer(8).weights[1, 0, 1].item()
    assert opacities(page, 0, 1) == pytest.approx([0, weight, 0], abs=0.004)


@browser
def test_stacks_of_unequal_depth_and_heads_take_turns(open_page):
    trace = translation()
    page = open_page(head_view(trace))
    page.wait_for_selector("#stage[data-group='2']")  # cross-attention first: it is what a translator is asked for
    page.select_option("#stack", "0")
    page.wait_for_selector("#stage[data-group='0']")
    assert page.locator("#layer option").all_inner_texts() == ["0", "1", "2"]
    page.select_option("#layer", "2")
    page.select_option("#stack", label="Cross: decoder to encoder")
    page.wait_for_selector("#stage[data-group='2']")
    assert page.eval_on_selector_all("#left text", TEXTS) == ["<s>", "The", "dog"]
    assert page.eval_on_selector_all("#right text", TEXTS) == ["Der", "Hund", "bellt", "</s>"]
    page.select_option("#layer", "1")
    assert opacities(page, 2, 3) == close_to(trace.cross.maps[1].weights[:, 2, 3], 2)
    page.select_option("#stack", "0")
    page.wait_for_selector("#stage[data-group='0']")
    assert page.input_value("#layer") == "2"  # as it was left
    assert opacities(page, 3, 0) == close_to(trace.encoder.maps[2].weights[:, 3, 0], 4)


@browser
def test_rows_of_a_generation_name_the_token_they_put_out(open_page):
    read, source = Labels.plain(["<s>", "Peking"]), Labels.plain(["北京", "烤鸭"])
    m = replace(a_map(read, source, stack="decoder", kind="cross"), produced=("Peking", "duck"), steps=(0, 1))
    page = open_page(head_view(Trace((m,))))
    assert page.eval_on_selector_all("#left text", TEXTS) == ["→ Peking", "→ duck"]


@browser
def test_a_single_row_and_undefined_rows(open_page):
    m = a_map(Labels.plain(["now"]), Labels.plain(["a", "b", "now"]), heads=2, causal=True, stack="decoder")
    m.weights[1] = float("nan")
    page = open_page(head_view(Trace((m,))))
    assert opacities(page, 0, 1) == pytest.approx([m.weights[0, 0, 1].item() / 2, 0], abs=0.002)
    assert "drawn without lines: 1." in page.inner_text("footer")


@browser
def test_layers_of_different_shapes_become_menu_entries(open_page):
    wide, narrow = Labels.plain(["a", "b", "c"]), Labels.plain(["ab", "c"])
    maps = [a_map(wide, wide, layer=0), a_map(wide, wide, layer=1), a_map(narrow, narrow, layer=2, heads=5)]
    page = open_page(head_view(Trace(tuple(maps)), layer=2))
    assert page.locator("#stack option").all_inner_texts() == ["Encoder, layers 0–1", "Encoder, layer 2"]
    assert page.locator("#layer option").all_inner_texts() == ["2"]
    assert opacities(page, 0, 1) == close_to(maps[2].weights[:, 0, 1], 5)


@browser
def test_a_text_pair_can_be_filtered(open_page):
    labels = Labels.of(
        ["[CLS]", "who", "[SEP]", "me", "[SEP]"],
        [None] * 5,
        [None, 0, None, 1, None],
        ["special", "text", "special", "text", "special"],
    )
    m = a_map(labels, labels)
    page = open_page(head_view(Trace((m,))))
    page.select_option("#filter", label="Text A → text B")
    assert page.eval_on_selector_all("#left text", TEXTS) == ["[CLS]", "who", "[SEP]"]
    assert page.eval_on_selector_all("#right text", TEXTS) == ["me", "[SEP]"]
    assert opacities(page, 1, 0) == close_to(m.weights[:, 1, 3], 3)


@browser
def test_hostile_tokens_and_names_stay_text(open_page):
    tokens = [HOSTILE, "<img src=x onerror=alert(1)>", "'\"&amp;", "\u2028\x00\u202e", "PYTHON_PARAMS", "$&"]
    trace = self_trace(tokens, model=f"{HOSTILE}<b>x</b>", stack=HOSTILE)
    page = open_page(head_view(trace))
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    shown = page.eval_on_selector_all("#left text", TEXTS)
    assert shown[0].endswith(HOSTILE)
    expected = ["'\"&amp;", "⟨U+2028⟩⟨U+0000⟩⟨U+202E⟩", "PYTHON_PARAMS", "$&"]
    assert all(text.endswith(token) for text, token in zip(shown[2:], expected, strict=True))
    assert HOSTILE in page.inner_text("h1")
    assert page.locator("h1 b, img").count() == 0


@browser
def test_language_theme_and_keyboard(open_page):
    page = open_page(head_view(self_trace(["a", "b"], heads=2)), color_scheme="dark")
    assert page.get_attribute("html", "lang") == "en"
    assert page.get_attribute("html", "data-theme") == "dark"
    assert "How to read this" in page.inner_text("aside")
    page.click("#switch-language")
    assert page.get_attribute("html", "lang") == "zh"
    assert "如何阅读" in page.inner_text("aside")
    assert "How to read" not in page.inner_text("aside")
    assert page.title().startswith("各头的注意力")
    page.click("#switch-theme")
    assert page.get_attribute("html", "data-theme") == "light"
    square = page.locator("[role=checkbox]").nth(1)
    square.focus()
    page.keyboard.press(" ")
    assert square.get_attribute("aria-checked") == "false"
    assert opacities(page, 0, 0)[1] == 0
    page.locator("#left g[tabindex]").nth(1).focus()
    assert page.get_attribute("#attention", "visibility") == "hidden"
    assert page.locator("#attention line[visibility=visible]").count() == 4


@browser
def test_a_page_begins_in_the_chosen_language(open_page):
    set_language("zh")
    view = head_view(self_trace(["猫", "坐"]))
    assert view.how_to_read.startswith("左侧")
    page = open_page(view)
    assert page.get_attribute("html", "lang") == "zh"
    assert page.inner_text("label[for], .root label span") == "层"


@browser
def test_text_is_legible_in_the_dark(open_page):
    page = open_page(head_view(self_trace(["a", "b"])), color_scheme="dark")
    fill = page.eval_on_selector("#left text", "e => getComputedStyle(e).fill")
    assert min(int(part) for part in fill.removeprefix("rgb(").removesuffix(")").split(",")) > 200


@browser
def test_two_views_in_one_notebook_do_not_disturb_each_other_or_the_page(open_page):
    first, second = self_trace(["one", "two"]), self_trace(["drei", "vier", "fünf"], layers=1)
    cells = head_view(first)._repr_html_() + model_view(second)._repr_html_() + head_view(second)._repr_html_()
    page = open_page(
        f"<!doctype html><script>var require = 'the notebook’s own', d3 = 1, $ = 2</script>{cells}", wait=False
    )
    frames = []
    for handle in page.query_selector_all("iframe"):
        handle.scroll_into_view_if_needed()
        frame = handle.content_frame()
        frame.wait_for_selector("html[data-ready=yes]", state="attached")
        frames.append(frame)
    assert frames[0].eval_on_selector_all("#left text", TEXTS) == ["one", "two"]
    assert frames[2].eval_on_selector_all("#left text", TEXTS) == ["drei", "vier", "fünf"]
    assert frames[1].locator(".attn_background").count() == 3
    assert page.evaluate("[require, d3, $, typeof jQuery]") == ["the notebook’s own", 1, 2, "undefined"]


@pytest.mark.parametrize("view", [head_view, model_view])
def test_the_page_is_small_and_asks_for_nothing(view):
    trace = self_trace([f"token{i}" for i in range(128)], layers=6, heads=12, model="MiniLM")
    html = view(trace).html
    assert len(html.encode()) < 1_700_000
    assert "default-src 'none'" in html
    assert "https://cdnjs" not in html.split("function runBertviz")[0]


@browser
def test_many_lines_are_thinned_and_the_page_says_so(open_page):
    trace = self_trace([f"t{i}" for i in range(128)], layers=1, heads=12)
    page = open_page(head_view(trace))
    drawn = page.evaluate("document.querySelectorAll('#attention line').length")
    assert 20_000 < drawn <= 120_000
    strongest = int(trace.encoder.maps[0].weights[0, 5].argmax())
    assert opacities(page, 5, strongest)[0] == close_to(trace.encoder.maps[0].weights[0, 5, strongest], 12)


def test_what_cannot_be_shown_says_so():
    trace = self_trace(["a", "b"])
    with pytest.raises(UnknownStackError, match="encoder"):
        head_view(trace, stack="cross")
    with pytest.raises(UnknownNameError, match="no layer 9 to show; there are: 0, 1"):
        head_view(trace, layer=9)
    with pytest.raises(UnknownNameError, match="expected heads of 0–2, got 3"):
        head_view(trace, heads=[0, 3])


def test_without_bertviz_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bertviz", None)
    with pytest.raises(MissingPackageError, match=r"hf-attnviz\[bertviz\]"):
        head_view(self_trace(["a", "b"]))


def test_half_precision_is_fine():
    trace = self_trace(["a", "b"])
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        maps = tuple(dataclasses.replace(m, kept_weights=m.weights.to(dtype)) for m in trace.maps)
        assert head_view(Trace(maps)).height > 0


@browser
def test_many_faint_lines_do_not_paint_black_on_the_dark(open_page):
    """Each line's colour, rounded down to eight bits, would take light away: attention would be a shadow."""
    found = self_trace([f"t{n}" for n in range(40)], layers=1, heads=12).encoder.layer(0)
    trace = Trace((replace(found, kept_weights=rows(12, 40, 40, 0, sharp=1.0)),), model="tiny")
    page = open_page(head_view(trace), color_scheme="dark")
    box = page.locator("#stage svg").first.bounding_box()
    clip = {"x": box["x"] + 150, "y": box["y"] + 100, "width": 20, "height": 300}
    lines = imread(BytesIO(page.screenshot(clip=clip)))[..., :3].mean()
    beside = {**clip, "x": box["x"] + box["width"] + 5, "width": 4}
    assert lines > imread(BytesIO(page.screenshot(clip=beside)))[..., :3].mean()
