import pytest
import torch

from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text, set_language
from hf_attnviz.result import Axis, Result
from hf_attnviz.views import compose, evolution_view, head_view, heatmap
from tests.views.builders import self_trace

browser = pytest.mark.browser
STEPS = ("0 → Peking", "1 → is", "2 → </script>")


@pytest.fixture(autouse=True)
def english():
    set_language("en")


def evolution():
    values = torch.arange(2 * 3 * 2 * 4, dtype=torch.float32).reshape(2, 3, 2, 4)
    values[0, 0] = float("nan")
    axes = (
        Axis("statistic", ("lookback_ratio", "made up")),
        Axis("step", STEPS),
        Axis("layer", ("2", "3")),
        Axis("head", tuple("0123")),
    )
    return Result(values, axes, "evolution", source="Chuang et al. 2024")


@browser
def test_lines_over_steps(open_page):
    result = evolution()
    page = open_page(evolution_view(result))
    assert page.locator("#chart .series").count() == 2
    labels = page.eval_on_selector_all("#chart .x .tick text", "ts => ts.map(t => t.firstChild.textContent)")
    assert labels == [text if len(text) <= 14 else text[:13] + "…" for text in STEPS]
    page.focus("#chart svg")
    assert page.inner_text("#readout") == "layer 2 · step 0 → Peking · undefined"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    mean = result.values[0, 1, 1].mean().item()
    assert page.inner_text("#readout") == f"layer 3 · step 1 → is · {mean:g}"
    page.select_option("#lines", label="heads of layer 3")
    page.select_option("#statistic", label="made up")
    assert page.locator("#chart .series").count() == 4
    page.focus("#chart svg")
    assert page.inner_text("#readout") == f"layer 3 · head 0 · step 0 → Peking · {result.values[1, 0, 1, 0].item():g}"


@browser
def test_the_mouse_finds_the_nearest_line(open_page):
    page = open_page(evolution_view(evolution()))
    box = page.locator("#chart svg").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 60, box["y"] + 14)
    assert page.inner_text("#readout").startswith("layer 3 · step 2 → </script>")


@browser
def test_missing_axes_and_a_single_step(open_page):
    result = Result(torch.tensor([0.5]), (Axis("step", ("0 → x",)),), "drift")
    page = open_page(evolution_view(result))
    assert page.locator("#chart circle:not(.dot)").count() == 1


def test_other_results_are_refused():
    with pytest.raises(ArgumentError, match="statistic, step, layer, head"):
        evolution_view(Result(torch.eye(2), (Axis("query", ("a", "b")), Axis("key", ("a", "b"))), "m"))


@pytest.mark.parametrize("name", ["svg", "png", "pdf"])
@pytest.mark.parametrize("tongue", ["en", "zh"])
def test_files_for_papers(tmp_path, name, tongue):
    set_language(tongue)
    assert evolution_view(evolution()).save(tmp_path / f"x.{name}").stat().st_size > 1000


@browser
def test_a_composed_page_passes_language_and_theme_on(open_page):
    view = compose(
        Text("Report <i>", "报告"),
        [("Heads", head_view(self_trace(["a", "b"]))), (Text("Decoding", "解码"), evolution_view(evolution()))],
        Text("What this is.", "这是什么。"),
    )
    page = open_page(view, viewport={"width": 1200, "height": 2400})
    frames = [handle.content_frame() for handle in page.query_selector_all("iframe")]
    for frame in frames:
        frame.wait_for_selector("html[data-ready=yes].framed", state="attached")
    assert frames[0].eval_on_selector_all("#left text", "ts => ts.map(t => t.textContent)") == ["a", "b"]
    assert not frames[0].locator("#switch-theme").is_visible()
    assert page.inner_text("h1") == "Report <i>"
    page.click("#switch-language")
    page.click("#switch-theme")
    for frame in frames:
        frame.wait_for_selector("html[lang=zh][data-theme=dark]", state="attached")
    page.wait_for_function("document.querySelector('iframe').getBoundingClientRect().height < 600")
    assert "这是什么。" in page.inner_text("main")


def test_only_sections_of_bertviz_carry_its_libraries():
    part = heatmap(Result(torch.eye(2), (Axis("query", ("a", "b")), Axis("key", ("a", "b"))), "m"))
    assert len(compose("Report", [("one", part), ("two", part)]).html) < 120_000
