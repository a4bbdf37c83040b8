"""Pictures, sounds and words beside them, from a file to a trace, and at the command line to a page."""

import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import hf_attnviz as av
from hf_attnviz import errors
from tests import model_folders


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 64, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "voice.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((np.sin(np.arange(16_000) / 20) * 20_000).astype("<i2").tobytes())
    return path


def folder(name: str, tmp_path: Path) -> Path:
    return model_folders.saved(name, tmp_path / "models")


def test_a_picture(picture: Path, tmp_path: Path) -> None:
    trace = av.trace_input(av.load_model(str(folder("vit", tmp_path))), picture)
    assert list(trace.stacks) == ["vision"]
    assert trace.vision.keys.cells is not None


def test_words_beside_a_picture(picture: Path, tmp_path: Path) -> None:
    loaded = av.load_model(str(folder("llava", tmp_path)))
    trace = av.trace_input(loaded, [picture, "what is that"], max_new_tokens=3)
    assert {"text", "patch"} <= set(trace.decoder.keys.kinds)
    assert trace.decoder.maps[0].produced is not None


def test_a_sound(sound: Path, tmp_path: Path) -> None:
    trace = av.trace_input(av.load_model(str(folder("whisper", tmp_path))), sound, max_new_tokens=3)
    assert set(trace.cross.keys.kinds) == {"frame"}
    kept = av.trace_input(av.load_model(str(folder("whisper", tmp_path / "2"))), sound, keep="statistics", layers=[1])
    assert not kept.cross.has_weights
    assert kept.cross.layers == (1,)


def test_what_cannot_be_read_is_told(tmp_path: Path, picture: Path) -> None:
    loaded = av.load_model("induction")
    with pytest.raises(errors.ArgumentError, match="nothing that reads a picture"):
        av.trace_input(loaded, picture)
    with pytest.raises(errors.ArgumentError, match="there is no file"):
        av.trace_input(loaded, tmp_path / "none.png")


def test_from_a_file_to_a_page(attnviz: Any, picture: Path, tmp_path: Path, capsys: Any) -> None:
    model = str(folder("vit", tmp_path))
    assert attnviz("view", model, "--input", str(picture), "--view", "model", "-o", "x.html") == 0
    assert "Vision" in Path("x.html").read_text(encoding="utf-8")
    assert attnviz("report", model, "--input", str(picture)) == 0
    assert attnviz("analyse", "head_statistics", model, "--input", str(picture), "-o", "x.csv") == 0
    assert attnviz("view", model, "--input", str(picture), "--pair", "x") == 1
    assert "--pair is for two texts" in capsys.readouterr().err
    assert attnviz("view", model) == 1
    assert "--input FILE" in capsys.readouterr().err
