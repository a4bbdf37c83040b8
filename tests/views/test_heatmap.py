from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from hf_attnviz.errors import ArgumentError
from hf_attnviz.labels import Labels
from hf_attnviz.language import Text, set_language
from hf_attnviz.result import Axis, Result
from hf_attnviz.views import correlation_view, heatmap
from tests.views.builders import a_map, rows

browser = pytest.mark.browser
NAN = float("nan")


@pytest.fixture(autouse=True)
def english():
    set_language("en")


def square(values, labels, first="query", second="key", order=None, **more):
    axes = (Axis(first, tuple(labels), order), Axis(second, tuple(labels), order))
    return Result(values, axes, "a method", **more)


def statistics():
    values = torch.arange(12, dtype=torch.float64).reshape(2, 2, 3)
    axes = (Axis("statistic", ("entropy", "distance")), Axis("layer", ("0", "5")), Axis("head", ("0", "1", "2")))
    return Result(values, axes, "statistics", unit="nats (entropy), tokens (distance)")


def hover(page, row, column, shape):
    box = page.locator("#heat").bounding_box()
    page.mouse.move(
        box["x"] + (column + 0.5) * box["width"] / shape[1], box["y"] + (row + 0.5) * box["height"] / shape[0]
    )
    return page.inner_text("#readout")


def cell_colours(page, places, shape):
    """Red, green and blue in the middle of the cells ``[row, column]``, read in one go."""
    return page.evaluate(
        """([places, rows, columns]) => {
            const canvas = document.getElementById("heat");
            const {width, height} = canvas;
            const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
            return places.map(([row, column]) => {
                const y = Math.floor((row + 0.5) * height / rows), x = Math.floor((column + 0.5) * width / columns);
                return [...data.slice((y * width + x) * 4, (y * width + x) * 4 + 3)].join();
            });
        }""",
        [places, *shape],
    )


@browser
def test_hover_and_arrow_keys_tell_row_column_and_number(open_page):
    values = rows(1, 3, 3, 0)[0].to(torch.bfloat16)
    page = open_page(heatmap(square(values, ["我", "<b>", "cat"], unit="share")))
    said = hover(page, 2, 1, (3, 3))
    assert said == f"query cat (2) · key <b> (1) · {float(f'{values[2, 1].item():.4g}'):g} share"
    page.mouse.move(0, 0)
    page.focus("#heat")
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#readout").startswith("query <b> (1) · key 我 (0) · ")
    assert page.locator("#row-labels .current").inner_text() == "<b>"
    assert "Each row sums to one." in page.inner_text("aside")


@browser
def test_leading_axes_are_menus_and_statistics_say_their_units(open_page):
    page = open_page(heatmap(statistics()))
    assert hover(page, 1, 2, (2, 3)) == "layer 5 (1) · head 2 · 5"
    page.select_option("#axis-0", label="distance (tokens)")
    assert hover(page, 0, 0, (2, 3)) == "layer 0 · head 0 · 6"
    assert page.locator(".unit").count() == 0
    page.click("#switch-language")
    assert page.locator("#axis-0 option").all_inner_texts()[1] == "距离（词元）"
    assert hover(page, 0, 0, (2, 3)) == "层 0 · 头 0 · 6"


@browser
def test_a_long_unit_is_a_line(open_page):
    unit = "squared distance, 0 to 1"
    page = open_page(heatmap(replace(square(torch.eye(2), "ab"), unit=unit)))
    assert page.inner_text(".unit") == f"Unit: {unit}"


@browser
def test_undefined_cells_are_hatched_and_explained(open_page):
    page = open_page(heatmap(square(torch.tensor([[1, NAN], [0.5, 0.5]]), "ab")))
    assert hover(page, 0, 1, (2, 2)).endswith("undefined")
    assert page.locator("#bar-undefined").is_visible()
    assert "Hatched cells are undefined" in page.inner_text("aside")
    colours = set(cell_colours(page, [[-0.2, 0.1 + 0.003 * n] for n in range(100)], (1, 1)))
    assert len(colours) == 2


@browser
def test_the_order_is_kept_and_below_zero_is_another_hue(open_page):
    names = ["L0H0", "L0H1", "L1H0"]
    values = torch.tensor([[1.0, -0.9, 0.0], [-0.9, 1.0, 0.2], [0.0, 0.2, 1.0]])
    view = correlation_view(square(values, names, "head", "other_head", order=(2, 0, 1)))
    page = open_page(view, color_scheme="light")
    assert page.locator("#row-labels span").all_inner_texts() == ["L1H0", "L0H0", "L0H1"]
    assert hover(page, 1, 2, (3, 3)) == "head L0H0 (1) · other head L0H1 (2) · -0.9"
    page.mouse.move(0, 0)
    below, above = ([int(part) for part in c.split(",")] for c in cell_colours(page, [[1, 2], [1, 1]], (3, 3)))
    assert below[2] > below[0]
    assert above[0] > above[2]
    assert page.inner_text("#bar-low") == "-1"
    assert "clustering" in view.how_to_read


@browser
@pytest.mark.parametrize("shape", [(1, 40), (300, 2), (200, 200)])
def test_labels_are_thinned_not_overlaid(open_page, shape):
    queries, keys = (tuple(f"token number {i}" for i in range(n)) for n in shape)
    result = Result(torch.rand(shape), (Axis("query", queries), Axis("key", keys)), "m")
    page = open_page(heatmap(result))
    tops = page.eval_on_selector_all("#row-labels span", "s => s.map(e => e.getBoundingClientRect().top)")
    assert all(b - a >= 12 for a, b in pairwise(tops))
    lefts = page.eval_on_selector_all("#column-labels span", "s => s.map(e => parseFloat(e.style.left))")
    assert all(b - a >= 12 for a, b in pairwise(lefts))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@browser
def test_a_map_has_a_menu_of_heads(open_page):
    m = a_map(Labels.plain("ab"), Labels.plain("xyz"), heads=2, kind="cross")
    page = open_page(heatmap(m))
    page.select_option("#axis-0", "1")
    assert hover(page, 1, 2, (2, 3)).startswith(f"query b (1) · key z (2) · {m.weights[1, 1, 2]:.3f}"[:-1])


def test_notes_come_with_the_picture():
    view = heatmap(square(torch.eye(2), "ab", notes=(Text("Mind the sink.", "小心汇点。"),), source="Somebody 2020"))
    assert "Mind the sink." in view.how_to_read
    assert "小心汇点。" in view.html
    assert "Somebody 2020" in view.html


def test_too_few_axes_or_the_wrong_ones_are_refused():
    with pytest.raises(ArgumentError, match="two axes or more"):
        heatmap(Result(torch.zeros(2), (Axis("head", ("0", "1")),), "m"))
    with pytest.raises(ArgumentError, match="two axes or more"):
        heatmap(Result(torch.zeros(0, 2), (Axis("layer", ()), Axis("head", ("0", "1"))), "m"))
    with pytest.raises(ArgumentError, match="got Tensor"):
        heatmap(torch.eye(2))
    with pytest.raises(ArgumentError, match="head, other_head"):
        correlation_view(statistics())


@pytest.mark.parametrize("name", ["svg", "png", "pdf"])
def test_files_for_papers_survive_any_label(tmp_path, name):
    labels = [r"$\frac{$", "天安门", "\U0001f600\ue000", "عربي\x00"]
    view = heatmap(square(torch.rand(4, 4) - 0.5, labels), title="$x_{$ 标题")
    start = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[name]
    assert view.save(tmp_path / f"x.{name}").read_bytes().startswith(start)


def test_every_panel_is_in_the_file_and_too_many_are_refused(tmp_path):
    heatmap(statistics()).save(tmp_path / "x.svg")
    many = Result(
        torch.rand(65, 2, 2),
        (Axis("layer", tuple(map(str, range(65)))), Axis("query", ("a", "b")), Axis("key", ("a", "b"))),
        "m",
    )
    with pytest.raises(ArgumentError, match=r"result\.select\(layer=…\)"):
        heatmap(many).save(tmp_path / "y.svg")


def test_all_undefined_is_drawn_too(tmp_path):
    heatmap(square(torch.full((2, 2), NAN), "ab")).save(tmp_path / "x.png")


def explanations(unit="each method's own"):
    values = torch.tensor([[0.1, 0.4, 0.0], [-20.0, 5.0, 10.0]])
    axes = (Axis("statistic", ("attention", "integrated_gradients")), Axis("key", ("one", "two", "three")))
    return Result(values, axes, "explanations of one number", unit=unit)


@browser
def test_rows_with_units_of_their_own_have_colours_of_their_own(open_page):
    page = open_page(heatmap(explanations()))
    small, half, negative, zero = cell_colours(page, [(0, 1), (1, 2), (1, 0), (0, 2)], (2, 3))
    assert small == "103,0,31"  # the row's largest: the end of the ramp, though 50 times smaller than the other row's
    assert negative == "5,48,97"
    assert half not in (small, negative, zero)
    assert "0.4" in hover(page, 0, 1, (2, 3))  # the number itself, not its share of the row
    assert "own colours" in page.inner_text(".how")
    assert "of the row's largest" in page.inner_text("#bar-high")
    shared = open_page(heatmap(explanations(unit="share")))
    assert cell_colours(shared, [(0, 1)], (2, 3))[0] != "103,0,31"


def test_rows_with_units_of_their_own_are_drawn_as_shares_on_paper_too():
    assert "svg" in heatmap(explanations()).figures
    drawn = heatmap(explanations()).figures["svg"]().decode()
    assert "largest" in drawn
    assert "raw attention" in drawn  # rows bear their names, not those of the code
    set_language("zh")
    assert "原始注意力" in heatmap(explanations()).figures["svg"]().decode()


@browser
@pytest.mark.parametrize("width", [400, 1100])
def test_no_label_is_cut_off_and_no_column_hidden(open_page, width):
    labels = tuple(f"hat → bread ({n})" for n in range(10))
    page = open_page(heatmap(Result(rows(1, 4, 10, 0)[0], (Axis("step", tuple("abcd")), Axis("batch", labels)), "m")))
    page.set_viewport_size({"width": width, "height": 700})
    page.wait_for_timeout(200)
    plot = page.locator("#plot").bounding_box()
    right = plot["x"] + plot["width"]
    for box in ("#heat", "#column-labels span:last-child"):
        found = page.locator(box).bounding_box()
        assert found["x"] + found["width"] <= right + 0.5, box
