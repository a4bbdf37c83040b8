from dataclasses import replace

import pytest
import torch

import hf_attnviz as av
from hf_attnviz.errors import ArgumentError, UnknownNameError
from hf_attnviz.language import set_language
from hf_attnviz.result import Axis, Result
from hf_attnviz.views import compare_view, correlation_view, heatmap, picture
from tests.views.builders import self_trace
from tests.views.test_heatmap import cell_colours, hover

browser = pytest.mark.browser
NAN = float("nan")


@pytest.fixture(autouse=True)
def english():
    set_language("en")


@pytest.fixture(scope="module")
def around():
    first, second = self_trace(["<b>", "apple", "pie"]), self_trace(["an", "apple", "<b>"], first_layer=0, layers=2)
    return av.compare(first, second, by="word", word="apple")


def numbers(page):
    return page.eval_on_selector_all(
        "#bars tbody tr", "rows => rows.map(row => [...row.querySelectorAll('.number')].map(one => one.textContent))"
    )


def told(value, sign=False):
    text = "0" if abs(value) < 0.0005 else f"{value:.3f}"
    return f"+{text}" if sign and value >= 0.0005 else text.replace("-", "−")


@browser
def test_bars_are_the_mean_over_heads_or_one_head(open_page, around):
    page = open_page(compare_view(around), locale="en-US")
    assert page.locator("#bars tbody th").all_inner_texts() == ["<b>", "apple", "(others)"]
    assert page.locator(".sentence").all_inner_texts() == ["<b> apple pie", "an apple <b>"]
    means = around.values.mean((1, 2))
    wanted = [[told(means[n, word].item(), n == 2) for n in range(3)] for word in range(3)]
    assert numbers(page) == wanted
    page.select_option("#layer", label="1")
    page.select_option("#head", label="2")
    one = around.values[:, 1, 2]
    assert numbers(page) == [[told(one[n, word].item(), n == 2) for n in range(3)] for word in range(3)]
    page.click("#switch-language")
    assert page.locator("#bars tbody th").last.inner_text() == "（其他）"
    assert page.locator("h1").inner_text() == "“apple”在两段文本中看向什么"


@browser
def test_the_bars_grow_with_the_numbers_and_turn_with_the_sign(open_page):
    values = torch.tensor([[0.8, 0.2, 0.0], [0.2, 0.4, NAN], [-0.6, 0.2, NAN]]).view(3, 1, 1, 3)
    axes = (Axis("statistic", ("first", "second", "change")), Axis("layer", ("0",)), Axis("head", ("0",)))
    result = Result(values, (*axes, Axis("query", ("a", "b", "c"))), "comparison by word", {"word": "a"})
    page = open_page(compare_view(result))
    widths = page.eval_on_selector_all("#bars .fill", "f => f.map(e => parseFloat(e.style.width))")
    assert widths == pytest.approx([100, 25, 50, 25, 50, 100 / 6, 0, 0, 0], abs=0.01)
    kinds = page.eval_on_selector_all("#bars td:last-child .fill", "f => f.map(e => e.className)")
    assert kinds[:2] == ["fill less", "fill more"]
    assert numbers(page)[2] == ["0", "–", "–"]
    assert page.locator("#menus label").count() == 0
    assert "Who looks at" in page.inner_text("h1")


@browser
def test_a_change_that_only_grows_is_still_centred_on_zero(open_page):
    first, second = self_trace(["a", "b"]), self_trace(["a", "b"])
    result = av.compare(first, second)
    place = result.axis("statistic").labels.index("change_in_entropy")
    grown = torch.arange(result.values.numel()).reshape(result.values.shape).float()
    page = open_page(heatmap(Result(grown, result.axes, result.method)), color_scheme="light")
    page.select_option("#axis-0", str(place))
    high = grown[place].max().item()
    assert (page.inner_text("#bar-low"), page.inner_text("#bar-high")) == (f"-{high:g}", f"{high:g}")
    assert page.inner_text("#bar-middle") == "0"
    assert page.locator("#axis-0 option").all_inner_texts()[place] == "change: entropy (nats)"
    red, _, blue = (int(part) for part in cell_colours(page, [[1, 2]], (2, 3))[0].split(","))
    assert red > blue
    page = open_page(compare_view(result))
    page.select_option("#axis-0", str(place))
    assert hover(page, 0, 0, (2, 3)).endswith(" · 0")
    assert (page.inner_text("#bar-low"), page.inner_text("#bar-middle")) == ("-1", "0")


@browser
def test_correlations_have_one_scale(open_page):
    values = torch.tensor([[1.0, 0.4], [0.4, 1.0]])
    axes = (Axis("head", ("L0H0", "L0H1")), Axis("other_head", ("L0H0", "L0H1")))
    view = correlation_view(Result(values, axes, "head similarity (pearson)", unit="correlation, −1 to 1"))
    page = open_page(view)
    assert (page.inner_text("#bar-low"), page.inner_text("#bar-high")) == ("-1", "1")
    assert "runs from −1 to 1 in every picture" in view.how_to_read


def panels(view, monkeypatch):
    """The figure behind a view's files."""
    from matplotlib.figure import Figure

    made = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: made.append(figure))
    view.figures["png"]()
    return made[0]


def test_a_figure_says_each_statistic_in_its_own_unit(monkeypatch):
    values = torch.rand(2, 2, 3)
    axes = (Axis("statistic", ("entropy", "change_in_distance")), Axis("layer", ("0", "1")), Axis("head", tuple("012")))
    unit = "nats (entropy), tokens (span, distance), shares (all others)"
    figure = panels(heatmap(Result(values, axes, "head statistics", unit=unit)), monkeypatch)
    titles = [one.get_title() for one in figure.axes if one.get_title()]
    assert titles == ["entropy (nats)", "change: distance (tokens)"]
    assert not [one.get_ylabel() for one in figure.axes if "nats (entropy), tokens" in one.get_ylabel()]
    low, high = next(one for one in figure.axes if one.get_title().startswith("change")).images[0].get_clim()
    assert low == -high


def test_a_long_unit_stands_once_under_the_figure(monkeypatch):
    axes = (Axis("head", ("L0H0", "L0H1")), Axis("other_head", ("L0H0", "L0H1")))
    result = Result(torch.eye(2), axes, "head similarity (hellinger)", unit="squared distance, 0 to 1")
    figure = panels(heatmap(result), monkeypatch)
    assert figure.get_supxlabel() == "Unit: squared distance, 0 to 1"
    assert figure.axes[-1].get_ylabel() == ""


@browser
def test_two_traces_are_compared_and_whole_maps_begin_with_the_change(open_page):
    first, second = self_trace(["an", "apple", "pie"]), self_trace(["an", "apple", "pie"], heads=3)
    second = replace(second, maps=tuple(replace(m, kept_weights=m.weights.flip(0)) for m in second.maps))
    page = open_page(av.compare_view(first, second, by="word"))
    assert page.locator("#axis-0 option").all_inner_texts() == ["change", "first", "second"]
    told = hover(page, 1, 2, (3, 3))
    change = second.encoder.head(1, 0)[1, 2] - first.encoder.head(1, 0)[1, 2]
    assert float(told.split(" · ")[-1].split()[0]) == pytest.approx(change.item(), rel=1e-3)
    low, high = float(page.inner_text("#bar-low")), float(page.inner_text("#bar-high").split()[0])
    assert low == -high < 0 and page.inner_text("#bar-middle") == "0"
    page.select_option("#axis-0", label="second")
    told = hover(page, 1, 2, (3, 3))
    assert float(told.split(" · ")[-1].split()[0]) == pytest.approx(second.encoder.head(1, 0)[1, 2].item(), rel=1e-3)


def test_whole_maps_that_are_too_many_fall_back_and_say_so():
    first, second = self_trace(["an", "apple"]), self_trace(["an", "apple"], heads=3)
    mean = av.compare_view(first, second, by="word", max_numbers=70)
    assert "the mean over all heads of all layers is compared" in mean.how_to_read
    alone = av.compare_view(first, second, by="word", max_numbers=4)
    assert "only the change is drawn" in alone.how_to_read
    assert "Too much" not in av.compare_view(first, second, by="word", layer=1, max_numbers=70).how_to_read
    assert "in two texts" in av.compare_view(first, second, by="word", word="apple").title


def test_a_comparison_needs_two_traces_or_a_result(around):
    one = self_trace(["an", "apple"])
    with pytest.raises(ArgumentError, match="got one"):
        av.compare_view(one)
    with pytest.raises(ArgumentError, match="as it is"):
        av.compare_view(around, one)
    with pytest.raises(UnknownNameError, match="layer 7"):
        av.compare_view(one, one, layer=7)


@pytest.mark.parametrize("name", ["svg", "png", "pdf"])
def test_files_for_papers(tmp_path, around, name):
    start = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[name]
    assert compare_view(around, title=r"$\frac{ 苹果").save(tmp_path / f"x.{name}").read_bytes().startswith(start)


def test_what_is_no_comparison_is_refused(around):
    with pytest.raises(ArgumentError, match=r"result of compare\(first, second\), got 'head statistics'"):
        compare_view(av.head_statistics(self_trace(["a", "b"])))


def test_each_result_has_the_picture_that_suits_it(around):
    one = self_trace(["a", "b"], stack="decoder", causal=True)
    assert "in two texts" in picture(around).title
    assert "diagonal is each head" in picture(av.head_correlation(one)).how_to_read
    assert picture(av.rollout(one)).title == "Attention rollout"
    steps = (Axis("statistic", ("drift",)), Axis("step", ("0 → x",)), Axis("layer", ("0",)), Axis("head", ("0",)))
    assert "decoding steps" in picture(Result(torch.ones(1, 1, 1, 1), steps, "evolution")).how_to_read


def test_a_whole_trace_is_no_heat_map():
    with pytest.raises(ArgumentError, match=r"whole trace: pass one of its layers \(trace\.encoder\.layer\(0\)\)"):
        heatmap(self_trace(["a"]))
    with pytest.raises(ArgumentError, match=r"whole stack: pass one of its layers \(trace\.encoder\.layer\(3\)\)"):
        heatmap(self_trace(["a"], first_layer=3).encoder)


def test_a_report_is_about_one_trace():
    with pytest.raises(ArgumentError, match=r"one trace, got list: call it for each"):
        av.report([self_trace(["a"])])
