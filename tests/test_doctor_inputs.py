"""The doctor at the command line: it reads what a user has, and says what it found so that nobody overlooks it."""

import json
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

import hf_attnviz as av
from hf_attnviz import printing
from tests import model_folders
from tests.models import ids, tiny

COLOURS = {"green": "\x1b[32m", "yellow": "\x1b[33m", "red": "\x1b[31m", "cyan": "\x1b[36m"}

# the model -> what it is given when nothing is said, and the maps that ran: stack, kind, how many layers
DEFAULTS: dict[str, tuple[str, dict[tuple[str, str], int]]] = {
    "vit": ("pixel_values 1×3×32×32", {("vision", "self"): 2}),
    "detr": (
        "pixel_mask 1×64×85, pixel_values 1×3×64×85",
        {("encoder", "self"): 2, ("decoder", "self"): 2, ("decoder", "cross"): 2},
    ),
    "video": ("pixel_values 1×4×3×32×32", {("vision", "self"): 2}),
    "wav2vec2": ("input_values 1×16000, attention_mask 1×16000", {("audio", "self"): 2}),
    "wav2vec2 with letters": ("input_values 1×16000, attention_mask 1×16000", {("audio", "self"): 2}),
    "whisper": (
        "input_features 1×16×100",
        {("encoder", "self"): 2, ("decoder", "self"): 2, ("decoder", "cross"): 2},
    ),
    "clip": (
        "input_ids 1×22, attention_mask 1×22, pixel_values 1×3×32×32",
        {("vision", "self"): 2, ("text", "self"): 2},
    ),
    "llava": (
        "input_ids 1×46, attention_mask 1×46, pixel_values 1×3×32×32",
        {("vision", "self"): 2, ("decoder", "self"): 2},
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    """Gives the folder of a tiny model, made when it is first asked for."""
    made: dict[str, Path] = {}

    def give(name: str) -> Path:
        if name not in made:
            made[name] = model_folders.saved(name, tmp_path_factory.mktemp("models"))
        return made[name]

    return give


def diagnosed(run: Any, capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, Any]:
    """What the doctor says as JSON; its exit status must say the same."""
    status = run("doctor", *map(str, words), "--json")
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert status == (0 if found["ok"] else 1)
    return found


def picture(path: Path) -> Image.Image:
    """A picture that is no gradient, written to a file."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return Image.fromarray(pixels)


# ---- what it reads


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_harmless_input_is_made_for_every_kind_of_model(
    attnviz, folder, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = diagnosed(attnviz, capsys, folder(name))
    given, maps = DEFAULTS[name]
    assert found["ok"]
    assert found["given"] == given
    places = [(one["stack"], one["kind"]) for one in found["findings"]]
    assert {place: places.count(place) for place in places} == maps
    assert {one["grade"] for one in found["findings"]} == {"exact"}


@pytest.mark.parametrize("name", ["vit", "video", "wav2vec2", "whisper"])
def test_it_needs_no_processor(attnviz, folder, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in folder(name).iterdir():
        if path.name in ("config.json", "generation_config.json", "model.safetensors"):
            (tmp_path / "bare").mkdir(exist_ok=True)
            (tmp_path / "bare" / path.name).write_bytes(path.read_bytes())
    found = diagnosed(attnviz, capsys, tmp_path / "bare")
    assert found["ok"]
    assert found["given"] == DEFAULTS[name][0].split(", ")[0]


def test_a_picture_is_read_by_the_models_own_processor(folder, tmp_path: Path) -> None:
    loaded = av.load_model(folder("vit"))
    expected = loaded.processor(images=picture(tmp_path / "cat.png"), return_tensors="pt")["pixel_values"]
    seen: list[torch.Tensor] = []
    loaded.model.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append(kwargs["pixel_values"]), with_kwargs=True
    )
    assert av.doctor(loaded.model, tmp_path / "cat.png", loaded.processor).ok
    assert len(seen) == 2  # plain and captured
    assert all(torch.equal(one, expected) for one in seen)


def test_what_is_read_is_as_precise_as_the_model(folder, tmp_path: Path) -> None:
    loaded = av.load_model(folder("vit"))
    picture(tmp_path / "cat.png")
    found = av.doctor(loaded.model.to(torch.bfloat16), tmp_path / "cat.png", loaded.processor)
    assert found.ok


@pytest.mark.parametrize(("width", "channels", "rate"), [(1, 1, 16_000), (2, 2, 16_000), (2, 1, 8_000), (4, 1, 16_000)])
def test_a_sound_is_read_at_the_models_rate(folder, tmp_path: Path, width: int, channels: int, rate: int) -> None:
    """A tone of 100 Hz, in whatever width, channels and rate, is the same tone to the model."""
    tone = 0.5 * np.sin(2 * np.pi * 100 * np.arange(rate) / rate)
    whole = np.round(tone * (2 ** (8 * width - 1) - 1)).astype(np.int64) + (128 if width == 1 else 0)
    with wave.open(str(tmp_path / "tone.wav"), "wb") as file:
        file.setparams((channels, width, rate, rate, "NONE", ""))
        file.writeframes(np.repeat(whole, channels).astype(f"{'u' if width == 1 else 'i'}{width}").tobytes())
    loaded = av.load_model(folder("wav2vec2"))
    loaded.processor.do_normalize = False
    seen: list[torch.Tensor] = []
    loaded.model.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append(kwargs["input_values"]), with_kwargs=True
    )
    assert av.doctor(loaded.model, tmp_path / "tone.wav", loaded.processor).ok
    expected = 0.5 * np.sin(2 * np.pi * 100 * np.arange(16_000) / 16_000)
    inner = slice(200, -200)  # a filter that changes the rate rings at the ends
    worst = np.abs(seen[0][0].numpy() - expected)[inner].max()
    assert worst < (0.01 if width == 1 else 0.002)


@pytest.mark.parametrize("kind", ["json", "safetensors"])
def test_named_tensors_are_the_arguments_of_one_forward(
    attnviz, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = {"input_ids": [[5, 6, 7]], "attention_mask": [[1, 1, 0]]}
    if kind == "json":
        (tmp_path / "x.json").write_text(json.dumps(tokens | {"use_cache": False}))
    else:
        save_file({name: torch.tensor(one) for name, one in tokens.items()}, tmp_path / "x.safetensors")
    found = diagnosed(attnviz, capsys, "induction", "--input", f"x.{kind}")
    assert found["ok"]
    assert sorted(found["given"].split(", ")) == ["attention_mask 1×3", "input_ids 1×3"]
    assert {one["calls"] for one in found["findings"]} == {1}  # no generate()


def test_a_text_is_a_text_by_either_name(attnviz, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "words.txt").write_text("sun moon sun", encoding="utf-8")
    asked = (["--text", "sun moon sun"], ["--input", "sun moon sun"], ["--input", "words.txt"])
    found = [diagnosed(attnviz, capsys, "induction", *words) for words in asked]
    assert found[0]["given"].startswith("input_ids 1×4")
    assert found[0] == found[1] == found[2]
    assert max(one["calls"] for one in found[0]["findings"]) > 1  # decoding steps are proved too


@pytest.mark.parametrize("name", ["clip", "llava"])
def test_words_stand_beside_a_picture(
    attnviz, folder, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "cat.png")
    both = [
        diagnosed(attnviz, capsys, folder(name), "--input", "cat.png", "--input", text) for text in ("cat", "cat cat")
    ]
    assert all(found["ok"] for found in both)
    assert both[0]["given"] != both[1]["given"]
    assert all("pixel_values 1×3×32×32" in found["given"] for found in both)


BAD = {
    "no such file": ("induction", ["no.png"], "there is no file 'no.png'"),
    "no picture inside": ("vit", ["broken.png"], "'broken.png' could not be read"),
    "no sound inside": ("wav2vec2", ["broken.wav"], "'broken.wav' could not be read"),
    "no tensors inside": ("vit", ["broken.safetensors"], "holds no named tensors"),
    "a list in the file": ("vit", ["list.json"], "holds no named tensors"),
    "unknown ending": ("vit", ["data.bin"], "they end in .png"),
    "a picture for a text model": ("induction", ["cat.png"], "nothing that reads a picture"),
    "a sound for a picture model": ("vit", ["tone.wav"], "nothing that reads a sound"),
    "a text for a picture model": ("vit", ["the cat"], "came without a tokenizer"),
    "two texts": ("induction", ["sun", "moon"], "expected one text, got two"),
    "tensors and words": ("induction", ["good.json", "sun"], "give it alone"),
    "tensors of another model": ("vit", ["good.json"], "itself cannot run on this input"),
    "words only": ("clip", ["the cat"], "itself cannot run on this input"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_is_told(
    attnviz, folder, case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "cat.png")
    with wave.open(str(tmp_path / "tone.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 100, "NONE", ""))
        file.writeframes(bytes(200))
    for name in ("broken.png", "broken.wav", "broken.safetensors", "data.bin"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "good.json").write_text('{"input_ids": [[5, 6]]}')
    model, given, expected = BAD[case]
    name = model if model in av.zoo.names() else str(folder(model))
    assert attnviz("doctor", name, *(word for one in given for word in ("--input", one))) == 1
    said = capsys.readouterr().err
    assert expected in said
    assert "Traceback" not in said


# ---- what it says


class Gate(torch.nn.Module):
    """Attends by a sigmoid, which only a statement can tell."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        self.weights = torch.sigmoid(hidden @ hidden.transpose(-1, -2))
        return self.weights @ hidden


def shown(found: av.Diagnosis, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", "160")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    printing.print_diagnosis(found)
    return capsys.readouterr().out


def coloured(said: str, colour: str) -> str:
    return "\n".join(line for line in said.splitlines() if COLOURS[colour] in line)


def test_a_statement_is_shown_as_unproved(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    model = torch.nn.Sequential(Gate())
    with av.register_attention(Gate, extract=lambda module, *_: module.weights[:, None]):
        found = av.doctor(model, {"input": torch.randn(1, 4, 8)})
    said = shown(found, monkeypatch, capsys)
    assert not found.ok
    assert "stated, not proved" in coloured(said, "yellow")
    assert "0 of 1 maps proved exact; 1 stated, not proved; output" in said


def test_what_is_refused_stands_in_red_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def shifted(module: Any, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
        return sdpa_attention_forward(module, *args, **kwargs)[0] + 1, None

    AttentionInterface.register("shifted", shifted)
    try:
        found = av.doctor(tiny("gpt2", "shifted"), {"input_ids": ids(1, 5)})
    finally:
        AttentionInterface._global_mapping.pop("shifted")
    said = shown(found, monkeypatch, capsys)
    red = coloured(said, "red")
    assert not found.ok
    assert [(one.stack, one.layer, one.grade) for one in found.findings] == [
        ("decoder", 0, "refused"), ("decoder", 1, "refused"),
    ]  # fmt: skip
    assert red.count("transformer.h.0.attn") == 2  # the row, and the reason
    assert "off by" in red
    assert "0 of 2 maps proved exact; 2 refused; output" in said


def test_what_is_no_attention_stands_calmly_by_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.capturing.test_families import HYBRID, made

    found = av.doctor(made("Qwen3Next", "Model", HYBRID), {"input_ids": ids(1, 7)})
    said = shown(found, monkeypatch, capsys)
    assert found.ok
    assert "layers.1.self_attn" in coloured(said, "green")
    assert "linear attention by the delta rule" in coloured(said, "cyan")
    assert not coloured(said, "red")
    assert "1 of 1 maps proved exact; 1 named as no attention; output" in said
    av.set_language("zh")
    try:
        assert "1 张图中 1 张已精确核验；另有 1 个模块不是注意力；输出逐位相同：是；模型未被改动：是" in shown(
            found, monkeypatch, capsys
        )
    finally:
        av.language._chosen.clear()


class InTwoThreads(torch.nn.Module):
    """One half runs where it is called, the other in a thread that nobody listens to."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = tiny("bert"), tiny("bert")

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), ThreadPoolExecutor(1) as pool:
            far = pool.submit(self.far, input_ids).result().last_hidden_state
        near: torch.Tensor = self.near(input_ids).last_hidden_state
        return near + far


def test_what_runs_unseen_is_no_success(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = av.doctor(InTwoThreads(), {"input_ids": ids(1, 5)})
    assert {one.grade for one in found.findings} == {"exact"}
    assert not found.ok
    assert "far.encoder.layer.0.attention.self" in found.reason
    assert found.reason in shown(found, monkeypatch, capsys)


def test_hooks_that_a_model_hangs_on_itself_are_no_change(folder) -> None:
    """LLaVA asks its tower for hidden states, for which transformers hangs hooks on it when it first runs."""
    loaded = av.load_model(folder("llava"))
    assert not any(part._forward_hooks for part in loaded.model.modules())
    assert av.doctor(loaded.model, None, loaded.processor).unchanged
    assert any(part._forward_hooks for part in loaded.model.modules())
