"""Maps of words over a painted image: against plain loops, and on a painter that gives a word to one known place."""

import importlib
from typing import Any

import numpy as np
import pytest
import torch

import hf_attnviz as av
from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.errors import ArgumentError
from hf_attnviz.labels import Labels
from hf_attnviz.language import set_language
from hf_attnviz.trace import Trace
from hf_attnviz.views import overlay_page
from tests.capturing import pipes
from tests.capturing.pointing import read, redrawn
from tests.views.builders import rows
from tests.views.test_overlay import DARKEST, HOSTILE, patch_at

browser = pytest.mark.browser


@pytest.fixture(autouse=True)
def english():
    set_language("en")


def prompt(*texts: str) -> Labels:
    """A begin mark, words, an end mark."""
    texts = ("<|start|>", *texts, "<|end|>")
    kinds = ["special", *["text"] * (len(texts) - 2), "special"]
    words = [None, *range(len(texts) - 2), None]
    return Labels.of(texts, [None] * len(texts), words, kinds)


def step(number: int, keys: Labels, counts: tuple[int, ...] = (8, 2, 8), item: int = 0) -> Trace:
    maps = [
        AttentionMap(
            rows(2, count, len(keys), 10 * number + layer, sharp=1.0),
            Labels.plain(map(str, range(count)), "latent"),
            keys,
            "encoder",
            layer,
            kind="cross",
        )
        for layer, count in enumerate(counts)
    ]
    return Trace(tuple(maps), run=number, item=item, model="tiny")


def drawn_by(monkeypatch: pytest.MonkeyPatch, *args: Any, **options: Any) -> list[Any]:
    """The sheets that the page is made of."""
    seen: list[Any] = []
    original = overlay_page.page

    def spy(*some: Any, figures: Any, **more: Any) -> Any:
        seen.append(figures["svg"].args[0].args[0])
        return original(*some, figures=figures, **more)

    monkeypatch.setattr(overlay_page, "page", spy)
    av.word_maps(*args, **options)
    return seen


def test_a_word_is_the_mean_over_heads_tokens_layers_and_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Labels.of(
        ["<|start|>", "吃⟨1/2⟩", "吃⟨2/2⟩", "cat"], [None] * 4, [None, 0, 0, 1], ["special", *["text"] * 3]
    )
    steps = [step(n, keys, (8, 8)) for n in range(3)]
    (sheet,) = drawn_by(monkeypatch, steps, grid=(2, 4))
    assert [query.text for query in sheet.queries] == ["吃", "cat"]
    found = sheet.leaves[0].weights()
    for word, tokens in enumerate([[1, 2], [3]]):
        for place in range(8):
            numbers = [
                float(m.weights[head, place, token])
                for t in steps
                for m in t.maps
                for head in range(2)
                for token in tokens
            ]
            assert float(found[word, place]) == pytest.approx(sum(numbers) / len(numbers), abs=1e-6)
    by_name = {(leaf.outer.en, leaf.inner.en): leaf.weights() for leaf in sheet.leaves}
    one = torch.stack([m.weights[:, :, 3].mean(0) for m in steps[1].maps]).mean(0)
    torch.testing.assert_close(by_name["mean of all", "1"][1], one)
    other = torch.stack([t.maps[1].weights[:, :, 3].mean(0) for t in steps]).mean(0)
    torch.testing.assert_close(by_name["1", "mean of all"][1], other)


def test_small_layers_are_enlarged_and_every_layer_counts_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """One layer of a single place, two of two by four: a single place enlarged is the same everywhere."""
    steps = [step(n, prompt("cat"), (8, 1, 8)) for n in range(2)]
    (sheet,) = drawn_by(monkeypatch, steps, grid=(2, 4))
    small = sum(float(t.maps[1].weights[:, 0, 1].mean()) for t in steps) / 2
    large = sum(t.maps[n].weights[:, :, 1].mean(0) for t in steps for n in (0, 2)) / 2
    torch.testing.assert_close(sheet.leaves[0].weights()[0], (large + small) / 3)


def painting(size: tuple[int, int], spot: tuple[int, int]) -> Trace:
    """A UNet whose first cross-attention gives the word ``cat`` to the one bright place of the latents."""
    diffusers = pytest.importorskip("diffusers")
    model = redrawn(
        diffusers.UNet2DConditionModel(
            sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=16,
            attention_head_dim=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )
    )  # fmt: skip
    text = torch.eye(16)[None, :4]
    module = model.down_blocks[0].attentions[0].transformer_blocks[0].attn2

    def run() -> Any:
        sample = torch.zeros(1, 4, *size)
        sample[..., spot[0], spot[1]] = 5.0
        return model(sample, torch.tensor(3), encoder_hidden_states=text)

    bright = read(module, run)
    place = spot[0] * size[1] + spot[1]
    others = bright[[n for n in range(len(bright)) if n != place]]
    basis, sizes, _ = torch.linalg.svd(others.T, full_matrices=False)
    basis = basis[:, sizes > 1e-4 * sizes[0]]
    direction = bright[place] - basis @ (basis.T @ bright[place])  # what no other place has
    assert direction.norm() > 0.1, "what is bright is not seen here"
    along = torch.ones(module.to_q.out_features)
    with torch.no_grad():
        module.to_q.weight.copy_(torch.outer(along, direction / direction.norm() ** 2) * 20)
        module.to_k.weight.copy_(torch.outer(along, text[0, 1]) - torch.outer(along, text[0, 2]))
        with av.capture(model) as recording:
            run()
    found = recording.trace.cross.maps[0]
    keys = prompt("cat", "dog")
    return Trace((AttentionMap(found.weights, found.queries, keys, "encoder", 0, kind="cross"),), model="painter")


@browser
def test_the_word_lies_on_the_place_that_was_painted_for_it(open_page):
    """Eight rows of sixteen: the bright place is in row 2, column 11, which a swap of the two would put elsewhere."""
    spot, grid = (2, 11), (8, 16)
    trace = painting(grid, spot)
    image = np.full((80, 160, 3), 128, np.uint8)
    page = open_page(av.word_maps([trace], image, words=["dog", "cat"]), color_scheme="light")
    page.locator("#queries [role=option]").nth(1).click()
    assert page.evaluate(DARKEST, [*grid, 0]) == list(spot)
    assert page.inner_text("#share").startswith("Strongest: row 2, column 11 · ")
    said = patch_at(page, 2, 11, grid)
    assert said.startswith("cat · row 2, column 11 · ")
    weight = float(trace.cross.maps[0].weights[:, 2 * 16 + 11, 1].mean())
    assert float(said.rpartition(" ")[2]) == pytest.approx(weight, abs=0.004)
    assert weight > float(trace.cross.maps[0].weights[:, :, 1].mean()) + 0.1
    page.click("#switch-language")
    assert page.inner_text("#queries-name") == "哪个词"


@browser
def test_sizes_and_steps_are_menus_and_hostile_words_stay_text(open_page, tmp_path):
    steps = [step(n, prompt(HOSTILE, "我")) for n in range(2)]
    view = av.word_maps(steps, pipes.photo(20, 40), title=HOSTILE)
    page = open_page(view)
    assert page.locator("img, [onerror]").count() == 0
    assert page.locator("#sheet option").all_inner_texts() == ["all sizes", "2 × 4", "1 × 2"]
    page.select_option("#sheet", "1")
    page.wait_for_selector("#outer")
    page.select_option("#inner", label="1")
    said = patch_at(page, 1, 2, (2, 4))
    wanted = float(torch.stack([m.weights[:, 6, 1].mean() for m in (steps[1].maps[0], steps[1].maps[2])]).mean())
    assert float(said.rpartition(" ")[2]) == pytest.approx(wanted, abs=0.004)
    assert "on all patches" not in page.inner_text("#share")
    assert "<img" not in view.save(tmp_path / "x.svg").read_text()


def test_what_does_not_fit_is_refused() -> None:
    steps = [step(n, prompt("cat")) for n in range(2)]
    with pytest.raises(ArgumentError, match="the nearest is 2 × 4"):
        av.word_maps(steps)
    with pytest.raises(ArgumentError, match="the nearest is 4 × 2"):
        av.word_maps(steps, pipes.photo(40, 30))
    with pytest.raises(ArgumentError, match="a grid of 8 places"):
        av.word_maps(steps, grid=(3, 3))
    with pytest.raises(ArgumentError, match="no halvings"):
        av.word_maps([step(0, prompt("cat"), (8, 3))], grid=(2, 4))
    with pytest.raises(ArgumentError, match="words of the prompt"):
        av.word_maps(steps, grid=(2, 4), words=["dog"])
    with pytest.raises(ArgumentError, match="choose with item"):
        av.word_maps([*steps, step(0, prompt("dog"), item=1)], grid=(2, 4))
    with pytest.raises(ArgumentError, match="several prompts"):
        av.word_maps([*steps, step(2, prompt("dog"))], grid=(2, 4))
    with pytest.raises(ArgumentError, match="cross-attention from places of an image"):
        av.word_maps([])


def test_a_page_that_would_be_too_large_leaves_steps_out_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [step(n, prompt("cat"), (8, 8)) for n in range(3)]
    sized = {6 * 8: "", 5 * 8: "Single steps would be too much", 2 * 8: "Single layers and steps would be too much"}
    for room, said in sized.items():
        monkeypatch.setattr(importlib.import_module("hf_attnviz.drawing.word_maps"), "ROOM", room)
        html = av.word_maps(steps, grid=(2, 4)).html
        assert said in html and ("too much" in html) == bool(said)


@pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")
def test_a_recording_of_a_pipeline_is_enough() -> None:
    """Guidance runs an empty prompt beside the prompt; the one with words is taken, and every step."""
    from tests.beyond import test_diffusers as tiny

    pipe = tiny.text_to_image()
    with av.capture(pipe) as recording:
        image = tiny.paint(pipe)
    html = av.word_maps(recording, image[0]).html
    assert "3 denoising steps, 4 layers" in html
    for word in tiny.PROMPT.split():
        assert f'"en":"{word}"' in html
    assert '"grid":[8,8]' in html and '"grid":[4,4]' in html
