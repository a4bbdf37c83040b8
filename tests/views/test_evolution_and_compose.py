import pytest
import torch

from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text, set_language
from hf_attnviz.result import Axis, Result
from hf_attnviz.views import compose, evolution_view, head_view, heatmap, picture
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


def test_a_trace_is_answered_with_what_to_do():
    with pytest.raises(ArgumentError, match=r"got Trace; .*av\.evolution_view\(av\.evolution\(trace\)\)"):
        evolution_view(self_trace(["a", "b"]))


def paths():
    axes = (Axis("layer", ("2", "3")), Axis("head", tuple("0123")), Axis("step", STEPS))
    keys = ("Peking", "is", "<b>", "big")
    return Result(torch.arange(24).reshape(2, 4, 3) % 4, axes, "argmax paths", {"keys": keys})


@browser
def test_paths_name_keys_and_are_never_averaged(open_page):
    page = open_page(evolution_view(paths()))
    assert page.eval_on_selector_all("#lines option", "os => os.map(o => o.textContent)") == [
        "heads of layer 2",
        "heads of layer 3",
    ]
    assert page.eval_on_selector_all("#chart .y .tick text", "ts => ts.map(t => t.textContent)") == [
        "Peking",
        "is",
        "<b>",
        "big",
    ]
    page.focus("#chart svg")
    assert page.inner_text("#readout") == "layer 2 · head 0 · step 0 → Peking · 0 Peking"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#readout") == "layer 2 · head 1 · step 1 → is · 0 Peking"
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#readout").endswith(" · 1 is")


@browser
def test_candidates_are_a_menu(open_page):
    values = torch.stack([evolution().values, evolution().values + 100])
    result = Result(values, (Axis("batch", ("0.0: a", "0.1: b")), *evolution().axes), "evolution over decoding steps")
    page = open_page(evolution_view(result))
    page.select_option("#batch", label="0.1: b")
    page.focus("#chart svg")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#readout").endswith(f" · {values[1, 0, 1, 0].mean().item():g}")


def test_a_figure_holds_one_candidate(tmp_path):
    result = Result(torch.zeros(2, 3), (Axis("batch", ("a", "b")), Axis("step", STEPS)), "m")
    with pytest.raises(ArgumentError, match=r"result\.select\(batch=…\)"):
        evolution_view(result).save(tmp_path / "x.svg")
    assert evolution_view(result.select(batch="b")).save(tmp_path / "x.svg").stat().st_size > 1000


@pytest.mark.parametrize("name", ["svg", "png"])
def test_paths_are_drawn_for_papers_too(tmp_path, name):
    path = evolution_view(paths()).save(tmp_path / f"x.{name}")
    assert path.stat().st_size > 1000
    if name == "svg":
        assert "Peking" in path.read_text(encoding="utf-8")


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
    page.wait_for_function("() => document.querySelector('iframe').getBoundingClientRect().height < 600")
    assert "这是什么。" in page.inner_text("main")


def test_only_sections_of_bertviz_carry_its_libraries():
    part = heatmap(Result(torch.eye(2), (Axis("query", ("a", "b")), Axis("key", ("a", "b"))), "m"))
    assert len(compose("Report", [("one", part), ("two", part)]).html) < 120_000


@browser
def test_a_reduced_input_is_told_as_what_it_is(open_page):
    axes = (Axis("statistic", ("probability", "left")), Axis("step", ("a long text of words", "text of words")))
    found = Result(torch.tensor([[0.9, 0.8], [5.0, 3.0]]), axes, "input reduction")
    page = open_page(picture(found))
    reading = page.inner_text(".how")
    assert "one word less" in reading
    assert "decoding" not in reading
    assert "layer" not in reading
    assert page.locator("#menus select").count() == 1
    assert page.inner_text("#legend").strip() == "probability"
    shown = page.eval_on_selector_all("#chart .x .tick text", "ts => ts.map(t => t.firstChild.textContent)")
    assert shown == ["a long text of words", "text of words"]


def test_paths_are_drawn_as_lines_by_any_door():
    axes = (Axis("step", ("0 → a", "1 → b")), Axis("layer", ("0",)), Axis("head", ("0", "1")))
    found = Result(torch.zeros(2, 1, 2), axes, "argmax paths", {"keys": ("x", "y")})
    assert picture(found).how_to_read == evolution_view(found).how_to_read


def test_only_results_have_pictures():
    with pytest.raises(ArgumentError, match="expected a Result.*got Trace.*head_view"):
        picture(self_trace(["a"]))
