"""The page that plays a generation, asked through the DOM of a real Chromium."""

import dataclasses

import pytest

import hf_attnviz as av
from hf_attnviz.analysis import evolution
from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.errors import ArgumentError, NotKeptError, UnknownNameError
from hf_attnviz.labels import Labels
from hf_attnviz.language import Text, set_language
from hf_attnviz.views.generation import Generation, generation_view
from tests.models import ids, tiny
from tests.views.builders import rows, self_trace, without_weights

browser = pytest.mark.browser
HOSTILE = [
    "</script><script>ran()</script>",
    "<img src=x onerror=ran()>",
    "$x_1$",
    "a\u202eb",
    "\x00",
    "\x1b[31m",
    "鸭",
]


@pytest.fixture(autouse=True)
def english():
    set_language("en")


def generated(texts: list[str], prompt: int, *, layers: int = 2, heads: int = 3, model: str = "made") -> av.Trace:
    """A generation whose last token is put out and never read."""
    labels, count = Labels.plain(texts[:-1]), len(texts) - 1
    about = {
        "positions": tuple(range(count)),
        "steps": (0,) * prompt + tuple(range(1, count - prompt + 1)),
        "produced": (None,) * (prompt - 1) + tuple(texts[prompt:]),
    }
    maps = [
        AttentionMap(rows(heads, count, count, layer, causal=True), labels, labels, "decoder", layer, **about)
        for layer in range(layers)
    ]
    return av.Trace(tuple(maps), model=model)


TEXTS = ["I", "love", "Peking", "duck", "and", "tea", "."]


def told(page, box="#readout") -> float:
    return float(page.inner_text(box).rsplit(" · ", 1)[-1])


@browser
def test_the_map_the_text_and_the_lines_show_the_numbers_of_the_chosen_head(open_page):
    trace = generated(TEXTS, 4)
    page = open_page(av.evolution_view(trace))
    page.select_option("#layer", label="1")
    page.select_option("#head", label="head 2")
    weights = trace.decoder.head(1, 2)
    page.focus("#heat")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#readout").startswith("step 1 reads “and”, puts out “tea” · key love (1) · ")
    assert told(page) == pytest.approx(weights[4, 1].item(), abs=0.004)
    page.keyboard.press("Enter")
    assert page.inner_text("#step-name") == "step 1 of 0–2: reads “and”, puts out “tea”"
    page.focus(".tokens")
    page.keyboard.press("ArrowRight")
    assert told(page, "#token-readout") == pytest.approx(weights[4, 1].item(), abs=0.004)
    spans = page.locator(".tokens span")
    assert spans.all_inner_texts() == TEXTS
    assert page.locator(".tokens .put-out").all_inner_texts() == ["tea"]
    assert page.locator(".tokens .later").all_inner_texts() == ["."]
    statistics = evolution(trace)
    wanted = [statistics.values[n, 1, 1, 2].item() for n in range(len(statistics.axes[0].labels))]
    assert [float(one) for one in page.locator("#lines b").all_inner_texts()] == pytest.approx(wanted, rel=6e-3)


@browser
def test_a_mean_is_that_of_its_heads_and_darkness_goes_with_the_weight(open_page):
    trace = generated(TEXTS, 4)
    page = open_page(av.evolution_view(trace), color_scheme="light")
    mean = trace.decoder.maps[0].weights.mean(0)
    page.focus(".tokens")
    for key in range(4):
        assert told(page, "#token-readout") == pytest.approx(mean[3, key].item(), abs=0.004)
        page.keyboard.press("ArrowRight")
    light = page.eval_on_selector_all(
        ".tokens span", "s => s.map(e => e.style.background.match(/\\d+/g)?.reduce((a, b) => a + +b, 0))"
    )
    assert light[4:] == [None] * 3  # not there yet
    assert sorted(range(4), key=lambda n: light[n]) == sorted(range(4), key=lambda n: -mean[3, n].item())


@browser
def test_play_goes_on_to_the_end_and_stops(open_page):
    page = open_page(av.evolution_view(generated(TEXTS, 4)))
    assert page.inner_text("#step-name").startswith("step 0 ")
    page.focus("#step")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#step-name").startswith("step 1 ")
    page.focus("#play")
    page.keyboard.press("Space")
    assert "Pause" in page.inner_text("#play")
    page.locator("#step-name", has_text="step 2 ").wait_for()
    assert "Play" in page.inner_text("#play")
    page.click("#play")  # from the beginning
    assert page.inner_text("#step-name").startswith("step 0 ")


@browser
def test_without_motion_the_button_goes_one_step(open_page):
    page = open_page(av.evolution_view(generated(TEXTS, 4)), reduced_motion="reduce")
    assert page.inner_text("#play") == "Next step"
    for step in (1, 2, 0):
        page.click("#play")
        assert page.inner_text("#step-name").startswith(f"step {step} ")
    page.wait_for_timeout(900)
    assert page.inner_text("#step-name").startswith("step 0 ")


@browser
def test_cross_attention_looks_at_the_source_and_candidates_are_a_menu(open_page):
    model = tiny("bart")
    with av.capture(model) as recording:
        model.generate(ids(1, 6), max_new_tokens=3, min_new_tokens=3, num_beams=2, num_return_sequences=2)
    page = open_page(av.evolution_view(recording.traces))
    names = page.locator("#which option").all_inner_texts()
    assert names == [f"candidate 0.{n} · {name}" for n in (0, 1) for name in ("Decoder", "Cross: decoder to encoder")]
    page.select_option("#which", "3")
    page.locator(".text").nth(1).wait_for()  # it is unpacked first
    cross = recording.traces[1].cross
    assert page.locator(".tokens").first.locator("span").all_inner_texts() == list(cross.keys.texts)
    assert page.locator(".tokens").last.locator("span").all_inner_texts() == list(cross.maps[0].produced)
    page.select_option("#head", label="head 1")
    page.focus("#heat")
    page.keyboard.press("ArrowRight")
    assert told(page) == pytest.approx(cross.head(0, 1)[0, 1].item(), abs=0.004)
    page.click("#switch-language")
    assert page.locator("#which option").all_inner_texts()[3] == "候选 0.1 · 交叉：解码器到编码器"
    assert "第 0 步" in page.inner_text("#step-name") and "读入" in page.inner_text("#step-name")


@browser
def test_names_are_text_in_both_languages_and_themes(open_page):
    trace = generated(HOSTILE, 3, model=HOSTILE[1])
    page = open_page(av.evolution_view(trace))
    shown = [av.visible(text) for text in HOSTILE]
    assert page.locator(".tokens span").all_inner_texts() == shown
    page.click("#switch-language")
    page.click("#switch-theme")
    assert page.locator("img, [onerror]").count() == 0
    assert page.title().endswith(HOSTILE[1])
    page.focus("#heat")
    assert f"键 {shown[0]} (0)" in page.inner_text("#readout")


@browser
def test_undefined_rows_are_said_to_be(open_page):
    trace = generated(TEXTS, 4)
    weights = trace.decoder.maps[0].weights.clone()
    weights[1, 4] = float("nan")
    trace = av.Trace((dataclasses.replace(trace.maps[0], kept_weights=weights), trace.maps[1]))
    page = open_page(av.evolution_view(trace, head=1))
    page.focus("#heat")
    assert told(page) == pytest.approx(weights[1, 3, 0].item(), abs=0.004)
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#readout").endswith(" · undefined")
    assert page.locator("#bar-undefined").is_visible()


@browser
def test_what_is_too_much_falls_back_and_says_so(open_page):
    trace = generated(TEXTS, 4)
    one = Generation(Text("Decoder", "解码器"), trace.decoder, evolution(trace))
    every = generation_view([one])
    assert "Too much" not in every.how_to_read
    some = generation_view([one], most=6 * 3 * 5, layer=1)
    assert "mean over its heads, and heads of layer 1 alone" in some.how_to_read
    page = open_page(some)
    assert page.inner_text("#left-out").startswith("Too much for one page (3 steps × 6 keys)")
    assert page.locator("#head option").count() == 4
    page.select_option("#layer", label="0")
    assert page.locator("#head option").all_inner_texts() == ["mean over heads"]
    coarse = generation_view([one], most=3 * 2 * 3)
    assert "2 neighbouring keys of Decoder share a cell" in coarse.how_to_read
    page = open_page(coarse)
    page.focus("#heat")
    page.keyboard.press("ArrowRight")
    pair = trace.decoder.maps[0].weights.mean(0)[3, 2:4].sum().item()
    assert "key Peking … duck (2–3)" in page.inner_text("#readout") and told(page) == pytest.approx(pair, abs=0.005)


@browser
def test_exact_weights_are_floats_of_sixteen_bits(open_page):
    trace = generated(TEXTS, 4)
    view = av.evolution_view(trace, layer=1, head=0, exact=True)
    assert "float16" in view.html
    page = open_page(view)
    page.focus("#heat")
    assert told(page) == pytest.approx(trace.decoder.head(1, 0)[3, 0].item(), rel=6e-3)


@pytest.mark.parametrize("name", ["svg", "png", "pdf"])
@pytest.mark.parametrize("tongue", ["en", "zh"])
def test_files_for_papers(tmp_path, name, tongue):
    set_language(tongue)
    view = av.evolution_view(generated(HOSTILE, 3), title=r"$\frac{ </svg><script>")
    path = view.save(tmp_path / f"x.{name}")
    assert path.stat().st_size > 1000
    if name == "svg":
        assert "<script" not in path.read_text(encoding="utf-8")


def test_a_trace_without_weights_has_its_lines():
    view = av.evolution_view(without_weights(generated(TEXTS, 4)))
    assert "the weights themselves were not kept" in view.how_to_read and "A line is a layer" in view.how_to_read


def test_errors():
    with pytest.raises(NotKeptError, match="plain forward"):
        av.evolution_view(self_trace(["a", "b"]))
    with pytest.raises(ArgumentError, match="expected a trace"):
        av.evolution_view("text")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="heads? from 0 to 2, got 3"):
        av.evolution_view(generated(TEXTS, 4), head=3)
    with pytest.raises(UnknownNameError, match="no layer 7"):
        av.evolution_view(generated(TEXTS, 4), layer=7)
    with pytest.raises(ArgumentError, match=r"result\.select"):
        av.evolution_view(evolution(generated(TEXTS, 4)), layer=1)
