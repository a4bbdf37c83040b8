"""Matrices in a grid, as d2l's function of the same name is called: one scale, the number of every cell, files."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

import hf_attnviz as av
from hf_attnviz.errors import ArgumentError, UnknownNameError
from hf_attnviz.views import figures
from hf_attnviz.views.matrices import show_heatmaps
from tests.views.builders import rows

browser = pytest.mark.browser
NAN = float("nan")


@pytest.fixture(autouse=True)
def english():
    av.set_language("en")


def grid(down=1, across=2, queries=4, keys=5):
    return rows(down * across, queries, keys, 0).reshape(down, across, queries, keys)


def point(page, panel, row, column):
    """The pointer over a cell; its place is read off the axes of the drawn figure."""
    left, top, width, height = page.evaluate(f"attnviz.data.boxes[{panel}]")
    down, across = page.evaluate("attnviz.data.shape.slice(2)")
    box = page.locator("#figure").bounding_box()
    x, y = left + (column + 0.5) / across * width, top + (row + 0.5) / down * height
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    return page.inner_text("#readout")


@browser
def test_pointer_and_keys_tell_the_number_of_a_cell(open_page):
    values = grid(2, 2)
    view = show_heatmaps(values, "Keys", "Queries", titles=["one", "<b>"], keys=list("我爱吃鸭b"), figsize=(5, 5))
    page = open_page(view)
    assert point(page, 3, 2, 1) == f"<b> · Queries 2 · Keys 爱 (1) · {float(f'{values[1, 1, 2, 1]:.4g}'):g}"
    page.mouse.move(0, 0)
    page.keyboard.press("Tab")
    page.focus("#figure")
    for key in ("PageDown", "ArrowDown", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    number = float(f"{values[0, 1, 1, 2]:.4g}")
    assert page.inner_text("#readout") == f"<b> · Queries 1 · Keys 吃 (2) · {number:g}"
    page.click("#switch-language")
    assert "4 个 4 × 5 格" in page.get_attribute("#figure", "aria-label")


@browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_stand_where_the_pointer_says_and_masked_cells_are_hatched(open_page, scheme):
    """The pixels of the page, cell by cell: the darkest is the largest number, the hatching has two colours."""
    values = torch.zeros(1, 2, 3, 3)
    values[0, 1, 2, 0] = 1
    values[0, 0, 0, 2] = NAN
    page = open_page(show_heatmaps(values, "k", "q", figsize=(6, 3)), color_scheme=scheme)
    assert point(page, 0, 0, 2).endswith("undefined")
    page.mouse.move(0, 0)
    picture = Image.open(io.BytesIO(page.locator("#figure").screenshot())).convert("RGB")

    def patch(panel, row, column):
        left, top, width, height = page.evaluate(f"attnviz.data.boxes[{panel}]")
        box = [left + (column + 0.25) / 3 * width, top + (row + 0.25) / 3 * height]
        box += [left + (column + 0.75) / 3 * width, top + (row + 0.75) / 3 * height]
        return picture.crop([round(share * size) for share, size in zip(box, picture.size * 2, strict=True)])

    most, least = (103, 0, 13), (255, 245, 240)  # the ends of Reds
    assert np.abs(np.array(patch(1, 2, 0), int) - most).max() < 4
    assert np.abs(np.array(patch(0, 2, 0), int) - least).max() < 4
    assert len(np.unique(np.array(patch(0, 0, 2)).reshape(-1, 3), axis=0)) > 2
    assert len(np.unique(np.array(patch(0, 0, 1)).reshape(-1, 3), axis=0)) == 1


def test_one_scale_and_one_bar_for_all():
    values = grid(2, 2)
    values[0, 0] *= 0.1
    figure = drawn(show_heatmaps(values, "Keys", "Queries", figsize=(5, 5)))
    images = [panel.images[0] for panel in figure.axes[:4]]
    assert {image.get_clim() for image in images} == {(0.0, float(values.max()))}
    assert len(figure.axes) == 5
    assert [axes.get_xlabel() for axes in figure.axes[:4]] == ["", "", "Keys", "Keys"]
    assert [axes.get_ylabel() for axes in figure.axes[:4]] == ["Queries", "", "Queries", ""]
    assert tuple(figure.get_size_inches()) == (5, 5)


def drawn(view):
    return figures.laid_out(view.figures["svg"].args[0])


@pytest.mark.parametrize(
    "made",
    [lambda t: t, lambda t: t.bfloat16(), lambda t: t.numpy(), lambda t: t.tolist(), lambda t: t.requires_grad_()],
)
def test_torch_and_numpy_are_drawn(made):
    view = show_heatmaps(made(torch.eye(4)[None, None]), "Keys", "Queries")
    assert drawn(view).axes[0].images[0].get_array().sum() == 4


def test_masks_of_numpy_and_infinities_are_hatched():
    values = np.ma.masked_less(np.eye(3)[None, None], 0.5)
    for given in (values, np.where(np.eye(3), 1, -np.inf)[None, None], torch.full((1, 1, 2, 2), NAN)):
        view = show_heatmaps(given, "Keys", "Queries")
        assert "Hatched" in view.how_to_read
        assert drawn(view).axes[0].patches
    assert "Hatched" not in show_heatmaps(np.eye(3)[None, None], "Keys", "Queries").how_to_read


def test_a_colour_below_zero_is_as_the_chosen_colours_have_it():
    view = show_heatmaps(torch.tensor([[[[-1.0, 2.0]]]]), "k", "q", cmap="RdBu_r")
    assert drawn(view).axes[0].images[0].get_clim() == (-1, 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"matrices": torch.eye(3)}, r"matrices\[None, None\]"),
        ({"matrices": torch.ones(2, 3, 3)}, r"matrices\[None\]"),
        ({"matrices": torch.ones(1, 1, 0, 3)}, "none empty"),
        ({"matrices": "text"}, "expected numbers"),
        ({"matrices": torch.ones(20, 20, 2, 2)}, "at most 256"),
        ({"titles": ["one"]}, "2 titles"),
        ({"titles": "ab"}, "2 titles"),
        ({"titles": [["a", "b"], ["c", "d"]]}, "2 titles"),
        ({"queries": ["a"]}, "4 names for queries"),
        ({"keys": "abcde"}, "5 names for keys"),
        ({"figsize": (0, 1)}, "figsize"),
        ({"figsize": 3}, "figsize"),
        ({"figsize": (0.5, 0.5)}, "no room for 2 panels"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, said):
    with pytest.raises(ArgumentError, match=said):
        show_heatmaps(**{"matrices": grid(), "xlabel": "Keys", "ylabel": "Queries"} | arguments)


def test_an_unknown_colour_map_is_told_with_known_ones():
    with pytest.raises(UnknownNameError, match="Reds"):
        show_heatmaps(grid(), "Keys", "Queries", cmap="Rads")


def test_too_many_numbers_for_a_page_are_told(monkeypatch):
    monkeypatch.setattr("hf_attnviz.views.matrices._MOST_NUMBERS", 39)
    view = show_heatmaps(grid(), "Keys", "Queries")
    assert "too many for a page" in view.how_to_read
    assert '"values":null' in view.html


def test_many_cells_are_all_in_the_file(tmp_path):
    """A lone cell among 1,024 × 1,024 is found in the image inside an svg: squares cut to dots would lose it."""
    values = torch.zeros(1, 1, 1024, 1024)
    values[0, 0, 501, 333] = 1
    svg = show_heatmaps(values, "Keys", "Queries", figsize=(3, 3)).figures["svg"]().decode()
    images = [Image.open(io.BytesIO(base64.b64decode(one))) for one in re.findall(r"base64,\s*([^\"]+)", svg)]
    whole = max(images, key=lambda image: image.width)
    assert whole.size == (1024, 1024)
    reds = np.array(whole.convert("RGB"))[..., 1]
    assert (reds < 10).sum() == 1
    assert reds[501, 333] < 10 or reds[1023 - 501, 333] < 10
