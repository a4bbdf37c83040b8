"""The labels of pictures and sound, on models that look at the one bright patch or the one loud moment.

Where the bright spot is, is reckoned here from the picture that was made; no code of the package is asked.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import hf_attnviz as av
from hf_attnviz.labels import Labels
from tests.capturing.pointing import look_at_what_changes, redrawn

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
Spot = tuple[int, int]


def picture(size: Spot, spot: Spot | None, side: int = 4) -> torch.Tensor:
    """A dark picture ``[1, 3, rows, columns]`` with a bright square whose upper left corner is at ``spot``."""
    pixels = torch.zeros(1, 3, *size)
    if spot is not None:
        pixels[..., spot[0] : spot[0] + side, spot[1] : spot[1] + side] = 1.0
    return pixels


def image(size: Spot, spot: Spot | None, side: int = 4) -> Image.Image:
    """The same as a file would hold it."""
    pixels = np.zeros((*size, 3), np.uint8)
    if spot is not None:
        pixels[spot[0] : spot[0] + side, spot[1] : spot[1] + side] = 255
    return Image.fromarray(pixels)


def looked_at(m: av.AttentionMap, row: int = -1) -> int:
    """The key that every head of a row looks at most; it takes nearly all of the attention."""
    best = m.weights[:, row].argmax(-1)
    assert (m.weights[:, row].max(-1).values > 0.9).all(), m.weights[:, row].max(-1)
    assert len(set(best.tolist())) == 1
    return int(best[0])


def patch(labels: Labels, place: int) -> tuple[Spot, tuple[int, int], int | None]:
    """Cell, grid and number of the picture of a position that is a patch; its text says the same."""
    mark = labels.marks[place]
    assert mark.kind == "patch" and labels.cells is not None and mark.grid is not None
    cell = labels.cells[place]
    assert cell is not None
    number = "" if mark.part is None else f"#{mark.part} "
    assert labels.texts[place] == f"{number}r{cell[0]} c{cell[1]}"
    return cell, mark.grid, mark.part


def made(kind: str, config: str, **options: Any) -> Any:
    """A model of a kind, from a config of that name."""
    built = getattr(transformers, f"{config}Config")(**options)
    return redrawn(getattr(transformers, kind)._from_config(built))


Q_K = ("q_proj", "k_proj")
TOWERS: dict[str, tuple[Callable[[], Any], str, tuple[str, str], Spot, list[str], list[str]]] = {
    # model, attention of its first block, projections, size of the picture, tokens before the patches, tokens after
    "vit": (lambda: made("ViTModel", "ViT", image_size=(32, 64), patch_size=8, **TINY),
            "layers.0.attention", Q_K, (32, 64), ["[CLS]"], []),
    "deit": (lambda: made("DeiTModel", "DeiT", image_size=(48, 32), patch_size=16, **TINY),
             "layers.0.attention", Q_K, (48, 32), ["[CLS]", "[DIST]"], []),
    "clip": (lambda: made("CLIPVisionModel", "CLIPVision", image_size=32, patch_size=8, **TINY),
             "encoder.layers.0.self_attn", Q_K, (32, 32), ["[CLS]"], []),
    "siglip": (lambda: made("SiglipVisionModel", "SiglipVision", image_size=32, patch_size=8, **TINY),
               "encoder.layers.0.self_attn", Q_K, (32, 32), [], []),
    "dinov2 with registers": (
        lambda: made("Dinov2WithRegistersModel", "Dinov2WithRegisters", image_size=32, patch_size=8,
                     num_register_tokens=3, **TINY),
        "encoder.layer.0.attention", Q_K, (40, 24), ["[CLS]", "[REG 0]", "[REG 1]", "[REG 2]"], []),
    "dinov3": (
        lambda: made("DINOv3ViTModel", "DINOv3ViT", image_size=32, patch_size=8, num_register_tokens=2,
                     key_bias=True, **TINY),
        "model.layer.0.attention", Q_K, (24, 40), ["[CLS]", "[REG 0]", "[REG 1]"], []),
    "yolos": (
        lambda: made("YolosModel", "Yolos", image_size=[32, 64], patch_size=8, num_detection_tokens=2, **TINY),
        "encoder.layer.0.attention.attention", ("query", "key"), (32, 64), ["[CLS]"], ["[DET 0]", "[DET 1]"]),
    "beit": (lambda: made("BeitModel", "Beit", image_size=32, patch_size=8, **TINY),
             "layers.0.attention", Q_K, (32, 32), ["[CLS]"], []),
}  # fmt: skip


@pytest.mark.parametrize("name", TOWERS)
def test_a_tower_names_the_bright_patch(name: str) -> None:
    make, attention, projections, size, before, after = TOWERS[name]
    model, spot = make(), (size[0] - 6, 10)
    side = 16 if name == "deit" else 8
    wide = {"interpolate_pos_encoding": True} if name == "siglip" and size != (32, 32) else {}
    look_at_what_changes(
        model.get_submodule(attention), 4, lambda lit: model(picture(size, spot if lit else None), **wide), projections
    )
    plain = model(picture(size, spot), **wide)
    with av.capture(model) as recording:
        seen = model(picture(size, spot), **wide)
    assert torch.equal(plain[0], seen[0])
    found = recording.trace.vision.maps[0]
    grid = (size[0] // side, size[1] // side)
    place = looked_at(found)
    assert patch(found.keys, place) == ((spot[0] // side, spot[1] // side), grid, None)
    assert list(found.keys.texts[: len(before)]) == before
    assert list(found.keys.texts[len(found.keys) - len(after) :]) == after
    assert found.keys.special == tuple(
        not len(before) <= n < len(found.keys) - len(after) for n in range(len(found.keys))
    )
    assert found.queries == found.keys


def test_a_cropped_picture_is_named_in_what_the_model_sees() -> None:
    """60 × 120 becomes 32 × 64 (its shorter side 32), of which the middle 32 × 32 is kept: columns 16 to 48."""
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    model = made("CLIPVisionModel", "CLIPVision", image_size=32, patch_size=8, **TINY)
    spot = (36, 76)  # in the middle of row 36 · 32/60 = 19.2, column 76 · 32/60 − 16 = 24.5 of the crop

    def read(lit: bool) -> Any:
        return processor(image((60, 120), spot if lit else None, 8), return_tensors="pt")["pixel_values"]

    look_at_what_changes(model.encoder.layers[0].self_attn, 4, lambda lit: model(read(lit)))
    with av.capture(model, processor) as recording:
        model(read(True))
    found = recording.trace.vision.maps[0]
    top, left = spot[0] * 32 / 60, spot[1] * 32 / 60 - 16
    side = 8 * 32 / 60
    assert top >= 16 and top + side <= 24 and left >= 24 and left + side <= 32  # inside one patch
    assert patch(found.keys, looked_at(found)) == ((2, 3), (4, 4), None)


def test_a_video_names_the_frame_and_its_patch() -> None:
    model = made("VideoMAEModel", "VideoMAE", image_size=(32, 48), patch_size=8, num_frames=6, tubelet_size=2, **TINY)
    video = torch.zeros(1, 6, 3, 32, 48)
    video[0, 3, :, 17:21, 34:38] = 1.0  # the second pair of frames
    look_at_what_changes(
        model.encoder.layer[0].attention.attention, 4, lambda lit: model(video if lit else 0 * video), ("query", "key")
    )
    with av.capture(model) as recording:
        model(video)
    found = recording.trace.vision.maps[0]
    assert patch(found.keys, looked_at(found)) == ((2, 4), (4, 6), 1)
    assert len(found.keys) == 3 * 4 * 6 and [s.part for s in found.keys.segments] == [0, 1, 2]


def detr() -> Any:
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage4"],
    )  # fmt: skip
    size = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    return made("DetrModel", "Detr", backbone_config=backbone, d_model=32, encoder_ffn_dim=37, decoder_ffn_dim=37,
                num_queries=6, **size)  # fmt: skip


def test_a_feature_map_names_its_cell_and_padding_is_dropped() -> None:
    """A picture of 96 × 64 in a batch padded to 96 × 160: three rows of five cells, of which it has two."""
    model = detr()
    pixels = torch.zeros(2, 3, 96, 160)
    mask = torch.ones(2, 96, 160, dtype=torch.long)
    mask[1, :, 64:] = 0
    lit = pixels.clone()
    lit[0, :, 64:72, 96:104] = 1.0
    lit[1, :, 32:40, 32:40] = 1.0

    def run(bright: bool) -> Any:
        return model(pixel_values=lit if bright else pixels, pixel_mask=mask)

    attention = model.encoder.layers[0].self_attn
    look_at_what_changes(attention, 4, run)
    plain = run(True)
    with av.capture(model) as recording:
        seen = run(True)
    assert torch.equal(plain[0], seen[0])
    one, other = recording.traces
    found, cut = one.encoder.maps[0], other.encoder.maps[0]
    assert patch(found.keys, looked_at(found)) == ((2, 3), (3, 5), None)
    assert patch(cut.keys, looked_at(cut)) == ((1, 1), (3, 5), None)
    assert len(found.keys) == 15 and len(cut.keys) == 6
    assert set(cut.keys.cells) == {(r, c) for r in range(3) for c in range(2)}
    assert other.cross.keys == cut.keys  # what the decoder looks at
    assert set(other.cross.queries.kinds) == {"latent"}  # its queries are objects, no patches
    assert set(one.decoder.keys.kinds) == {"latent"}


def test_where_patches_are_shuffled_they_have_no_name() -> None:
    model = made("ViTMAEModel", "ViTMAE", image_size=32, patch_size=8, mask_ratio=0.0, **TINY)
    with av.capture(model) as recording:
        model(picture((32, 32), (9, 9)))
    assert set(recording.trace.vision.keys.kinds) == {"latent"}


BLIP_TEXT = TINY | {"vocab_size": 97, "max_position_embeddings": 32, "encoder_hidden_size": 32}


@pytest.mark.parametrize("kind", ["an encoder's states", "a text decoder inside"])
def test_a_decoder_that_looks_at_a_picture_names_its_patches(kind: str) -> None:
    eye = {"image_size": 32, "patch_size": 8} | TINY
    pixels = {"pixel_values": picture((32, 32), (9, 25))}
    if kind == "an encoder's states":
        decoder = transformers.TrOCRConfig(
            d_model=32, decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=37, vocab_size=97
        )
        both = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
            transformers.ViTConfig(**eye), decoder
        )
        model = redrawn(transformers.VisionEncoderDecoderModel(both))
        words = {"decoder_input_ids": torch.tensor([[1, 5]])}
    else:
        model = made("BlipForConditionalGeneration", "Blip", text_config=BLIP_TEXT, vision_config=eye)
        words = {"input_ids": torch.tensor([[1, 5]])}
    with av.capture(model) as recording:
        model(**pixels, **words)
    trace = recording.trace
    assert trace.cross.queries.ids == (1, 5)
    tower = trace.stack(next(name for name in trace.stacks if name in ("encoder", "vision")))
    assert trace.cross.keys == tower.keys
    assert [s.grid for s in trace.cross.keys.segments] == [None, (4, 4)]


# ---- sound


def whisper() -> Any:
    size = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    model = made("WhisperForConditionalGeneration", "Whisper", d_model=32, encoder_ffn_dim=37, decoder_ffn_dim=37,
                 num_mel_bins=8, vocab_size=97, max_source_positions=1500, max_target_positions=32,
                 decoder_start_token_id=1, pad_token_id=0, bos_token_id=1, eos_token_id=2, **size)  # fmt: skip
    model.generation_config.forced_decoder_ids = None
    return model


def loud(seconds: float, moment: float | None, rate: int = 16_000) -> np.ndarray:
    """Silence with a short noise at one moment."""
    sound = np.zeros(int(seconds * rate), np.float32)
    if moment is not None:
        noise = np.random.default_rng(0).uniform(-1, 1, rate // 200).astype(np.float32)  # 5 ms
        sound[int(moment * rate) : int(moment * rate) + len(noise)] = noise
    return sound


def when(labels: Labels, place: int) -> tuple[float, float]:
    """Where the frame at a position begins and ends; its text says its beginning."""
    seconds = labels.seconds[place]
    assert labels.kinds[place] == "frame" and seconds is not None
    assert labels.texts[place] == f"{seconds[0]:.2f}s"
    return seconds


def test_whispers_encoder_and_the_decoder_that_looks_at_it_name_the_loud_moment() -> None:
    model, moment = whisper(), 12.345
    reader = transformers.WhisperFeatureExtractor(feature_size=8)

    def heard(lit: bool) -> torch.Tensor:
        return reader(loud(20, moment if lit else None), sampling_rate=16_000, return_tensors="pt")["input_features"]

    def run(lit: bool) -> Any:
        return model(input_features=heard(lit), decoder_input_ids=torch.tensor([[1, 5, 6]]))

    encoder, decoder = model.model.encoder.layers[0], model.model.decoder.layers[0]
    look_at_what_changes(encoder.self_attn, 4, run)
    with torch.no_grad():
        encoder.self_attn.out_proj.weight.zero_()  # the loud moment stays where it is
    look_at_what_changes(decoder.encoder_attn, 4, run)
    plain = model.generate(heard(True), max_new_tokens=3, do_sample=False)
    with av.capture(model, reader) as recording:
        assert torch.equal(model.generate(heard(True), max_new_tokens=3, do_sample=False), plain)
    trace = recording.trace
    for found in (trace.encoder.maps[0], trace.cross.maps[0]):
        assert len(found.keys) == 1500
        begins, ends = when(found.keys, looked_at(found))
        assert ends - begins == pytest.approx(0.02)
        assert begins - 0.02 <= moment <= ends + 0.02, (begins, ends)  # its window of 25 ms reaches a little around
    assert found.keys.segments == (av.labels.Segment("frame", 0, 1500, seconds=(0.0, pytest.approx(30.0))),)
    assert trace.decoder.keys.kinds[0] != "frame"


def test_without_a_feature_extractor_frames_have_numbers_and_no_seconds() -> None:
    model = whisper()
    with av.capture(model) as recording:
        model(input_features=torch.randn(1, 8, 3000), decoder_input_ids=torch.tensor([[1]]))
    keys = recording.trace.encoder.keys
    assert set(keys.kinds) == {"frame"} and keys.seconds[7] is None and keys.texts[7] == "7"


def wav2vec2(kind: str = "Wav2Vec2Model", **options: Any) -> Any:
    layers = {"conv_dim": (16,) * 3, "conv_kernel": (10, 8, 4), "conv_stride": (5, 8, 4)}
    more = {"num_feat_extract_layers": 3, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    model = made(kind, "Wav2Vec2", feat_extract_norm="layer", do_stable_layer_norm=True,
                 **TINY, **layers, **more, **options)  # fmt: skip
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "pos_conv" in name and "original1" not in name:  # the size of its weights; their direction stays
                parameter.zero_()
    return model


def test_a_waveforms_encoder_names_the_loud_moment() -> None:
    model, moment = wav2vec2(), 0.735
    reader = transformers.Wav2Vec2FeatureExtractor(do_normalize=False)

    def run(lit: bool) -> Any:
        return model(torch.tensor(loud(1.5, moment if lit else None))[None])

    look_at_what_changes(model.encoder.layers[0].attention, 4, run)
    with av.capture(model, reader) as recording:
        run(True)
    found = recording.trace.audio.maps[0]
    begins, ends = when(found.keys, looked_at(found))
    assert ends - begins == pytest.approx(160 / 16_000)
    assert begins - 0.005 <= moment <= ends  # the noise lasts 5 ms


def test_a_spectrograms_patches_are_named_by_frequency_and_time() -> None:
    model = made("ASTModel", "AST", patch_size=8, frequency_stride=8, time_stride=4, max_length=40, num_mel_bins=24,
                 **TINY)  # fmt: skip
    sound = torch.zeros(1, 40, 24)
    sound[0, 20:24, 8:16] = 1.0

    def run(lit: bool) -> Any:
        return model(sound if lit else 0 * sound)

    attention = next(m for n, m in model.named_modules() if hasattr(m, "k_proj") or n.endswith("attention.attention"))
    look_at_what_changes(attention, 4, run, Q_K if hasattr(attention, "k_proj") else ("query", "key"))
    with av.capture(model) as recording:
        run(True)
    found = recording.trace.stack().maps[0]
    cell, grid, part = patch(found.keys, looked_at(found))
    assert grid == (3, 9) and part is None
    assert cell[0] == 1 and 4 * cell[1] <= 20 < 4 * cell[1] + 8
    assert found.keys.texts[:2] == ("[CLS]", "[DIST]")


def test_a_long_recording_that_is_heard_piece_by_piece_has_no_seconds() -> None:
    """Whisper's own long form reads stretch after stretch in one run: where each begins is not told."""
    model = whisper()
    model.generation_config.no_timestamps_token_id = 50
    reader = transformers.WhisperFeatureExtractor(feature_size=8)
    with torch.no_grad():  # else the kernel's own rounding over 1500 like values is more than the proof allows
        for part in (model.model.encoder.layers[0].self_attn, model.model.decoder.layers[0].encoder_attn):
            part.v_proj.weight.zero_()
    heard = reader(loud(45, 3.0), sampling_rate=16_000, return_tensors="pt", truncation=False, padding="longest",
                   return_attention_mask=True)  # fmt: skip
    settings = {"return_timestamps": True, "max_new_tokens": 4, "do_sample": False}
    plain = model.generate(**heard, **settings)
    with av.capture(model, reader) as recording:
        assert torch.equal(model.generate(**heard, **settings), plain)
    assert not any(mark.seconds for t in recording.traces for m in t.maps for mark in m.keys.segments)
