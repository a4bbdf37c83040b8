"""Attention over the picture, on models that look at one known patch of a picture that is not square.

Where the bright patch is, is reckoned here from the picture that was made; what is brightest is read off the canvas.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import hf_attnviz as av
from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.capturing.positions import numbered, patches
from hf_attnviz.errors import ArgumentError, UnknownNameError
from hf_attnviz.labels import Labels
from hf_attnviz.language import set_language
from hf_attnviz.trace import Trace
from hf_attnviz.views import overlay_page, sheets
from tests.capturing import pipes
from tests.capturing.pointing import look_at_what_changes, redrawn
from tests.capturing.test_mixed_keys import CASES, PATCH, WORDS, made, told
from tests.capturing.test_positions import TINY, detr, image, picture
from tests.views.builders import rows

browser = pytest.mark.browser
HOSTILE = "</script><img src=x onerror=ran()>$x_1$\x00\x1b[31m\u202eevil"


@pytest.fixture(autouse=True)
def english():
    set_language("en")


def pointing_vit(size: tuple[int, int], spot: tuple[int, int]) -> Trace:
    """A ViT over a picture of this size, drawn for another (its positions are interpolated), that looks at the spot."""
    model = redrawn(transformers.ViTModel(transformers.ViTConfig(image_size=(24, 24), patch_size=8, **TINY)))

    def run(lit: bool) -> Any:
        return model(picture(size, spot if lit else None), interpolate_pos_encoding=True)

    look_at_what_changes(model.layers[0].attention, 4, run)
    with torch.no_grad(), av.capture(model) as recording:
        run(True)
    return recording.trace


DARKEST = """([rows, columns, part]) => {
    const canvas = document.querySelectorAll("#parts canvas")[part];
    const {width, height} = canvas;
    const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
    let best = [Infinity, 0, 0];
    for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++) {
        // off the middle, where the ring is, and off the lines between cells
        const y = Math.floor((row + 0.16) * height / rows), x = Math.floor((column + 0.16) * width / columns);
        const i = (y * width + x) * 4;
        const light = data[i] + data[i + 1] + data[i + 2];
        if (light < best[0]) best = [light, row, column];
    }
    return best.slice(1);
}"""


def patch_at(page: Any, row: int, column: int, grid: tuple[int, int], part: int = 0) -> str:
    box = page.locator("#parts canvas").nth(part).bounding_box()
    page.mouse.move(
        box["x"] + (column + 0.5) * box["width"] / grid[1], box["y"] + (row + 0.5) * box["height"] / grid[0]
    )
    return str(page.inner_text("#readout"))


@browser
@pytest.mark.parametrize("beneath", [False, True])
def test_the_strongest_patch_on_the_canvas_is_the_bright_one(open_page, beneath):
    """Three rows of six: the spot is in row 2, column 4, which a swap of the two would put elsewhere."""
    spot, grid = (17, 34), (3, 6)
    trace = pointing_vit((24, 48), spot)
    dark = Image.new("RGB", (480, 240), (120, 120, 120))
    page = open_page(av.overlay(trace, dark if beneath else None, layer=0, query="[CLS]"), color_scheme="light")
    assert page.evaluate(DARKEST, [*grid, 0]) == [2, 4] == [spot[0] // 8, spot[1] // 8]
    size = page.locator("#parts canvas").bounding_box()
    assert size["width"] == pytest.approx(2 * size["height"], abs=3)
    weight = float(trace.vision.layer(0).weights[:, 0, 1 + 2 * 6 + 4].mean())
    assert weight > 0.9
    said = patch_at(page, 2, 4, grid)
    assert said.startswith("[CLS] · row 2, column 4 · ")
    assert float(said.rpartition(" ")[2]) == pytest.approx(weight, abs=0.004)
    assert page.inner_text("#share").startswith("Strongest: row 2, column 4 · ")


@browser
def test_a_patch_is_chosen_by_mouse_and_by_keys_and_menus_change_the_numbers(open_page):
    trace = pointing_vit((24, 48), (17, 34))
    page = open_page(av.overlay(trace, np.full((24, 48, 3), 200, np.uint8)))
    assert page.locator("[aria-selected=true]").inner_text().startswith("mean over all rows")
    page.select_option("#outer", label="1")
    page.select_option("#inner", label="2")
    patch_at(page, 1, 5, (3, 6))
    page.mouse.down()
    page.mouse.up()
    row = 1 + 1 * 6 + 5
    weights = trace.vision.layer(1).weights[2]
    said = patch_at(page, 0, 3, (3, 6))
    assert said.startswith("r1 c5 · row 0, column 3 · ")
    assert float(said.rpartition(" ")[2]) == pytest.approx(float(weights[row, 1 + 3]), abs=0.004)
    share = float(page.inner_text("#share").rpartition(" ")[2])
    assert share == pytest.approx(float(weights[row, 1:].sum()), abs=0.001)
    page.mouse.move(0, 0)
    page.focus("#parts canvas")
    for key in ("ArrowDown", "ArrowLeft", "Enter"):  # from where the mouse was
        page.keyboard.press(key)
    said = page.inner_text("#readout")
    assert said.startswith("r1 c2 · row 1, column 2 · ")
    assert float(said.rpartition(" ")[2]) == pytest.approx(float(weights[1 + 8, 1 + 8]), abs=0.004)
    page.focus("#queries [tabindex='0']")
    page.keyboard.press("ArrowRight")
    assert page.locator("[aria-selected=true]").inner_text() == "[CLS]"
    page.click("#switch-language")
    page.focus("#parts canvas")
    assert page.inner_text("#readout").startswith("[CLS] · 第 0 行第 0 列 · ")
    page.uncheck("#lines")
    page.focus("#opacity")
    page.keyboard.press("Home")
    page.click("#switch-theme")


@browser
@pytest.mark.parametrize("name", ["qwen2 vl, two pictures, merged", "llava next, tiles", "llava"])
def test_words_that_look_at_a_patch_of_one_of_several_pictures(open_page, name):
    case = CASES[name]
    model = case.make()
    words = model.get_submodule(case.attends[1])

    def run(lit: bool) -> Any:
        return model(**case.inputs(lit))

    look_at_what_changes(words, 4, run)
    with torch.no_grad(), av.capture(model) as recording:
        run(True)
    cell, grid, number = case.words
    page = open_page(av.overlay(recording.trace, query=-1), color_scheme="light")
    assert page.evaluate(DARKEST, [*grid, number or 0]) == list(cell)
    where = "" if number is None else f"#{number} "
    assert f"Strongest: {where}row {cell[0]}, column {cell[1]}" in page.inner_text("#share")
    captions = page.locator("#parts figcaption").all_inner_texts()
    assert captions == ([] if number is None else [f"#{n}" for n in range(len(captions))])
    assert page.locator("#queries [role=option]").first.inner_text() == "mean over the words that see the picture"
    vision = page.locator("#sheet option").all_inner_texts()
    assert "Vision" in " ".join(vision)


@browser
def test_the_answer_of_a_model_that_chats(open_page):
    eye = {"model_type": "clip_vision_model", "image_size": 32, "patch_size": 8} | TINY | {"num_hidden_layers": 1}
    llama = {"model_type": "llama"} | WORDS
    model = made("LlavaForConditionalGeneration", "Llava", llama, eye, image_token_index=PATCH, vision_feature_layer=-1)
    inputs = told(16) | {"pixel_values": picture((32, 32), (18, 10))}
    with av.capture(model) as recording:
        model.generate(**inputs, max_new_tokens=3, do_sample=False)
    trace = recording.trace
    found = trace.decoder.layer(0)
    answered = [n for n, text in enumerate(found.produced) if text is not None]
    patches = [n for n, kind in enumerate(found.keys.kinds) if kind == "patch"]
    assert len(answered) == 3 and len(patches) == 16
    page = open_page(av.overlay(trace, picture((32, 32), (18, 10))))
    assert page.locator("[aria-selected=true]").inner_text() == "mean over the answer"
    wanted = found.weights[:, answered].mean((0, 1))[patches]
    assert float(patch_at(page, 2, 1, (4, 4)).rpartition(" ")[2]) == pytest.approx(float(wanted[9]), rel=1e-3)
    read, put_out = found.queries.texts[answered[1]], found.produced[answered[1]]
    page.locator("#queries .answered").nth(1).click()
    assert page.locator("[aria-selected=true]").inner_text() == f"{read} → {put_out}"
    wanted = found.weights[:, answered[1]].mean(0)[patches]
    assert float(patch_at(page, 0, 3, (4, 4)).rpartition(" ")[2]) == pytest.approx(float(wanted[3]), abs=0.004)
    assert "a → b is the row that read a" in page.inner_text("aside")


def test_objects_look_at_a_feature_map() -> None:
    model = detr()
    with torch.no_grad(), av.capture(model) as recording:
        model(pixel_values=torch.randn(1, 3, 96, 160))
    html = av.overlay(recording.trace, image((96, 160), (0, 0)), query=3).html
    assert '"grid":[3,5]' in html and '"chosen":4' in html


def without_cells(trace: Trace) -> Trace:
    bare = [
        replace(m, keys=Labels.plain(m.keys.texts, "latent"), queries=Labels.plain(m.queries.texts, "latent"))
        for m in trace.maps
    ]
    return replace(trace, maps=tuple(bare))


def test_a_grid_may_be_given_where_labels_know_of_none() -> None:
    model = detr()
    with torch.no_grad(), av.capture(model) as recording:
        model(pixel_values=torch.randn(1, 3, 96, 160))
    known, bare = recording.trace, without_cells(recording.trace)
    with pytest.raises(ArgumentError, match=r"give grid=\(rows, columns\)"):
        av.overlay(bare)
    with pytest.raises(ArgumentError, match="4 × 4 = 16"):
        av.overlay(bare, grid=(4, 4))
    given, told_by_labels = (av.overlay(one, stack="cross", grid=(3, 5), query=1).html for one in (bare, known))
    assert given == told_by_labels


def a_trace(parts: int = 1, grid: tuple[int, int] = (2, 3), layers: int = 1, heads: int = 2, texts: Any = ()) -> Trace:
    keys = Labels.joined([Labels.plain(texts), *numbered([patches(grid)] * parts)])
    maps = [
        AttentionMap(rows(heads, len(keys), len(keys), n), keys, keys, "vision", n, positions=tuple(range(len(keys))))
        for n in range(layers)
    ]
    return Trace(tuple(maps), model="tiny")


def test_what_lies_beneath_must_fit() -> None:
    trace, shot = a_trace(parts=3), pipes.photo(20, 30)
    with pytest.raises(ArgumentError, match="a picture for each of the parts 0, 1, 2"):
        av.overlay(trace, [shot])
    with pytest.raises(ArgumentError, match="a box for each of the parts"):
        av.overlay(trace, shot, box=[(0, 0, 3, 3)])
    with pytest.raises(ArgumentError, match="inside the picture of 30 × 20"):
        av.overlay(trace, shot, box=(0, 0, 20, 30))
    with pytest.raises(ArgumentError, match="with box=…, got none"):
        av.overlay(trace, box="centre")
    with pytest.raises(ArgumentError, match="the path of a picture"):
        av.overlay(trace, "no such file")
    assert "No picture was given for #1, #2" in av.overlay(trace, shot).html
    assert "No picture was given for #1:" in av.overlay(trace, [shot, None, shot]).html
    pieces = av.overlay(trace, shot, box=[None, (0, 0, 15, 10), (15, 10, 30, 20)]).html
    assert "No picture was given" not in pieces and '"box":[15.0,10.0,30.0,20.0]' in pieces
    assert pieces.count("data:image/") == 1


def test_rows_layers_and_heads_that_are_not_there() -> None:
    trace = a_trace(layers=2)
    with pytest.raises(UnknownNameError, match="from 0 to 5"):
        av.overlay(trace, query=6)
    with pytest.raises(UnknownNameError, match="one row that reads or puts out 'x'"):
        av.overlay(trace, query="x")
    with pytest.raises(UnknownNameError, match="no layer 2"):
        av.overlay(trace, layer=2)
    with pytest.raises(UnknownNameError, match="from 0 to 1"):
        av.overlay(trace, head=2)
    with pytest.raises(ArgumentError, match="keys that are patches"):
        av.overlay(Trace((replace(trace.maps[0], keys=Labels.plain("abcdef")),)))


@pytest.mark.parametrize(
    ("room", "leaves", "said"),
    [
        (16 * 36 - 1, 8, "single heads are here of layer 1 only"),
        (8 * 36 - 1, 6, "it holds layer 1 with its heads and the mean of all"),
        (86, 2, "it holds the mean over the heads of layer 1, and the mean of all layers."),
        (28, 2, "Of 6 rows it holds 5; averages are over all of them."),
    ],
)
def test_what_a_page_cannot_hold_is_left_out_and_told(
    monkeypatch: pytest.MonkeyPatch, room: int, leaves: int, said: str
) -> None:
    """Three layers of four heads, six rows of six patches: 16 leaves of 36 weights with all means. The last
    plans, of 6 and 2 leaves, may take two and a half times the room."""
    trace = a_trace(layers=3, heads=4)
    whole = av.overlay(trace, layer=1).html
    assert whole.count('"inner":') == 16 and "too much for one page" not in whole
    monkeypatch.setattr(sheets, "ROOM", room)
    html = av.overlay(trace, layer=1, query=5).html
    assert html.count('"inner":') == leaves and said in html
    assert html.count('"answered":') == (6 if room > 28 else 5)


def test_exact_numbers_are_half_precision() -> None:
    coarse, exact = (av.overlay(a_trace(), exact=one).html for one in (False, True))
    assert "float16" in exact and "float16" not in coarse


@browser
def test_half_precision_is_read_back(open_page):
    trace = a_trace()
    page = open_page(av.overlay(trace, layer=0, head=1, query=2, exact=True))
    wanted = float(trace.vision.layer(0).weights[1, 2, 5])
    assert float(patch_at(page, 1, 2, (2, 3)).rpartition(" ")[2]) == pytest.approx(wanted, rel=1e-3)


@browser
def test_hostile_tokens_and_titles_stay_text(open_page, tmp_path):
    trace = replace(a_trace(texts=[HOSTILE, "我爱"]), model=HOSTILE)
    view = av.overlay(trace, pipes.photo(), query=0, title=HOSTILE)
    page = open_page(view)
    assert page.locator("img, [onerror]").count() == 0
    shown = page.locator("[aria-selected=true]").inner_text()
    assert shown.startswith("</script><img src=x") and "⟨U+202E⟩" in shown and "⟨U+0000⟩" in shown
    svg = view.save(tmp_path / "x.svg").read_text()
    assert "<img" not in svg and "\x00" not in svg
    for name in ("png", "pdf"):
        assert view.save(tmp_path / f"x.{name}").stat().st_size > 2000


@browser
def test_rows_that_see_nothing_are_hatched_and_said(open_page):
    trace = a_trace()
    weights = trace.maps[0].weights.clone()
    weights[:, 1] = float("nan")
    page = open_page(av.overlay(Trace((replace(trace.maps[0], kept_weights=weights),)), query=1))
    assert "sees nothing" in page.inner_text("#share")
    assert patch_at(page, 0, 0, (2, 3)).endswith("undefined")


def test_the_figure_draws_what_the_page_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers that matplotlib is handed, cell by cell, against the map."""
    drawn: list[Any] = []
    original = overlay_page._panel
    monkeypatch.setattr(
        overlay_page, "_panel", lambda panel, heat, *rest: drawn.append(heat) or original(panel, heat, *rest)
    )
    trace = a_trace(layers=2)
    av.overlay(trace, pipes.photo(), layer=1, head=0, query=4).figures["svg"]()
    assert drawn[0].tolist() == trace.vision.layer(1).weights[0, 4].reshape(2, 3).double().tolist()
