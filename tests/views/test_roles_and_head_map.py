import pytest
import torch
from matplotlib.axes import Axes

import hf_attnviz as av
from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import set_language
from hf_attnviz.result import Axis, Result
from hf_attnviz.views import head_map_view, heatmap, roles_view
from tests.views.builders import self_trace

browser = pytest.mark.browser
NAN = float("nan")


@pytest.fixture(autouse=True)
def english():
    set_language("en")


def roles(**beside):
    axes = (Axis("statistic", ("induction", "broad")), Axis("layer", ("2", "3")), Axis("head", ("0", "1", "2")))
    return Result(torch.arange(12.0).reshape(2, 2, 3) / 12, axes, "head roles", unit="share", **beside)


def places(count=5, dimensions=2):
    names = tuple(f"L{n // 3}H{n % 3}" for n in range(count))
    values = torch.rand(count, dimensions, generator=torch.Generator().manual_seed(0))
    axes = (Axis("head", names), Axis("statistic", tuple(f"dimension {n}" for n in range(dimensions))))
    return Result(values, axes, "head map", source="Torgerson 1952")


@browser
def test_a_role_is_a_row_and_every_head_a_column(open_page):
    low, high, baseline = (torch.full((2, 2, 3), number) for number in (0.25, 0.75, 0.125))
    baseline[1, 1, 2] = 0.5
    page = open_page(roles_view(roles(low=low, high=high, baseline=baseline, verdict=torch.zeros(2, 2, 3))))
    columns = page.locator("#column-labels span").all_inner_texts()
    assert columns == ["L2H0", "L2H1", "L2H2", "L3H0", "L3H1", "L3H2"]
    page.focus("#heat")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#readout") == (
        "statistic broad (1) · head L3H2 (5) · 0.9167 share · from 0.25 · to 0.75 · uniform attention 0.5 · passes 0"
    )
    assert "what uniform attention under the same mask gets" in page.inner_text("aside")


@browser
def test_names_of_roles_follow_the_language(open_page):
    page = open_page(roles_view(roles()))
    assert page.locator("#row-labels span").all_inner_texts() == ["induction (all copies)", "broad"]
    page.click("#switch-language")
    assert page.locator("#row-labels span").all_inner_texts() == ["归纳（全部先例）", "分散型"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("width", [None, 6.75])
def test_names_of_roles_that_begin_alike_are_whole_in_a_figure(monkeypatch, width):
    names = ("induction", "induction_stripe", "induction_mul")
    axes = (Axis("statistic", names), Axis("layer", ("0",)), Axis("head", ("0", "1")))
    drawn = []
    monkeypatch.setattr(Axes, "imshow", lambda axes, *a, _of=Axes.imshow, **k: drawn.append(axes) or _of(axes, *a, **k))
    roles_view(Result(torch.rand(3, 1, 2), axes, "head roles", unit="share")).figures["svg"](width=width)
    written = [label.get_text() for label in drawn[0].get_yticklabels()]
    assert written == ["induction (all copies)", "induction (stripe)", "induction (of the map)"]
    left = min(label.get_window_extent().x0 for label in drawn[0].get_yticklabels())
    assert left >= 0


@browser
def test_what_stands_beside_follows_menus_and_order(open_page):
    values = torch.arange(8.0).reshape(2, 2, 2)
    axes = (Axis("statistic", ("a", "b")), Axis("layer", ("0", "1")), Axis("head", ("0", "1"), order=(1, 0)))
    page = open_page(heatmap(Result(values, axes, "m", baseline=values + 10, low=torch.full((2, 2, 2), NAN))))
    page.select_option("#axis-0", "1")
    page.focus("#heat")
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#readout") == "layer 1 · head 1 (0) · 7 · uniform attention 17"


@browser
def test_every_head_is_a_point_with_its_name(open_page):
    result = places()
    page = open_page(head_map_view(result))
    assert page.locator("#head-map text").all_text_contents() == list(result.axes[0].labels)
    drawn = page.eval_on_selector_all(
        "#head-map circle", "cs => cs.map(c => [+c.getAttribute('cx'), -c.getAttribute('cy')])"
    )
    apart = torch.cdist(torch.tensor(drawn), torch.tensor(drawn))
    real = torch.cdist(result.values, result.values)
    scale = float(apart[0, 1] / real[0, 1])
    torch.testing.assert_close(apart, real * scale, atol=1.0, rtol=0)
    colours = page.eval_on_selector_all("#head-map circle", "cs => cs.map(c => c.getAttribute('fill'))")
    assert len(set(colours)) == 2 and len(set(colours[:3])) == 1
    assert page.locator(".key").count() == 2
    page.click("#switch-language")
    assert "层 0" in page.inner_text("main")


@browser
def test_a_head_is_told_of_by_keyboard_and_mouse_beside_its_cluster(open_page):
    trace = self_trace(["a", "b", "c", "d"])
    page = open_page(av.head_map_view(trace))
    statistics, likeness = av.head_statistics(trace), av.head_correlation(trace, method="js")
    names = likeness.axes[0].labels
    page.focus("#head-map")
    seen = set()
    for _ in range(len(names)):
        page.keyboard.press("ArrowLeft")
    for _ in range(len(names)):
        told = page.inner_text("#readout")
        head = names.index(told.split(" ")[0])
        seen.add(head)
        entropy = statistics.select(statistic="entropy").values.flatten()[head].item()
        assert f"entropy (nats) {float(f'{entropy:.3g}'):g} ·" in told
        apart = sorted((likeness.values[head, n].item(), name) for n, name in enumerate(names) if n != head)
        assert told.split("nearest: ")[1].startswith(f"{apart[0][1]} {float(f'{apart[0][0]:.3g}'):g}")
        page.keyboard.press("ArrowRight")
    assert seen == set(range(len(names)))
    order = likeness.axes[0].order
    assert page.locator("#order span").all_inner_texts() == [names[n] for n in order]
    page.focus("#likeness")
    page.keyboard.press("ArrowRight")
    pair = likeness.values[order[0], order[1]].item()
    told = page.inner_text("#readout")
    assert told.startswith(f"{names[order[0]]} (layer") and told.endswith(f" · {float(f'{pair:.3g}'):g} nats")
    page.click("#switch-theme")
    fills = page.eval_on_selector_all("#head-map circle", "all => all.map(one => getComputedStyle(one).fill)")
    assert len(set(fills)) == 2
    box = page.locator("#head-map circle").first.bounding_box()
    page.click("#switch-language")
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert "第 0 层" in page.inner_text("#readout")


def test_a_likeness_that_is_known_gives_the_same_map():
    trace = self_trace(["a", "b", "c", "d"])
    alone, given = av.head_map(trace), av.head_map(trace, likeness=av.head_correlation(trace, method="js"))
    torch.testing.assert_close(alone.values, given.values, rtol=0, atol=0)
    for wrong in (av.head_correlation(trace), av.head_correlation(self_trace(["a"], heads=2), method="js")):
        with pytest.raises(ArgumentError, match="of these 6 heads"):
            av.head_map(trace, likeness=wrong)


def test_statistics_of_other_heads_are_refused():
    other = av.head_statistics(self_trace(["a", "b"]))
    with pytest.raises(ArgumentError, match="of the same 5 heads"):
        head_map_view(places(), statistics=other)
    with pytest.raises(ArgumentError, match="stack chooses"):
        av.head_map_view(places(), stack="encoder")
    assert "dimension" not in av.head_map_view(places()).how_to_read


def test_heads_without_a_place_are_named_and_many_names_are_left_to_hovering():
    result = places()
    result.values[3] = NAN
    assert "L1H0" in head_map_view(result).how_to_read
    many = head_map_view(places(90)).html
    assert many.count("<circle") == 90 and "<text" not in many


def test_one_head_is_drawn(tmp_path):
    assert head_map_view(places(1)).save(tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["svg", "png", "pdf"])
def test_files_for_papers(tmp_path, name):
    start = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[name]
    for view in (head_map_view(places(), title="$x_{$ 标题"), roles_view(roles())):
        assert view.save(tmp_path / f"x.{name}").read_bytes().startswith(start)


def test_other_results_are_refused():
    with pytest.raises(ArgumentError, match="statistic, layer, head"):
        roles_view(places())
    with pytest.raises(ArgumentError, match="got head \\(5\\), statistic \\(1\\)"):
        head_map_view(places(dimensions=1))
    with pytest.raises(ArgumentError, match="head, statistic"):
        head_map_view(roles())
    nowhere = places()
    nowhere.values[:] = NAN
    with pytest.raises(ArgumentError, match="NaN alone"):
        head_map_view(nowhere)
