"""The text in colours: each token tells the trace's own number, in a real browser."""

import dataclasses
import re

import pytest
import torch

import hf_attnviz as av
from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.errors import ArgumentError, UnknownNameError
from hf_attnviz.labels import Labels
from hf_attnviz.language import set_language
from hf_attnviz.result import Axis, Result
from hf_attnviz.trace import Trace
from hf_attnviz.views.flowing import spaces_before
from tests.views.builders import rows, self_trace, translation

browser = pytest.mark.browser
WORDS = ["the", "我", "爱", "old", "cat"]
HOSTILE = ["</script><script>ran()</script>", "<img src=x onerror=ran()>", "$x_1$", "a\u202eb", "x\x00y", "\x1b[31mz"]
NAN = float("nan")


@pytest.fixture(autouse=True)
def english():
    set_language("en")


def four(value: float) -> str:
    return f"{float(f'{value:.4g}'):g}"


def token(page, place: int, box: str = "text"):
    return page.locator(f"#{box} span[data-n='{place}']")


def scores(values, words=WORDS, **more) -> Result:
    return Result(torch.tensor(values), (Axis("key", tuple(words)),), "explanations of one number", **more)


def length_of(place) -> float:
    """Per cent that the bar takes of its token."""
    return float(style_of(place, "backgroundSize").split("%")[0])


def style_of(place, name: str) -> str:
    return place.evaluate("(span, name) => getComputedStyle(span)[name]", name)


@browser
def test_each_token_tells_what_the_query_gives_it(open_page):
    trace = self_trace(WORDS, layers=2, heads=3)
    page = open_page(av.token_view(trace, layer=0, head=2, query=3))
    row = trace.encoder.head(0, 2)[3].tolist()
    assert page.locator("#text span").all_inner_texts() == WORDS
    assert page.inner_text("#text") == "the我爱old cat"
    assert page.locator("span.query").all_inner_texts() == ["old"]
    for place, (text, weight) in enumerate(zip(WORDS, row, strict=True)):
        token(page, place).hover()
        assert page.inner_text("#readout") == f"query old (3) · token {text} ({place}) · {four(weight)} share"
        assert length_of(token(page, place)) == pytest.approx(100 * weight / max(row), abs=0.01)
    assert page.inner_text("#bar-high") == f"{four(max(row))} share"


@browser
def test_a_click_or_keys_choose_the_query(open_page):
    trace = self_trace(WORDS, layers=1, heads=2)
    page = open_page(av.token_view(trace, head=1))
    weights = trace.encoder.head(0, 1).double()
    token(page, 1).hover()
    assert (
        page.inner_text("#readout") == f"mean over queries · token 我 (1) · {four(float(weights[:, 1].mean()))} share"
    )
    token(page, 4).click()
    assert page.inner_text("#readout") == f"query cat (4) · token cat (4) · {four(float(weights[4, 4]))} share"
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#readout") == f"query cat (4) · token old (3) · {four(float(weights[4, 3]))} share"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert page.inner_text("#readout") == f"query 爱 (2) · token old (3) · {four(float(weights[2, 3]))} share"
    page.keyboard.press("Enter")
    assert page.locator("span.query").all_inner_texts() == ["old"]
    page.click("#average")
    assert page.locator("span.query").count() == 0


@browser
def test_menus_choose_stack_layer_and_head(open_page):
    trace = translation()
    page = open_page(av.token_view(trace))
    assert page.locator("#text span").all_inner_texts() == list(trace.cross.keys.texts)
    token(page, 1, "other").click()
    token(page, 2).hover()
    mean = trace.cross.layer(1).weights.double().mean(0)
    assert page.inner_text("#readout") == f"query The (1) · token bellt (2) · {four(float(mean[1, 2]))} share"
    page.select_option("#group", label="Encoder")
    page.select_option("#layer", "-1")
    page.select_option("#head", "3")
    token(page, 0).click()
    token(page, 2).hover()
    over = torch.stack([trace.encoder.head(layer, 3) for layer in range(3)]).double().mean(0)
    assert page.inner_text("#readout") == f"query Der (0) · token bellt (2) · {four(float(over[0, 2]))} share"
    assert not page.locator("#other").is_visible()
    page.click("#switch-language")
    assert page.locator("#head option").all_inner_texts()[0] == "各头平均"
    assert page.inner_text("#average") == "各查询平均"


@browser
def test_rows_that_were_kept_stand_in_the_text(open_page):
    """Of a generation's rows only some may be kept: the query's frame stands on the key that it stands on."""
    queries, keys = Labels.plain(WORDS[3:]), Labels.plain(WORDS)
    one = AttentionMap(rows(1, 2, 5, 0), queries, keys, stack="decoder", layer=0, positions=(3, 4))
    page = open_page(av.token_view(one, query=0))
    assert page.locator("span.query").all_inner_texts() == ["old"]
    token(page, 0).click()  # has no row
    assert page.locator("span.query").all_inner_texts() == ["old"]
    assert page.inner_text("#readout").endswith(f"{four(float(one.weights[0, 0, 0]))} share")


@browser
def test_scores_below_zero_stand_on_another_hue_with_the_bar_above(open_page):
    page = open_page(av.token_view(scores([0.5, -1.0, 0.0, NAN, 0.25])), color_scheme="light")
    assert [length_of(token(page, place)) for place in (0, 1, 2, 4)] == [50, 100, 0, 25]
    heights = [style_of(token(page, n), "backgroundPosition").split(",")[0].split()[-1] for n in (0, 1)]
    assert heights == ["100%", "0%"]
    images = [re.findall(r"rgb\((\d+), (\d+), (\d+)\)", style_of(token(page, n), "backgroundImage")) for n in (0, 1)]
    grounds = [[int(part) for part in colours[-1]] for colours in images]
    assert grounds[0][0] > grounds[0][2]
    assert grounds[1][2] > grounds[1][0]
    token(page, 3).hover()
    assert page.inner_text("#readout") == "token old (3) · undefined"
    assert token(page, 3).get_attribute("class") == "nothing"
    assert (page.inner_text("#bar-low"), page.inner_text("#bar-high")) == ("-1", "1")
    assert page.locator("#average").count() == 0


@browser
def test_a_result_between_tokens_has_queries_and_menus(open_page):
    values = rows(2, 5, 5, 4)
    axes = (Axis("layer", ("0", "7")), Axis("query", tuple(WORDS)), Axis("key", tuple(WORDS)))
    page = open_page(av.token_view(Result(values, axes, "attention rollout", unit="share"), layer=7, query=2))
    token(page, 4).hover()
    assert page.inner_text("#readout") == f"query 爱 (2) · token cat (4) · {four(float(values[1, 2, 4]))} share"
    page.select_option("#layer", label="0")
    page.focus("#text span")
    assert page.inner_text("#readout") == f"query 爱 (2) · token the (0) · {four(float(values[0, 2, 0]))} share"


@browser
def test_right_to_left(open_page):
    page = open_page(av.token_view(self_trace(["שלום", "עולם", "טוב"])))
    assert page.get_attribute("#text", "dir") == "rtl"
    left = [token(page, n).bounding_box()["x"] for n in range(3)]
    assert left == sorted(left, reverse=True)
    token(page, 0).focus()
    page.keyboard.press("ArrowLeft")
    assert "token עולם (1)" in page.inner_text("#readout")


@browser
def test_a_long_text_is_bytes_within_their_bound(open_page):
    trace = self_trace([f"t{n}" for n in range(400)], layers=1, heads=2, causal=True)
    view = av.token_view(trace, head=1, query=20)
    page = open_page(view)
    token(page, 20).hover()
    told = float(page.inner_text("#readout").split(" · ")[-1].removesuffix(" share"))
    assert abs(told - float(trace.encoder.head(0, 1)[20, 20])) <= 0.004
    assert "within 0.004" in page.inner_text("footer")
    assert len(view.html) < 1_000_000


@browser
def test_text_of_others_is_text(open_page):
    trace = dataclasses.replace(self_trace(HOSTILE), model=HOSTILE[0])
    view = av.token_view(trace, title="".join(HOSTILE), query=1)
    page = open_page(view)
    assert page.locator("img").count() == 0
    shown = [*HOSTILE[:3], "a⟨U+202E⟩b", "x⟨U+0000⟩y", "⟨U+001B⟩[31mz"]
    assert page.locator("#text span").all_inner_texts() == shown
    assert b"<script" not in view.figures["svg"]()
    assert view.figures["pdf"]().startswith(b"%PDF")


@pytest.mark.parametrize(
    "data", [scores([0.5, -1.0, 0.0, NAN, 0.25]), self_trace(["שלום", "עולם", "↵", "a"]), translation()]
)
def test_figures_draw_what_the_page_shows_first(data):
    view = av.token_view(data)
    assert view.figures["svg"]().startswith(b"<?xml")
    assert view.figures["png"]().startswith(b"\x89PNG")


def test_spaces_part_words_but_not_pieces_or_chinese():
    assert spaces_before(["un", "kind", "cats", "我", "爱"], [0, 0, 1, 2, 3]) == [False, False, True, False, False]
    assert spaces_before(["a", "↵", "b", "c"]) == [False, True, False, True]


def test_refusals_say_what_there_is():
    trace = self_trace(WORDS)
    with pytest.raises(UnknownNameError, match="no query 9; there are 0 to 4"):
        av.token_view(trace, query=9)
    with pytest.raises(UnknownNameError, match="no head 9; there are 0 to 2"):
        av.token_view(trace, head=9)
    with pytest.raises(UnknownNameError, match="no layer 9"):
        av.token_view(trace, layer=9)
    with pytest.raises(ArgumentError, match="expected a result along tokens"):
        av.token_view(Result(torch.eye(2), (Axis("layer", ("0", "1")), Axis("head", ("0", "1"))), "m"))
    with pytest.raises(ArgumentError, match="got list"):
        av.token_view([1.0])
    assert not av.pictures()["tokens"].suits(Trace((without(trace),)))


def without(trace: Trace) -> AttentionMap:
    from tests.views.builders import without_weights

    return without_weights(trace).maps[0]
