"""The alignment of two texts: arrows and the table show the trace's own numbers, in a real browser."""

import dataclasses

import pytest
import torch

import hf_attnviz as av
from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.drawing.alignment import aligns
from hf_attnviz.errors import ArgumentError, UnknownNameError
from hf_attnviz.labels import Labels
from hf_attnviz.language import set_language
from hf_attnviz.trace import Trace
from hf_attnviz.views.held import held, stored
from tests.views.builders import rows, self_trace, translation

browser = pytest.mark.browser
HOSTILE = ["</script><script>ran()</script>", "<img src=x onerror=ran()>", "$x_1$", "a\u202eb", "x\x00y", "\x1b[31mz"]


@pytest.fixture(autouse=True)
def english():
    set_language("en")


@pytest.fixture(scope="module")
def duck() -> Trace:
    return av.trace_text(av.load_model("translator"), "我爱吃北京烤鸭")


def texts_to(sources: list[str], targets: list[str], *, layers: int = 1, heads: int = 2) -> Trace:
    """A plain pass over both texts: the row before a target puts it out."""
    queries, keys = Labels.plain(["<s>", *targets]), Labels.plain(sources)
    maps = [
        AttentionMap(
            rows(heads, len(queries), len(keys), layer), queries, keys, stack="decoder", layer=layer, kind="cross"
        )
        for layer in range(layers)
    ]
    return Trace(tuple(maps), model="t")


def word(page, side: str, place: int):
    return page.locator(f".word[data-side={side}][data-n='{place}']")


@browser
def test_peking_duck(open_page, duck):
    page = open_page(av.alignment_view(duck))
    assert page.locator(".word[data-side=source]").all_text_contents() == ["我", "爱", "吃", "北京", "烤鸭"]
    assert page.locator(".word[data-side=target]").all_text_contents() == ["I", "love", "Peking", "duck"]
    mean = duck.cross.layer(1).weights.double().mean(0)[:4, :5]
    table = [row.split() for row in page.locator("#weights tbody tr").all_inner_texts()]
    assert [[float(cell) for cell in row[1:]] for row in table] == [[round(w, 2) for w in row] for row in mean.tolist()]
    arrows = page.locator(".arrows path[data-target]")
    found = {(int(a.get_attribute("data-target")), int(a.get_attribute("data-source"))) for a in arrows.all()}
    assert found == {(t, s) for t, s in (mean >= 0.1).nonzero().tolist()} == {(0, 0), (1, 1), (2, 3), (3, 4)}


@browser
def test_arrows_are_as_thick_as_their_weights(open_page):
    trace = texts_to(["ein", "Hund"], ["a", "dog"])
    page = open_page(av.alignment_view(trace, head=1, threshold=0))
    for arrow in page.locator(".arrows path[data-target]").all():
        weight = trace.cross.head(0, 1)[
            int(arrow.get_attribute("data-target")), int(arrow.get_attribute("data-source"))
        ]
        assert float(arrow.get_attribute("stroke-width")) == pytest.approx(0.75 + 8 * float(weight), abs=1e-5)


@browser
def test_a_word_shows_its_arrows_alone_with_numbers(open_page, duck):
    page = open_page(av.alignment_view(duck, layer=0, head=1))
    weights = duck.cross.head(0, 1)[:4, :5]
    word(page, "target", 1).hover()
    strong = sorted(((w, n) for n, w in enumerate(weights[1].tolist()) if w >= 0.1), reverse=True)
    sources = ["我", "爱", "吃", "北京", "烤鸭"]
    told = ", ".join(f"{sources[n]} ({n}) {float(f'{w:.4g}'):g}" for w, n in strong)
    assert page.inner_text("#readout") == f"target love (1) ← {told}"
    numbers = page.locator(".arrows text").all_text_contents()
    assert numbers == [f"{float(f'{w:.3g}'):g}" for w, _ in strong]
    assert page.locator(".arrows.faded").count() == 1
    page.mouse.move(0, 0)
    assert page.locator(".arrows text").count() == 0


@browser
def test_keys_move_through_words_and_cells(open_page, duck):
    page = open_page(av.alignment_view(duck))
    word(page, "source", 0).focus()
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#readout").startswith("source 爱 (1) → love (1) 0.98")
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#readout").startswith("target ")
    page.locator("#weights tbody td").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    weight = float(duck.cross.layer(1).weights.double().mean(0)[1, 1])
    assert page.inner_text("#readout") == f"target love (1) · source 爱 (1) · {float(f'{weight:.4g}'):g}"
    assert page.locator("#weights th.on").all_inner_texts() == ["爱", "love"]


@browser
def test_menus_choose_layer_head_and_threshold(open_page, duck):
    page = open_page(av.alignment_view(duck))
    cell = page.locator("#weights tbody tr:nth-child(2) td").nth(3)
    for layer, head in ((0, 0), (1, 1), (0, None)):
        page.select_option("#layer", str(layer))
        page.select_option("#head", "-1" if head is None else str(head))
        weights = duck.cross.layer(layer).weights.double()
        wanted = weights.mean(0) if head is None else weights[head]
        assert float(cell.inner_text()) == round(float(wanted[1, 3]), 2)
    page.select_option("#threshold", "0.5")
    assert page.locator(".arrows path[data-target]").count() == int((wanted[:4, :5] >= 0.5).sum())
    page.select_option("#layer", "-1")
    both = torch.stack([duck.cross.layer(n).weights.double().mean(0) for n in (0, 1)]).mean(0)
    assert float(cell.inner_text()) == round(float(both[1, 3]), 2)
    page.click("#switch-language")
    assert page.inner_text("#readout").startswith("共 ")
    assert page.locator("#head option").all_inner_texts()[0] == "各头平均"


@browser
def test_a_table_too_large_lists_the_strongest_and_says_so(open_page):
    trace = texts_to([f"s{n}" for n in range(60)], [f"t{n}" for n in range(60)])
    page = open_page(av.alignment_view(trace, threshold=0.02))
    assert "The table would have 3,600 cells" in page.inner_text("main")
    mean = trace.cross.layer(0).weights.double().mean(0)
    best = mean[7].argsort(descending=True)[:5].tolist()
    cells = page.locator("#weights tbody tr").nth(7).locator("td").all_inner_texts()
    assert cells == [f"s{n} ({n}) {float(mean[7, n]):.2f}" for n in best]


@browser
def test_text_of_others_is_text(open_page):
    trace = dataclasses.replace(texts_to(HOSTILE, HOSTILE), model=HOSTILE[0])
    view = av.alignment_view(trace, title="".join(HOSTILE))
    page = open_page(view)
    assert page.locator("img").count() == 0
    shown = HOSTILE[:3]
    assert page.locator(".word[data-side=target]").all_text_contents()[:3] == shown
    assert page.locator("#weights thead th").all_inner_texts()[3:] == ["a⟨U+202E⟩b", "x⟨U+0000⟩y", "⟨U+001B⟩[31mz"]
    drawn = view.figures["svg"]()
    assert b"<script" not in drawn
    assert view.figures["pdf"]().startswith(b"%PDF")


@browser
def test_right_to_left_runs_from_the_right(open_page):
    page = open_page(av.alignment_view(texts_to(["שלום", "עולם"], ["hello", "world"])))
    first, second = (word(page, "source", n).bounding_box()["x"] for n in (0, 1))
    assert first > second
    word(page, "source", 0).focus()
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#readout").startswith("source עולם (1)")


@browser
def test_undefined_weights_stay_undefined(open_page):
    trace = texts_to(["a", "b"], ["c", "d"])
    weights = trace.cross.maps[0].weights.clone()
    weights[:, 0] = float("nan")
    trace = dataclasses.replace(trace, maps=(dataclasses.replace(trace.cross.maps[0], kept_weights=weights),))
    page = open_page(av.alignment_view(trace, head=0))
    assert page.locator("#weights tbody tr").first.locator("td").all_inner_texts() == ["–", "–"]
    word(page, "target", 0).hover()
    assert page.inner_text("#readout") == "target c (0) ← –"


def test_who_can_be_aligned(duck):
    assert aligns(duck)
    assert aligns(translation())
    assert not aligns(self_trace(["a", "b"]))
    frames = Labels.plain(["0.0 s", "0.1 s"], "frame")
    sound = AttentionMap(rows(1, 3, 2, 0), Labels.plain("abc"), frames, stack="decoder", layer=0, kind="cross")
    assert not aligns(Trace((sound,)))
    with pytest.raises(ArgumentError, match="cross-attention of a text to a text"):
        av.pictures()["alignment"](self_trace(["a", "b"]))
    with pytest.raises(UnknownNameError, match="no head 7"):
        av.alignment_view(duck, head=7)
    with pytest.raises(ArgumentError, match="threshold from 0 to 1"):
        av.alignment_view(duck, threshold=2)
    with pytest.raises(ArgumentError, match="got str"):
        av.alignment_view("我爱吃北京烤鸭")


def test_an_alignment_of_its_own_rule_is_drawn(duck):
    view = av.alignment_view(av.alignment(duck, read="reading", special=True, layer=1, head=0))
    assert "A row is the one that read the word" in view.how_to_read
    with pytest.raises(ArgumentError, match="expected the result of alignment"):
        av.alignment_view(av.head_statistics(duck, stack="encoder"))


def test_what_a_page_cannot_hold_is_left_out_and_told():
    maps = [torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    several = [lambda m=m: m for m in maps]

    def fit(most, **chosen):
        return held(several, ("0", "1", "5"), (2, 3, 4), most=most, **{"layer": None, "head": None} | chosen)

    assert torch.equal(fit(72).values, torch.stack(maps))
    means = fit(71)
    assert torch.allclose(means.values[:, 0], torch.stack(maps).mean(1))
    assert "holds the mean over heads of each layer" in means.notes[0].en
    assert torch.equal(fit(71, head=1).values[:, 0], torch.stack(maps)[:, 1])
    last = fit(12)
    assert last.layers == ("5",)
    assert "of layer 5 alone" in last.notes[0].en
    assert fit(12, layer=1, head=0).layers == ("1",)
    with pytest.raises(ArgumentError, match="long_view"):
        fit(11)


def test_bytes_are_within_their_bound():
    import base64
    import zlib

    weights = rows(1, 400, 400, 2, sharp=4)
    weights[0, 3] = float("nan")
    told, note = stored(weights)
    assert told["coded"]
    assert "0.004" in note.en
    codes = list(zlib.decompress(base64.b64decode(told["data"])))
    for code, weight in zip(codes, weights.flatten().tolist(), strict=True):
        assert code == 255 if weight != weight else abs((code / 254) ** 2 - weight) <= 0.004
