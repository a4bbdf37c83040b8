import re
from html import unescape
from io import BytesIO
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from matplotlib.image import imread

from hf_attnviz.language import set_language
from hf_attnviz.views import head_view, model_view, neuron_view
from hf_attnviz.views.groups import groups
from hf_attnviz.views.line_figures import COLOURS, all_heads_figure, one_layer_figure
from tests.views.builders import self_trace, translation

HOSTILE = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "$x_1$", "\u202e\x00\x1b[31m", "北京"]


@pytest.fixture(autouse=True)
def english():
    set_language("en")


def lines_of(figure):
    (axes,) = figure.axes
    (lines,) = axes.collections
    return np.array(lines.get_segments()), np.array(lines.get_colors())


def test_each_line_joins_its_tokens_with_the_strength_of_its_weight():
    trace = self_trace(["a", "b", "c"], layers=2, heads=3)
    (group,) = groups(trace, None)
    ends, colours = lines_of(one_layer_figure(group, 1, [0, 2], "t", ()))
    weights = trace.encoder.maps[1].weights
    for head in (0, 2):
        for query in range(3):
            for key in range(3):
                here = (ends[:, 0] == (0, query)).all(-1) & (ends[:, 1] == (1, key)).all(-1)
                strengths = [
                    c[3]
                    for c in colours[here]
                    if "#" + "".join(f"{round(v * 255):02x}" for v in c[:3]) == COLOURS[head]
                ]
                wanted = float(weights[head, query, key]) / 2
                assert strengths == pytest.approx([wanted] if wanted > 1 / 510 else [])


def test_every_head_has_its_place_in_the_grid():
    trace = self_trace(["a", "b"], layers=2, heads=3, first_layer=4)
    (group,) = groups(trace, None)
    figure = all_heads_figure(group, "t", ())
    ends, colours = lines_of(figure)
    for row in range(2):
        for column in range(3):
            inside = (ends[:, 0, 0] == column) & (ends[:, 0, 1] == row) & (ends[:, 1, 1] == row)
            assert colours[inside, 3] == pytest.approx(float(trace.encoder.maps[row].weights[column, 0, 0]))
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["4", "5"]


@pytest.mark.parametrize(("view", "language"), [(head_view, "en"), (model_view, "zh"), (neuron_view, "zh")])
def test_hostile_text_stays_text_in_every_format(view, language, tmp_path):
    set_language(language)
    drawn = view(self_trace(HOSTILE, model="$m$<b>&</script>", size=4), hide="sink")
    svg = drawn.save(tmp_path / "x.svg").read_text(encoding="utf-8")
    ET.fromstring(svg)
    assert "<script" not in svg
    assert "onerror" not in re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    assert not set(svg) & set("\x00\x1b\u202e")
    assert drawn.save(tmp_path / "x.pdf").read_bytes().startswith(b"%PDF")
    picture = imread(BytesIO(drawn.save(tmp_path / "x.png").read_bytes()))[..., :3]
    assert picture.min() < 0.4


def test_cross_attention_is_what_a_translator_is_asked_for(tmp_path):
    path = head_view(translation()).save(tmp_path / "x.svg")
    comments = [unescape(one) for one in re.findall(r"<!-- (.*?) -->", path.read_text(encoding="utf-8"))]
    assert [c for c in comments if c in ("<s>", "The", "dog")] == ["<s>", "The", "dog"]
    assert "Cross: decoder to encoder, layer 0" in comments


def test_many_lines_are_an_image_inside_the_file(tmp_path):
    trace = self_trace([f"t{n}" for n in range(100)], layers=3, heads=8)
    svg = model_view(trace).save(tmp_path / "x.svg").read_text(encoding="utf-8")
    assert "<image" in svg
    assert len(svg) < 3_000_000
    assert "Lines fainter than" in svg


def test_a_long_text_stays_a_page_and_names_every_nth_token():
    (group,) = groups(self_trace([f"t{n}" for n in range(600)], layers=1, heads=1, causal=True), None)
    figure = one_layer_figure(group, 0, [0], "t", ())
    assert figure.get_figheight() < 20
    named = [text.get_text() for text in figure.axes[0].texts]
    assert ("t0" in named, "t1" in named, "t594" in named) == (True, False, True)
