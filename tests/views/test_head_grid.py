from dataclasses import replace

import pytest
import torch

import hf_attnviz as av
from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.errors import ArgumentError, NotKeptError, UnknownNameError
from hf_attnviz.labels import Labels
from hf_attnviz.language import set_language
from hf_attnviz.result import Axis, Result
from hf_attnviz.trace import Trace
from tests.views.builders import rows, self_trace, translation, without_weights

browser = pytest.mark.browser
HOSTILE = (
    "</script><script>ran()</script>",
    "<img src=x onerror=ran()>",
    "$x_1$",
    "\u202eevil",
    "a\x00b",
    "\x1b[31mred",
)


@pytest.fixture(autouse=True)
def english():
    set_language("en")


def words(count):
    return [f"w{n}" for n in range(count)]


def hover(page, canvas, x, y):
    """Point into a canvas, at pixels from its corner."""
    page.mouse.move(0, 0)
    page.locator(canvas).scroll_into_view_if_needed()
    place = page.locator(canvas).bounding_box()
    page.mouse.move(place["x"] + x, place["y"] + y)


def over_cell(page, query, key):
    """Walk to a cell of the enlarged head by keyboard; what is said of it."""
    page.focus("#map")
    for name in ("Home", "PageUp", *["ArrowDown"] * query, *["ArrowRight"] * key):
        page.keyboard.press(name)
    return page.inner_text("#readout")


def number_in(said):
    return float(said.replace("≈ ", "").split("weight ")[1].split(" ")[0])


@browser
def test_enter_enlarges_and_cells_tell_query_key_and_number(open_page):
    trace = self_trace(["我", "<b>", "cat", "sat"], layers=3, heads=4, first_layer=5)
    page = open_page(av.head_grid(trace, layer=6))
    assert page.inner_text("#chosen").startswith("L6H0 · entropy (nats) ")
    page.focus("#grid")
    for key in ("ArrowDown", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    assert page.inner_text("#grid-readout").startswith("L7H2 · entropy (nats) ")
    assert page.inner_text("#chosen").startswith("L6H0")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.activeElement.id === 'map'")
    said = over_cell(page, 1, 2)
    assert said.startswith("query <b> (1) · key cat (2) · weight ")
    assert number_in(said) == pytest.approx(float(trace.encoder.head(7, 2)[1, 2]), abs=0.004)
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "grid"


@browser
def test_a_click_enlarges_and_hovering_tells_the_same(open_page):
    trace = self_trace(words(6), layers=2, heads=3)
    page = open_page(av.head_grid(trace))
    side = min(110, int((page.locator("#overview").bounding_box()["width"] - 30) / 3) - 4)
    page.click("#grid", position={"x": 28 + 2 * (side + 4) + 5, "y": 20 + side + 40})
    page.wait_for_function("() => document.getElementById('chosen').textContent.startsWith('L1H2')")
    place = page.evaluate("[map.clientWidth, map.clientHeight]".replace("map", "document.getElementById('map')"))
    hover(page, "#map", place[0] - 10, place[1] - 10)
    said = page.inner_text("#readout")
    assert said.startswith("query w5 (5) · key w5 (5) · ")
    assert number_in(said) == pytest.approx(float(trace.encoder.head(1, 2)[5, 5]), abs=0.004)
    assert page.locator("#map-cursor").is_visible()


@browser
def test_a_long_text_is_coarse_in_small_and_not_at_large(open_page, monkeypatch):
    """Weights without a byte of their own say so, and keep the bound that stands on the page."""
    monkeypatch.setattr("hf_attnviz.views.head_grid_data.fitted.__kwdefaults__", {"small": 0, "most": 10**9})
    labels = Labels.plain(words(200))
    weights = rows(2, 200, 200, 0, causal=True)
    trace = Trace((AttentionMap(weights, labels, labels, stack="decoder", layer=0, positions=tuple(range(200))),))
    view = av.head_grid(trace)
    page = open_page(view)
    assert page.inner_text("#coarse") == "Small maps are coarse: a cell stands for 4 × 4 weights."
    assert "within 0.004 of the real number" in view.how_to_read
    hover(page, "#grid", 30, 22)
    coarse = page.inner_text("#grid-readout")
    assert "query w0 (0) … w3 (3) · key w0 (0) … w3 (3) · coarse: share 1" in coarse
    kinds = set()
    for query, key in ((0, 0), (20, 3), (20, 7), (20, 11), (20, 20), (3, 21)):
        said = over_cell(page, query, key)
        kinds.add("≈" in said)
        assert said.startswith(f"query w{query} ({query}) · key w{key} ({key})")
        assert abs(number_in(said) - float(weights[0, query, key])) <= 0.004 + 1e-5
    assert kinds == {True, False}
    assert over_cell(page, 3, 21).endswith("weight 0")


@browser
def test_zoom_and_lens_show_the_cells_around(open_page):
    page = open_page(av.head_grid(self_trace(words(120), layers=1, heads=2)))
    over_cell(page, 60, 50)
    assert page.inner_text("#window") == ""
    for _ in range(4):
        page.click("#zoom-in")
    window = page.inner_text("#window")
    assert window.startswith("queries ") and window != "queries 0–119, keys 0–119"
    page.focus("#map")
    page.keyboard.press("PageDown")
    assert page.inner_text("#window").split(",")[0].endswith("–119")
    assert page.locator("#map-cursor").is_visible()
    page.keyboard.press("0")
    assert page.inner_text("#window") == ""
    inked = page.evaluate(
        """() => {
            const {width, height} = document.getElementById("lens");
            const {data} = document.getElementById("lens").getContext("2d").getImageData(0, 0, width, height);
            return new Set(Array.from({length: data.length / 4}, (_, i) => data.slice(4 * i, 4 * i + 4).join())).size;
        }"""
    )
    assert inked > 20


@browser
def test_the_map_of_the_heads_shows_any_statistic(open_page):
    trace = self_trace(words(9), layers=2, heads=3)
    statistics, roles = av.head_statistics(trace).axes[0].labels, av.head_roles(trace).axes[0].labels
    found = av.head_roles(trace).select(statistic="broad").values
    page = open_page(av.head_grid(trace, statistic="previous_token"))
    assert page.input_value("#statistic") == "4"
    options = page.locator("#statistic option").all_inner_texts()
    assert {"entropy (nats)", "sink mass"} <= set(options)
    assert len(set(options)) == len(options)
    page.select_option("#statistic", str(len(statistics) + roles.index("broad")))
    page.select_option("#small", "numbers")
    page.focus("#grid")
    page.keyboard.press("ArrowRight")
    said = page.inner_text("#grid-readout")
    assert said.startswith("L0H1 · ")
    assert f" {float(f'{float(found[0, 1]):.3g}'):g} · uniform" in said
    page.click("#switch-language")
    assert "查询" in page.inner_text("#readout") and page.inner_text("#grid-readout").startswith("L0H1 · ")
    assert page.locator("#statistic option").first.inner_text() == "熵（奈特）"


@browser
def test_numbers_of_ones_own_are_a_map_too(open_page):
    axes = (Axis("layer", ("0", "1")), Axis("head", ("0", "1", "2")))
    own = Result(torch.tensor([[-1.5, 0, 1], [2, 3, float("nan")]]), axes, "my numbers")
    page = open_page(av.head_grid(self_trace(words(4)), statistic=own))
    assert page.inner_text("#grid-readout") == "L0H0 · my numbers -1.5"
    page.focus("#grid")
    for key in ("ArrowDown", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    assert page.inner_text("#grid-readout") == "L1H2 · my numbers undefined"


@browser
def test_each_stack_has_its_own_heads(open_page):
    trace = translation()
    page = open_page(av.head_grid(trace))
    assert page.locator("#group option:checked").inner_text() == "Cross: decoder to encoder"
    said = over_cell(page, 2, 3)
    assert said.startswith("query dog (2) · key </s> (3) · weight ")
    assert number_in(said) == pytest.approx(float(trace.cross.head(0, 0)[2, 3]), abs=0.004)
    page.select_option("#group", label="Encoder")
    page.locator("#readout", has_text="query Der").wait_for()
    page.focus("#grid")
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    assert page.inner_text("#grid-readout").startswith("L2H0")


@browser
def test_exact_weights_are_told_as_they_are_and_what_they_take(open_page):
    trace = self_trace(words(30), layers=1, heads=2)
    view = av.head_grid(trace, exact=True)
    page = open_page(view)
    said = over_cell(page, 3, 4)
    assert number_in(said) == float(f"{float(trace.encoder.head(0, 0)[3, 4].half()):.3g}")
    assert "float16" in view.how_to_read and "they take " in view.how_to_read
    assert "16-bit float" in page.inner_text("#fine")


@browser
def test_undefined_rows_are_hatched_and_called_undefined(open_page):
    trace = self_trace(words(5), layers=1, heads=1)
    weights = trace.maps[0].weights.clone()
    weights[0, 2] = torch.nan
    for exact in (False, True):
        broken = replace(trace, maps=(replace(trace.maps[0], kept_weights=weights),))
        page = open_page(av.head_grid(broken, exact=exact))
        assert over_cell(page, 2, 1).endswith("undefined: the whole row is masked")
        assert number_in(over_cell(page, 3, 1)) == pytest.approx(float(weights[0, 3, 1]), abs=0.004)


@browser
def test_hostile_tokens_and_titles_stay_text(open_page, tmp_path):
    view = av.head_grid(self_trace(list(HOSTILE), layers=1, heads=2, model=HOSTILE[0]), title=" ".join(HOSTILE))
    page = open_page(view)
    assert page.locator("img, [onerror]").count() == 0
    assert HOSTILE[0] in page.inner_text("h1")
    assert f"query {HOSTILE[1]} (1)" in over_cell(page, 1, 0)
    assert "⟨U+202E⟩evil (3)" in over_cell(page, 3, 0)
    drawn = view.save(tmp_path / "x.svg").read_text(encoding="utf-8")
    assert not {"\u202e", "\x00", "\x1b"} & set(view.html + drawn)


@pytest.mark.parametrize("name", ["svg", "png", "pdf"])
def test_files_for_papers(tmp_path, name):
    trace = self_trace(list(HOSTILE), layers=2, heads=3, first_layer=4)
    weights = trace.maps[0].weights.clone()
    weights[0, 2] = torch.nan
    view = av.head_grid(replace(trace, maps=(replace(trace.maps[0], kept_weights=weights), trace.maps[1])))
    start = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[name]
    assert view.save(tmp_path / f"x.{name}").read_bytes().startswith(start)


def test_what_cannot_be_drawn_is_refused():
    trace = self_trace(words(4))
    with pytest.raises(UnknownNameError, match="no layer 7"):
        av.head_grid(trace, layer=7)
    with pytest.raises(UnknownNameError, match="no statistic 'beauty'.*entropy"):
        av.head_grid(trace, statistic="beauty")
    with pytest.raises(NotKeptError, match='keep="maps"'):
        av.head_grid(without_weights(trace))
    other = Result(torch.zeros(1, 3), (Axis("layer", ("9",)), Axis("head", ("0", "1", "2"))), "m")
    with pytest.raises(ArgumentError, match="other heads than those drawn"):
        av.head_grid(trace, statistic=other)
    many = replace(other, axes=(Axis("head", ("0",)), Axis("layer", ("9", "1", "2"))))
    with pytest.raises(ArgumentError, match="layer and head"):
        av.head_grid(trace, statistic=many)


def test_exact_weights_that_no_browser_opens_are_refused(monkeypatch):
    monkeypatch.setattr("hf_attnviz.views.head_grid_data.MOST_EXACT", 100)
    with pytest.raises(ArgumentError, match="leave out exact=True"):
        av.head_grid(self_trace(words(9)), exact=True)


def test_a_page_that_had_to_be_coarser_says_so(monkeypatch):
    monkeypatch.setattr("hf_attnviz.views.head_grid_data.fitted.__kwdefaults__", {"small": 0, "most": 3_000})
    view = av.head_grid(self_trace(words(60)))
    assert "coarser than the usual 0.004" in view.how_to_read


def test_twelve_by_twelve_at_a_thousand_tokens_fits():
    """Rows as flat as no trained model's, the worst case: still below 25 MB; fewer heads stand for all."""
    from hf_attnviz.views.groups import groups
    from hf_attnviz.views.head_grid_data import MOST, fitted

    labels = Labels.plain(words(1024))
    part = 12 * 12 // 2
    for sharp in (0.0, 1.0):
        maps = (AttentionMap(rows(2, 1024, 1024, 0, sharp=sharp), labels, labels, stack="encoder", layer=0),)
        bound, heads = fitted(groups(Trace(maps), None), small=0, most=MOST // part)
        assert bound == 0.004, sharp
        assert sum(map(len, heads[0])) * part <= MOST
