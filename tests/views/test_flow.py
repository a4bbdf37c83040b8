"""The graph of contributions, asked through the DOM of a real Chromium; its paths against loops."""

import re

import pytest
import torch

import hf_attnviz as av
from hf_attnviz.analysis.rollout import layer_by_layer
from hf_attnviz.errors import ArgumentError, NotKeptError, UnknownNameError
from hf_attnviz.language import Text, set_language
from hf_attnviz.views.flow import Mixing, carried, graph_view, paths
from tests.models import ids, tiny
from tests.views.builders import self_trace, translation, without_weights

browser = pytest.mark.browser
HOSTILE = ["</script><script>ran()</script>", "<img src=x onerror=ran()>", "$x_1$", "a\u202eb", "\x00", "\x1b[m", "鸭"]


@pytest.fixture(autouse=True)
def english():
    set_language("en")


def causal(texts: list[str], **options: object) -> av.Trace:
    return self_trace(texts, causal=True, stack="decoder", **options)  # type: ignore[arg-type]


def layers_of(trace: av.Trace) -> list[torch.Tensor]:
    """Each layer's mean over heads with half of the residual, by hand."""
    return [(m.weights.mean(0) + torch.eye(len(m.keys))) / 2 for m in trace.maps]


def numbers(text: str) -> list[float]:
    return [float(one) for one in re.findall(r"(?<![\w(.])\d\.\d+|(?<![\w(.])\d(?= of)", text)]


@browser
def test_a_dot_tells_its_share_and_what_it_takes(open_page):
    trace = causal(["I", "love", "Peking", "duck"])
    below, above = layers_of(trace)
    page = open_page(av.flow_view(trace))
    page.focus("#graph svg")
    assert page.inner_text("#readout").startswith("duck (3), after layer 1 · 1 of duck (3) · takes of duck (3) ")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    told = page.inner_text("#readout")
    assert told.startswith("Peking (2), after layer 0 · ")
    taken = sorted(below[2].tolist(), reverse=True)[:3]
    assert numbers(told) == pytest.approx([above[3, 2].item(), *taken], abs=6e-4)
    rolled = (above @ below)[3]
    rows = page.locator("#inputs tbody tr")
    for row in rows.all():
        place, token, share, _ = row.locator("td").all_inner_texts()
        assert token == trace.decoder.keys.texts[int(place)]
        assert float(share) == pytest.approx(rolled[int(place)].item(), abs=6e-4)
    assert rows.count() == 4


@browser
def test_the_threshold_leaves_lines_out_and_says_what_the_others_carry(open_page):
    trace = causal(["I", "love", "Peking", "duck"], layers=3)
    page = open_page(av.flow_view(trace, threshold=0.2))
    values = torch.stack(layers_of(trace)).double().numpy()
    wanted, _ = paths(values, 3, 0.2)
    assert page.locator("#graph .edge").count() == len(wanted)
    share = float(re.search(r"them ([\d.]+) %", page.inner_text("#shown"))[1]) / 100
    assert share == pytest.approx(carried(wanted, 3), abs=6e-4)
    page.focus("#threshold")
    page.keyboard.press("Home")  # the least
    assert page.locator("#graph .edge").count() > len(wanted)
    assert float(page.inner_text("#threshold-number")) == 0.001
    page.keyboard.press("End")
    assert page.locator("#graph .edge").count() < len(wanted)


def test_paths_are_those_that_plain_recursion_finds():
    values = torch.stack(layers_of(causal(list("abcde"), layers=3))).double().numpy()

    def into(level: int, query: int, share: float, found: dict) -> float:
        if level < 0:
            return share
        arrived = 0.0
        for key in range(5):
            contribution = values[level, query, key]
            if contribution >= 0.1:
                place = (level, query, key)
                found[place] = found.get(place, 0.0) + share * contribution
                arrived += into(level - 1, key, share * contribution, found)
        return arrived

    found: dict = {}
    arrived = into(2, 4, 1.0, found)
    edges, shares = paths(values, 4, 0.1)
    assert {(edge.level, edge.query, edge.key) for edge in edges} == set(found)
    assert carried(edges, 4) == pytest.approx(arrived)
    assert shares.sum(1) == pytest.approx([1, 1, 1, 1])
    assert shares[0] == pytest.approx((values[2] @ values[1] @ values[0])[4])


@browser
def test_any_dot_can_be_chosen_and_escape_shows_every_layer(open_page):
    trace = causal(["I", "love", "Peking", "duck"])
    page = open_page(av.flow_view(trace, threshold=0.001))
    page.focus("#graph svg")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    assert page.inner_text("#shown").startswith("Paths into Peking (2), after layer 0: 3 / 3 lines; along them 100 %")
    assert page.inner_text("#inputs-name") == "What Peking (2), after layer 0, is made of at the input"
    page.keyboard.press("Escape")
    assert page.inner_text("#shown").startswith(
        "Every layer by itself, between different tokens: 12 / 12 lines, 100 % of"
    )
    assert not page.locator("#inputs").is_visible()
    page.click("#back")
    box = page.locator("#graph .ring").bounding_box()
    page.mouse.move(box["x"] - 40, box["y"] + box["height"] / 2)  # the line that stays on its token
    told = page.inner_text("#readout")
    own = layers_of(trace)[1][3, 3].item()
    assert told.startswith("layer 1: duck (3) → duck (3) · contribution ") and numbers(told)[0] == pytest.approx(
        own, abs=6e-4
    )
    lefts = page.eval_on_selector_all("#graph .left", "all => all.map(one => one.firstChild.textContent)")
    assert lefts == ["I", "love", "Peking", "duck"]


@browser
def test_stacks_are_a_menu_and_words_follow_the_language(open_page):
    page = open_page(av.flow_view(translation()))
    assert page.locator("#stack option").all_inner_texts() == ["Encoder", "Decoder"]
    assert page.inner_text("#shown").startswith("Paths into Der (0), after layer 2")
    page.select_option("#stack", "1")
    page.locator("#shown", has_text="dog (2)").wait_for()
    page.click("#switch-language")
    assert page.inner_text("#shown").startswith("通向 dog (2)（第 1 层之后） 的路径")


@browser
def test_of_a_long_text_the_largest_are_on_the_page_and_it_says_so(open_page):
    trace = causal([f"w{n}" for n in range(60)])
    one = Mixing(Text("Decoder", "解码器"), layer_by_layer(trace), 59)
    view = graph_view([one], most=60 * 2 * 8)
    assert "of each row of Decoder the 8 largest contributions are here" in view.how_to_read
    page = open_page(view)
    assert "positions without a line are left out" in page.inner_text("#shown")
    best = layers_of(trace)[1][59].topk(5)
    page.focus("#graph svg")
    for value, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        assert f"w{place} ({place}) {float(f'{value:.3g}'):g}" in page.inner_text("#readout")


@browser
def test_names_are_text_and_undefined_rows_are_said(open_page):
    trace = causal(HOSTILE, model=HOSTILE[1])
    trace.maps[1].weights[:, 6] = float("nan")
    page = open_page(av.flow_view(trace))
    lefts = page.eval_on_selector_all("#graph .left", "all => all.map(one => one.firstChild.textContent)")
    assert [text[:4] for text in lefts] == [av.visible(text)[:4] for text in HOSTILE]
    page.click("#switch-theme")
    page.click("#switch-language")
    page.focus("#graph svg")
    assert page.inner_text("#readout").endswith("未定义（NaN）")
    assert page.locator("img, [onerror]").count() == 0
    assert page.title().endswith(HOSTILE[1])


@pytest.mark.parametrize("method", ["norms", "alti"])
def test_norms_and_alti_are_followed_too(method):
    model = tiny("bert")
    with av.capture(model, keep=["maps", "contributions"]) as recording:
        model(ids(1, 5))
    view = av.flow_view(recording.trace, method=method)
    assert method.upper()[:4] in view.title.upper()
    with pytest.raises(NotKeptError, match="contributions"):
        av.flow_view(causal(["a", "b"]), method=method)


@pytest.mark.parametrize("name", ["svg", "png", "pdf"])
@pytest.mark.parametrize("tongue", ["en", "zh"])
def test_files_for_papers(tmp_path, name, tongue):
    set_language(tongue)
    view = av.flow_view(causal(HOSTILE), title=r"$\frac{ </svg><script>")
    path = view.save(tmp_path / f"x.{name}")
    assert path.stat().st_size > 1000
    if name == "svg":
        assert "<script" not in path.read_text(encoding="utf-8")


def test_errors():
    trace = causal(["a", "b"])
    with pytest.raises(UnknownNameError, match="rollout, norms, alti"):
        av.flow_view(trace, method="magic")
    with pytest.raises(UnknownNameError, match="position from -2 to 1, got 2"):
        av.flow_view(trace, query=2)
    with pytest.raises(ArgumentError, match="threshold above 0"):
        av.flow_view(trace, threshold=0)
    with pytest.raises(NotKeptError, match="self-attention stack with every row"):
        av.flow_view(without_weights(trace))
    with pytest.raises(ArgumentError, match="one trace, got 2"):
        av.flow_view([trace, trace])  # type: ignore[arg-type]
    assert not av.pictures()["flow"].suits(without_weights(trace))
