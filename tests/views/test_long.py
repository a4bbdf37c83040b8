"""The page of a long text, asked through the DOM of a real Chromium: right tokens, right numbers, both languages."""

import re
from functools import cache

import numpy as np
import pytest
import torch

import hf_attnviz as av
from hf_attnviz.errors import ArgumentError, NotKeptError
from hf_attnviz.language import set_language
from hf_attnviz.result import Axis, Result
from hf_attnviz.views.long import Along, along_view
from hf_attnviz.views.long_data import MOST_CODES, bin_size, binned, strongest_rows
from tests.views.builders import self_trace, without_weights

browser = pytest.mark.browser
TEXT = "the cat sat on my red hat the cat sat on my red"
NAMES = ("entropy", "effective_span", "distance", "first_token")
HOSTILE = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(2)>", "a\u202eb", "\x00", "plum", "plum"]


@pytest.fixture(autouse=True)
def english():
    set_language("en")


@cache
def captured() -> av.Trace:
    loaded = av.load_model("induction")
    return av.trace_text(loaded, TEXT, generate=False, keep=["maps", "statistics", av.TopK(3)])


def heads(layers: int, count: int) -> tuple[Axis, Axis]:
    return Axis("layer", tuple(map(str, range(layers)))), Axis("head", tuple(map(str, range(count))))


def made(count: int, *, layers: int = 2, head: int = 3, texts: list[str] | None = None, **more) -> Along:
    """Numbers drawn by hand: the largest is 30 in the rows and 900 in what keys receive."""
    generator = torch.Generator().manual_seed(count)
    labels = tuple(texts or [f"w{n}" for n in range(count)])
    rows = torch.rand(4, layers, head, count, generator=generator) * 30
    received = torch.rand(layers, head, count, generator=generator) * 2
    received[:, :, count // 3] = 900
    even = torch.arange(1.0, count + 1).log()
    return Along(
        Result(rows, (Axis("statistic", NAMES), *heads(layers, head), Axis("query", labels)), "row statistics",
               baseline=even.expand_as(rows)),
        Result(received, (*heads(layers, head), Axis("key", labels)), "attention received",
               baseline=torch.full_like(received, 1.5)),
        **more,
    )  # fmt: skip


def numbers(text: str) -> list[float]:
    """Every number of a readout, without those of positions and names of heads."""
    text = re.sub(r"positions? [\d,–]+", "", re.sub(r"L\d+H\d+", "", text))
    return [float(one) for one in re.findall(r"(?<![\w.])\d+\.?\d*(?:e[+-]\d+)?", text)]


def near(found: list[float], wanted: list[float]) -> None:
    assert found == pytest.approx(wanted, rel=6e-3, abs=6e-4)


@browser
def test_the_map_of_the_heads_has_their_means(open_page):
    trace = captured()
    page = open_page(av.long_view(trace))
    statistics, even = av.head_statistics(trace), av.head_statistics(without_weights(trace)).baseline
    for n, name in enumerate(NAMES):
        page.select_option("#statistic", str(n))
        told = [float(one) for one in page.locator("#heads button").all_inner_texts()]
        near(told, statistics.select(statistic=name).values.flatten().tolist())
        page.locator("#heads button").nth(5).click()
        where = statistics.axes[0].labels.index(name)
        place = av.head_statistics(without_weights(trace)).axes[0].labels.index(name)
        wanted = [float(statistics.values[where, 1, 1]), float(even[place, 1, 1])]
        near(numbers(page.inner_text("#head-readout")), wanted)
    assert page.inner_text("#chosen") == "L1H1 along the text"
    assert page.locator('#heads button[aria-pressed="true"]').count() == 1


@browser
def test_a_position_is_told_in_every_part(open_page):
    trace = captured()
    page = open_page(av.long_view(trace, layer=1))
    rows, received = av.row_statistics(trace), av.received(trace)
    assert page.inner_text("#chosen") == "L1H0 along the text"
    page.locator("#heads button").nth(6).click()  # L1H2
    for place in (13, 0, 9):
        page.fill("#place", str(place))
        page.locator("#place").blur()
        readout = page.inner_text("#rows-readout")
        assert readout.startswith(f"position {place} · ")
        near(numbers(readout), [float(rows.values[0, 1, 2, place]), float(rows.baseline[0, 1, 2, place])])
        readout = page.inner_text("#keys-readout")
        near(numbers(readout), [float(received.values[1, 2, place]), float(received.baseline[1, 2, place])])
        assert page.inner_text("#around mark") == trace.decoder.queries.texts[place]
        topk = trace.maps[1].reduced["topk"]
        places = [int(key) for key in topk["keys"][2, place] if key >= 0]
        assert [int(one) for one in page.locator("#strongest tbody button").all_inner_texts()] == places
        assert page.locator("#strongest mark").all_inner_texts() == [trace.decoder.keys.texts[key] for key in places]
        told = [float(one) for one in page.locator("#strongest td:last-child").all_inner_texts()]
        near(told, topk["weights"][2, place].tolist()[: len(places)])
    assert page.inner_text("#strongest-name") == "Where L1H2 looks from position 9"


@browser
def test_the_keys_that_receive_most_with_their_context(open_page):
    trace = captured()
    page = open_page(av.long_view(trace))
    page.locator("#heads button").nth(7).click()  # L1H3
    values = av.received(trace).values[1, 3]
    order = values.argsort(descending=True)[:12].tolist()
    texts = trace.decoder.keys.texts
    lines = page.locator("#most tbody tr")
    assert [int(one) for one in lines.locator("button").all_inner_texts()] == order
    assert lines.locator("mark").all_inner_texts() == [texts[key] for key in order]
    assert lines.nth(0).locator(".token").all_inner_texts() == list(texts[max(0, order[0] - 5) : order[0] + 6])
    cells = lines.nth(0).locator("td").all_inner_texts()
    near(
        [float(cells[2]), float(cells[3].rstrip(" %"))], [float(values.max()), 100 * float(values.max() / values.sum())]
    )
    lines.nth(2).locator("button").click()
    assert page.input_value("#place") == str(order[2])
    assert page.inner_text("#around mark") == texts[order[2]]


@browser
def test_bins_hold_the_least_the_mean_and_the_largest(open_page):
    along = made(1300)
    page = open_page(along_view(along))
    assert bin_size(1300, 30) == 3
    page.locator("#heads button").nth(4).click()  # L1H1
    for place in (0, 600, 1299):
        page.fill("#place", str(place))
        page.locator("#place").blur()
        bin_ = slice(place // 3 * 3, place // 3 * 3 + 3)
        for readout, values, even in (
            ("#rows-readout", along.rows.values[0, 1, 1, bin_], along.rows.baseline[0, 1, 1, bin_]),
            ("#keys-readout", along.received.values[1, 1, bin_], along.received.baseline[1, 1, bin_]),
        ):
            told = numbers(page.inner_text(readout))
            near(told, [*(float(v) for v in (values.min(), values.mean(), values.max())), float(even.mean())])
    assert page.inner_text("#rows-readout").startswith("position 1,299 ·")  # the last bin has one
    assert "Up to 3 positions share a bin" in page.inner_text(".how")
    points = page.get_attribute("#rows-chart .mean", "points").split()
    assert len(points) == 434
    heights = np.array([float(point.split(",")[1]) for point in points])
    means = along.rows.values[0, 1, 1, :1299].view(-1, 3).mean(-1).numpy()
    assert np.corrcoef(heights[:-1], means)[0, 1] < -0.9999  # upward is smaller


@browser
def test_arrow_keys_and_the_pointer_choose(open_page):
    along = made(1300)
    page = open_page(along_view(along))
    chart = page.locator("#rows-chart")
    chart.focus()
    for key, place in (
        ("Home", 0),
        ("ArrowRight", 3),
        ("ArrowRight", 6),
        ("ArrowLeft", 3),
        ("PageUp", 63),
        ("End", 1299),
    ):
        page.keyboard.press(key)
        assert page.input_value("#place") == str(place)
        assert chart.get_attribute("aria-valuenow") == str(place)
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 60)
    hovered = page.inner_text("#rows-readout")
    assert page.input_value("#place") == "1299"  # pointing alone does not choose
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 60)
    place = int(page.input_value("#place"))
    assert hovered.startswith(f"positions {place}–{place + 2} ·")
    assert 600 < place < 720
    page.locator('#heads button[aria-pressed="true"]').focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#chosen") == "L1H1 along the text"
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("L1H1")


@browser
def test_a_token_is_found_and_the_next_one(open_page):
    page = open_page(along_view(made(len(HOSTILE) * 3, texts=HOSTILE * 3)))
    page.fill("#find", "PLUM")
    found = []
    for _ in range(4):
        page.locator("#find").press("Enter")
        found.append(page.input_value("#place"))
    assert found == ["4", "5", "10", "11"]
    page.fill("#find", "pear")
    page.locator("#find").press("Enter")
    assert page.inner_text("#found") == "not in the text"
    assert page.input_value("#place") == "11"


@browser
def test_hostile_tokens_are_text_in_both_languages(open_page):
    view = along_view(made(len(HOSTILE), texts=HOSTILE), title=HOSTILE[0])
    assert "alert(1)</script>" not in view.html and "<img" not in view.html
    page = open_page(view)
    assert page.locator("main img, main script, [onerror]").count() == 0
    said = page.locator("#around .token").all_inner_texts()
    assert said[:4] == [HOSTILE[0], HOSTILE[1], "a⟨U+202E⟩b", "⟨U+0000⟩"]
    assert page.inner_text("h1") == HOSTILE[0]
    page.click("#switch-language")
    assert page.inner_text("#chosen") == "L0H0 沿文本"
    assert page.inner_text("#statistic option:nth-child(2)") == "有效跨度（词元）"
    assert page.inner_text("#rows-readout").startswith("位置 5 · ")
    assert "虚线为均匀注意力" in page.inner_text(".how")
    assert page.locator("main img, main script, [onerror]").count() == 0


def rolled(trace: av.Trace, size: int) -> Result:
    """Rollout of whole maps, its columns added up in groups."""
    found = av.rollout(trace)
    count = len(found.axes[-1].labels)
    groups = -(-count // size)

    def grouped(values: torch.Tensor) -> torch.Tensor:
        return torch.stack([values[..., n * size : (n + 1) * size].sum(-1) for n in range(groups)], -1)

    axes = (*found.axes[:2], Axis("group", tuple(f"g{n}" for n in range(groups))))
    return Result(grouped(found.values), axes, found.method, notes=found.notes, baseline=grouped(found.baseline))


@browser
def test_what_flows_through_the_layers(open_page):
    trace = captured()
    flow = rolled(trace, 5)
    page = open_page(along_view(Along(av.row_statistics(trace), av.received(trace), flow)))
    canvas = page.locator("#flow")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    groups, rows = len(flow.axes[2].labels), len(flow.axes[1].labels)
    for layer in (1, 0):
        page.select_option("#flow-layer", str(layer))
        for group, row in ((0, 0), (2, 12), (1, 6)):
            page.mouse.move(
                box["x"] + (row + 0.5) / rows * box["width"], box["y"] + (group + 0.5) / groups * box["height"]
            )
            readout = page.inner_text("#flow-readout")
            assert readout.startswith(f"rows at position {row} · from g{group}: ")
            told = numbers(readout.replace(f"g{group}", ""))
            near(told, [float(flow.values[layer, row, group]), float(flow.baseline[layer, row, group])])
    assert [o.split(" ")[0] for o in page.locator("#flow-kind option").all_inner_texts()] == ["minus", "as", "uniform"]
    difference = (flow.values - flow.baseline)[0]
    assert float(page.inner_text("#flow-low")) == pytest.approx(-float(difference.abs().max()), rel=6e-3)
    page.select_option("#flow-kind", "values")
    assert page.inner_text("#flow-low") == "0"
    near(numbers(page.inner_text("#flow-high")), [float(flow.values[0].max())])
    canvas.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#flow-readout").startswith("rows at position 7 · from g2: ")  # from the cell pointed at


@browser
def test_rollout_that_was_streamed_is_that_of_the_maps(open_page):
    loaded = av.load_model("induction")
    trace = av.trace_text(loaded, TEXT, generate=False, keep=["statistics", "rollout"])
    wanted = av.rollout(captured())  # with fewer tokens than groups, each is a group of its own
    page = open_page(av.long_view(trace))
    canvas = page.locator("#flow")
    canvas.focus()
    for row in range(4):
        told = numbers(page.inner_text("#flow-readout").rpartition(": ")[2])
        near(told, [float(wanted.values[1, row, row]), float(wanted.baseline[1, row, row])])
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
    assert page.locator("#flow-labels span").first.inner_text() == "0"
    assert page.locator("#flow-labels span").first.get_attribute("title") == "0: <s>"


@browser
def test_what_is_undefined_is_said_and_leaves_a_gap(open_page):
    along = made(30)
    along.rows.values[2] = float("nan")  # no distance in cross-attention
    along.rows.values[0, 0, 0, 10:20] = float("nan")
    page = open_page(along_view(along))
    assert page.locator("#rows-chart .mean").count() == 2
    page.fill("#place", "12")
    page.locator("#place").blur()
    assert "position 12 · undefined" in page.inner_text("#rows-readout")
    page.select_option("#statistic", "2")
    assert page.locator("#rows-chart .mean").count() == 0
    assert set(page.locator("#heads button").all_inner_texts()) == {"–"}


@browser
def test_queries_and_keys_of_two_texts_have_places_of_their_own(open_page):
    loaded = av.load_model("translator")
    trace = av.trace_text(loaded, loaded.examples[0], keep=["maps", "statistics"])
    page = open_page(av.long_view(trace, stack="cross"))
    cross = trace.cross
    page.locator("#keys-chart").focus()
    page.keyboard.press("ArrowRight")
    assert page.input_value("#place") == str(len(cross.queries) - 1)
    value = float(cross.maps[0].weights[0].sum(0)[1])
    near(numbers(page.inner_text("#keys-readout"))[:1], [value])
    assert set(page.locator("#most mark").all_inner_texts()) == set(cross.keys.texts)


def test_a_page_of_many_heads_and_tokens_stays_small():
    along = made(16_384, layers=12, head=12, strongest=None)
    assert len(along_view(along).html) < 5_000_000
    of_a_thousand = -(-16_384 // bin_size(16_384, 5 * 1024))
    assert 3 * 5 * 1024 * of_a_thousand <= MOST_CODES < 3 * 5 * 1024 * (of_a_thousand + 2)
    assert bin_size(512, 40) == 1


def test_bins_by_hand():
    found = binned(torch.tensor([[1.0, 3.0, float("nan"), 5.0, float("nan"), float("nan"), 7.0]]), 2)
    wanted = [[1, 5, np.nan, 7], [2, 5, np.nan, 7], [3, 5, np.nan, 7]]
    np.testing.assert_array_equal(found[:, 0], wanted)


def test_the_rows_whose_strongest_keys_are_told_end_with_the_last():
    assert strongest_rows(torch.Size((2, 4, 100, 8))) == list(range(100))
    few = strongest_rows(torch.Size((12, 12, 16_384, 8)))
    assert len(few) == 208 and few[-1] == 16_383 and max(np.diff(few)) <= 80


def test_a_report_begins_with_it_and_says_what_needs_maps():
    page = av.report(without_weights(self_trace(list("abcd"), causal=True))).html
    assert page.index("Along the text") < page.index("Head statistics")
    assert "Left out: all that needs the weights themselves" in page
    assert "Along the text" not in av.report(self_trace(list("abcd"))).html


def test_other_results_and_traces_without_statistics_are_refused():
    along = made(5)
    with pytest.raises(ArgumentError, match="received: expected axes layer, head, key; got statistic, layer"):
        Along(along.rows, along.rows)
    with pytest.raises(NotKeptError, match='keep="statistics"'):
        av.long_view(self_trace(list("abcd")))
