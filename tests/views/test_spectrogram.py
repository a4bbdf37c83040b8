"""A sound and what a transcript looked at in it: times, numbers and words, in a real browser."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers

import hf_attnviz as av
from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.drawing.spectrogram import has_speech
from hf_attnviz.errors import ArgumentError, UnknownNameError
from hf_attnviz.labels import Labels, Segment
from hf_attnviz.language import set_language
from hf_attnviz.trace import Trace
from hf_attnviz.views.log_mel import log_mel
from tests.capturing import pipes
from tests.test_analysis_word_times import HEADS, SECONDS, heard, processor, transcript  # noqa: F401 - a fixture
from tests.views.builders import translation
from tests.views.test_overlay import HOSTILE

browser = pytest.mark.browser
RATE = 16_000


@pytest.fixture(autouse=True)
def english():
    set_language("en")


def spoken(texts: list[str], at: list[float], *, total: float = 3.0, layers: int = 2, begins: float = 0.0) -> Trace:
    """Each token looks at a few frames from its own second on; layers and heads differ a little."""
    count = round(total / 0.02)
    marks = [Segment("frame", n, n + 1, seconds=(begins + 0.02 * n, begins + 0.02 * n + 0.02)) for n in range(count)]
    frames = Labels.of([str(n) for n in range(count)], [None] * count, [None] * count, marks)
    queries = Labels.plain(["<|start|>", *texts[:-1]])
    maps = []
    for layer in range(layers):
        weights = torch.full((2, len(texts), count), 0.001)
        for row, second in enumerate(at):
            weights[:, row, round(second / 0.02) : round(second / 0.02) + 10] = 0.3
            weights[:, row, round(second / 0.02) + 2 + layer] = 1.0
        weights[1] += 0.002 * (layer + 1)
        weights = weights / weights.sum(-1, keepdim=True)
        maps.append(
            AttentionMap(
                weights, queries, frames, "decoder", layer, kind="cross", produced=tuple(texts),
                steps=tuple(range(len(texts))),
            )
        )  # fmt: skip
    return Trace(tuple(maps), model="tiny-whisper")


WORDS, AT = ["I", "eat", "duck", "<|endoftext|>"], [0.2, 0.8, 1.4, 2.4]


def frame_at(page: Any, token: int, second: float, total: float = 3.0, count: int = 4) -> str:
    box = page.locator("#heat").bounding_box()
    page.mouse.move(box["x"] + box["width"] * second / total, box["y"] + box["height"] * (token + 0.5) / count)
    return str(page.inner_text("#readout"))


@browser
def test_hover_tells_second_token_weight_and_word(open_page):
    trace = spoken(WORDS, AT)
    heads = [(0, 0), (1, 1)]
    page = open_page(av.spectrogram_view(trace, pipes.sound(3.0), sampling_rate=RATE, heads=heads, seconds=3.0))
    times = av.word_times(trace, heads=heads, seconds=3.0)
    assert page.locator("#words span").all_inner_texts() == ["I", "eat", "duck"]
    spot = page.locator("#words span").nth(1).bounding_box()["x"] - page.locator("#heat").bounding_box()["x"]
    width = page.locator("#heat").bounding_box()["width"]
    assert spot / width * 3 == pytest.approx(float(times.values[0, 1]), abs=0.01)
    said = frame_at(page, 1, 0.87)
    token, time, number, word = said.split(" · ")
    assert (token, time) == ("eat", f"{0.02 * 43:.2f}–{0.02 * 44:.2f} s")
    wanted = torch.stack([trace.cross.head(layer, head)[1, 43] for layer, head in heads]).mean()
    assert float(number) == pytest.approx(float(wanted), abs=0.004)
    assert word.startswith("in eat (") and page.locator("#words .current").inner_text() == "eat"
    page.mouse.click(*[page.locator("#heat").bounding_box()[k] + 5 for k in ("x", "y")])
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#readout").startswith("eat · ")
    assert page.locator("#token-labels .chosen").inner_text() == "eat"


@browser
def test_the_strongest_frame_on_the_canvas_is_at_its_second(open_page):
    """Read off the canvas, row by row: the darkest column stands at the second that was planted."""
    trace = spoken(WORDS, AT, layers=1)
    page = open_page(av.spectrogram_view(trace, layer=0, head=0), color_scheme="light")
    darkest = page.evaluate(
        """(rows) => {
            const canvas = document.getElementById("heat");
            const {width, height} = canvas;
            const all = canvas.getContext("2d").getImageData(0, 0, width, height).data;
            return Array.from({length: rows}, (_, row) => {
                const y = Math.floor((row + 0.5) * height / rows);
                const data = all.subarray(y * width * 4, (y + 1) * width * 4);
                const light = Array.from({length: width}, (_, x) => data[x * 4] + data[x * 4 + 1] + data[x * 4 + 2]);
                const least = Math.min(...light);
                const dark = light.flatMap((value, x) => (value === least ? [x] : []));
                return 3 * (dark[0] + dark[dark.length - 1] + 1) / 2 / width;
            });
        }""",
        4,
    )
    assert darkest == pytest.approx([second + 0.05 for second in AT], abs=0.011)


@browser
def test_menus_and_both_languages(open_page):
    trace = spoken(["我", "爱", "鸭", "<|endoftext|>"], AT)
    page = open_page(av.spectrogram_view(trace, pipes.sound(3.0), sampling_rate=RATE))
    assert page.locator("#outer option").all_inner_texts() == ["upper half (a guess)", "mean of all", "0", "1"]
    page.select_option("#outer", label="1")
    page.select_option("#inner", label="1")
    number = float(frame_at(page, 2, 1.47).split(" · ")[2])
    assert number == pytest.approx(float(trace.cross.head(1, 1)[2, 73]), abs=0.004)
    page.click("#switch-language")
    assert page.locator("#inner option").all_inner_texts() == ["各头平均", "0", "1"]
    assert " · 在 " in frame_at(page, 2, 1.47)
    page.click("#switch-theme")
    page.click("#times summary")
    assert page.locator("#time-rows tr").first.inner_text().split() == ["我", *_times(trace)]


def _times(trace: Trace) -> list[str]:
    return [f"{float(value):.2f}" for value in av.word_times(trace, seconds=3.0).values[:, 0]]


@browser
def test_hostile_tokens_stay_text_and_rows_without_weights_are_hatched(open_page, tmp_path):
    trace = spoken([HOSTILE, "b", "c", "<|endoftext|>"], AT, layers=1)
    view = av.spectrogram_view(trace, pipes.sound(3.0), sampling_rate=RATE, title=HOSTILE)
    page = open_page(view)
    assert page.locator("img, [onerror]").count() == 0
    assert frame_at(page, 0, 0.3).startswith("</script><img src=x onerror=ran()>$x_1$⟨U+0000⟩")
    assert "<img" not in view.save(tmp_path / "x.svg").read_text()
    for name in ("png", "pdf"):
        assert view.save(tmp_path / f"x.{name}").stat().st_size > 2000


def test_whisper_from_its_samples_and_from_its_features(processor: Any) -> None:  # noqa: F811
    """Two seconds are read, 1.3 are sound: the silence that fills them up is not drawn."""
    trace = transcript(processor, 27)
    assert has_speech(trace) and not has_speech(translation())
    samples = pipes.sound(SECONDS, 1)
    given = av.spectrogram_view(trace, samples, sampling_rate=RATE, heads=HEADS)
    assert "Only the heads given" in given.how_to_read and "silence" not in given.how_to_read
    features = heard(processor)["input_features"]
    seen = av.spectrogram_view(trace, features, heads=HEADS, seconds=SECONDS)
    assert '"columns":130' in given.html and '"columns":130' in seen.html
    assert '"bands":80' in given.html and '"bands":16' in seen.html
    assert "silence" in av.spectrogram_view(trace, features).how_to_read


def test_a_later_stretch_of_a_recording_is_cut_out_of_it() -> None:
    """Frames from second 20 on, and a whole recording of 22 seconds: its last two are drawn."""
    trace = spoken(WORDS, AT, begins=20.0)
    html = av.spectrogram_view(trace, pipes.sound(22.0), sampling_rate=RATE).html
    assert '"columns":200' in html and '"begins":20.0,"ends":22.0' in html
    with pytest.raises(ArgumentError, match="the whole recording|some seconds of sound"):
        av.spectrogram_view(trace, pipes.sound(2.0), sampling_rate=RATE)


def test_the_log_mel_spectrogram_is_that_of_whisper() -> None:
    """Against the feature extractor of transformers, which has windows, filters and logarithms of its own."""
    samples = pipes.sound(2.0, 3)
    reader = transformers.WhisperFeatureExtractor(chunk_length=2)
    wanted = reader(samples, sampling_rate=RATE, return_tensors="np")["input_features"][0]
    np.testing.assert_allclose(log_mel(samples.astype(np.float64), RATE), wanted, atol=1e-4)


def test_what_is_no_sound_is_refused() -> None:
    trace = spoken(WORDS, AT)
    with pytest.raises(ArgumentError, match="sampling_rate"):
        av.spectrogram_view(trace, pipes.sound(3.0))
    with pytest.raises(ArgumentError, match="longer than a window"):
        av.spectrogram_view(trace, np.zeros(100), sampling_rate=RATE)
    with pytest.raises(ArgumentError, match="finite samples"):
        av.spectrogram_view(trace, np.full(RATE, np.nan), sampling_rate=RATE)
    with pytest.raises(ArgumentError, match="cross-attention from text to frames"):
        av.spectrogram_view(translation())
    with pytest.raises(UnknownNameError, match="no layer 7"):
        av.spectrogram_view(trace, layer=7)
