"""The mixed keys of models that read words and pictures: models that look at the one bright patch name it.

Where the bright spot is, is reckoned here from the picture that was made; no code of the package is asked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import hf_attnviz as av
from tests.capturing.pointing import look_at_what_changes, redrawn
from tests.capturing.test_positions import TINY, Spot, looked_at, patch, picture

PATCH = 90
WORDS = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
         "intermediate_size": 37, "vocab_size": 97}  # fmt: skip
EYE = TINY | {"num_hidden_layers": 1}
CLIP = {"model_type": "clip_vision_model", "image_size": 32, "patch_size": 8} | EYE
LLAMA = {"model_type": "llama", "rope_parameters": {"rope_type": "default", "rope_theta": 1e8}} | WORDS


PUT_OUT = (".o_proj.", "out_proj", "attn.proj", "projection_layer")


def made(kind: str, config: str, text: dict[str, Any], eye: dict[str, Any], **options: Any) -> Any:
    built = getattr(transformers, f"{config}Config")(text_config=text, vision_config=eye, **options)
    model = redrawn(getattr(transformers, kind)._from_config(built))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ("vision" in name or "visual" in name) and any(part in name for part in PUT_OUT):
                parameter.zero_()  # in the tower nothing moves from patch to patch
            if name.endswith("q_norm.weight"):
                parameter.fill_(400.0)
    return model


@dataclass
class Case:
    """A model, where its eye and its words attend, its inputs, and what must be named.

    ``eye`` is (number of the map, cell, grid, number of the picture), ``words`` (cell, grid, number).
    """

    make: Callable[[], Any]
    attends: tuple[str, str]
    inputs: Callable[[bool], dict[str, Any]]
    eye: tuple[int, Spot, Spot, int | None]
    words: tuple[Spot, Spot, int | None]
    names: tuple[str, str] = ("q_proj", "k_proj")
    maps: int = 1


def told(*counts: int, token: int = PATCH) -> dict[str, torch.Tensor]:
    """Words with so many placeholders for each picture."""
    ids = [1, 5]
    for count in counts:
        ids += [token] * count + [6]
    found = torch.tensor([[*ids, 7]])
    return {"input_ids": found, "attention_mask": torch.ones_like(found)}


def cut(pixels: torch.Tensor, size: int, merge: int, depth: int = 2) -> torch.Tensor:
    """A picture as Qwen reads it: patches ``[patch, channel · depth · size · size]``, block by block."""
    rows, columns = pixels.shape[-2] // size, pixels.shape[-1] // size
    found = []
    for r in range(0, rows, merge):
        for c in range(0, columns, merge):
            for y in range(r, r + merge):
                for x in range(c, c + merge):
                    one = pixels[0, :, y * size : (y + 1) * size, x * size : (x + 1) * size]
                    found.append(one[:, None].expand(-1, depth, -1, -1).reshape(-1))
    return torch.stack(found)


QWEN_EYE = {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "patch_size": 4, "spatial_merge_size": 2,
            "temporal_patch_size": 2, "mlp_ratio": 2}  # fmt: skip
QWEN_WORDS = WORDS | {
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e8, "mrope_section": [1, 1, 2]},
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def qwen() -> Any:
    return made("Qwen2VLForConditionalGeneration", "Qwen2VL", QWEN_WORDS, QWEN_EYE, image_token_id=PATCH,
                video_token_id=91, vision_start_token_id=92, vision_end_token_id=93)  # fmt: skip


def qwen_read(lit: bool) -> dict[str, Any]:
    """Two pictures, 16 × 32 and 24 × 16; the second has its bright spot at (10, 13): patch (2, 3), merged (1, 1)."""
    first, second = picture((16, 32), None), picture((24, 16), (9, 13) if lit else None, 2)
    grids = torch.tensor([[1, 4, 8], [1, 6, 4]])
    words = told(8, 6)
    kinds = {"mm_token_type_ids": (words["input_ids"] == PATCH).int()}
    return words | kinds | {
        "pixel_values": torch.cat([cut(first, 4, 2), cut(second, 4, 2)]), "image_grid_thw": grids
    }  # fmt: skip


def tiles(lit: bool) -> dict[str, Any]:
    """A picture of 50 × 100 (rows × columns) on a canvas of 32 × 64: the whole at 32 × 32, then two tiles.

    64 columns keep 32 rows; nothing is padded. The spot at (10, 42) of the canvas is in the right tile, column 10
    there: patch (1, 1). The small whole is left dark, so that only the tile is bright.
    """
    canvas = picture((32, 64), (10, 42) if lit else None, 4)
    pixels = torch.cat([picture((32, 32), None), canvas[..., :32], canvas[..., 32:]])[None]
    return told(16 + 4 * 9) | {"pixel_values": pixels, "image_sizes": torch.tensor([[50, 100]])}


def padded_tiles(lit: bool) -> dict[str, Any]:
    """A picture of 100 × 50 on a canvas of 64 × 64: 32 columns are the picture, 16 at each side are padding.

    Two by two tiles; the spot at (41, 33) of the canvas is in the lower right tile (number 4), at (9, 1): patch (1, 0).
    """
    canvas = picture((64, 64), (41, 33) if lit else None, 4)
    parts = [canvas[..., y : y + 32, x : x + 32] for y in (0, 32) for x in (0, 32)]
    pixels = torch.cat([picture((32, 32), None), *parts])[None]
    return told(16 + 8 * (4 + 1)) | {"pixel_values": pixels, "image_sizes": torch.tensor([[100, 50]])}


def tiles_padded_above(lit: bool) -> dict[str, Any]:
    """The same canvas with a picture of 50 × 100: 32 rows are the picture, 16 above and below are padding."""
    return padded_tiles(lit) | told(16 + 4 * (8 + 1)) | {"image_sizes": torch.tensor([[50, 100]])}


def llava_next(pinpoints: list[list[int]]) -> Callable[[], Any]:
    return lambda: made("LlavaNextForConditionalGeneration", "LlavaNext", LLAMA, CLIP, image_token_index=PATCH,
                        vision_feature_layer=-1, image_grid_pinpoints=pinpoints)  # fmt: skip


def gemma(lit: bool) -> dict[str, Any]:
    words = told(16)
    kinds = (words["input_ids"] == PATCH).long()
    return words | {"token_type_ids": kinds, "pixel_values": picture((64, 64), (36, 52) if lit else None)}


SIGLIP = "model.vision_tower.encoder.layers.0.self_attn"
CASES: dict[str, Case] = {
    "llava": Case(
        lambda: made("LlavaForConditionalGeneration", "Llava", LLAMA, CLIP, image_token_index=PATCH,
                     vision_feature_layer=-1),
        (SIGLIP, "model.language_model.layers.0.self_attn"),
        lambda lit: told(16) | {"pixel_values": picture((32, 32), (18, 10) if lit else None)},
        (0, (2, 1), (4, 4), None), ((2, 1), (4, 4), None),
    ),
    "llava, two pictures": Case(
        lambda: made("LlavaForConditionalGeneration", "Llava", LLAMA, CLIP, image_token_index=PATCH,
                     vision_feature_layer=-1),
        (SIGLIP, "model.language_model.layers.0.self_attn"),
        lambda lit: told(16, 16) | {
            "pixel_values": torch.cat([picture((32, 32), None), picture((32, 32), (2, 26) if lit else None)])
        },
        (1, (0, 3), (4, 4), 1), ((0, 3), (4, 4), 1), maps=2,
    ),
    "llava next, tiles": Case(
        llava_next([[32, 64], [64, 32], [64, 64]]),
        (SIGLIP, "model.language_model.layers.0.self_attn"), tiles,
        (2, (1, 1), (4, 4), 2), ((1, 1), (4, 4), 2), maps=3,
    ),
    "llava next, padded tiles": Case(
        llava_next([[32, 64], [64, 64]]),
        (SIGLIP, "model.language_model.layers.0.self_attn"), padded_tiles,
        (4, (1, 0), (4, 4), 4), ((1, 0), (4, 4), 4), maps=5,
    ),
    "llava next, tiles padded above": Case(
        llava_next([[64, 64]]),
        (SIGLIP, "model.language_model.layers.0.self_attn"), tiles_padded_above,
        (4, (1, 0), (4, 4), 4), ((1, 0), (4, 4), 4), maps=5,
    ),
    "qwen2 vl, two pictures, merged": Case(
        qwen, ("model.visual.blocks.0.attn", "model.language_model.layers.0.self_attn"), qwen_read,
        (1, (2, 3), (6, 4), 1), ((1, 1), (3, 2), 1), names=("qkv", "qkv"), maps=2,
    ),
    "gemma 3, pooled": Case(
        lambda: made(
            "Gemma3ForConditionalGeneration", "Gemma3", WORDS | {"head_dim": 8},
            {"image_size": 64, "patch_size": 8} | EYE, image_token_index=PATCH, mm_tokens_per_image=16,
            boi_token_index=91, eoi_token_index=92,
        ),
        (SIGLIP, "model.language_model.layers.0.self_attn"), gemma,
        (0, (4, 6), (8, 8), None), ((2, 3), (4, 4), None),
    ),
    "idefics 3, shuffled in tiles": Case(
        lambda: made("Idefics3ForConditionalGeneration", "Idefics3", LLAMA, {"image_size": 32, "patch_size": 8} | EYE,
                     image_token_id=PATCH, scale_factor=2, pad_token_id=0),
        ("model.vision_model.encoder.layers.0.self_attn", "model.text_model.layers.0.self_attn"),
        lambda lit: told(4, 4, 4) | {"pixel_values": torch.cat(
            [picture((32, 32), (26, 2) if lit and n == 1 else None) + 0.01 for n in range(3)]
        )[None]},
        (1, (3, 0), (4, 4), 1), ((1, 0), (2, 2), 1), maps=3,
    ),
    "intern vl, shuffled": Case(
        lambda: made("InternVLForConditionalGeneration", "InternVL", LLAMA,
                     {"image_size": [32, 32], "patch_size": [8, 8]} | EYE, image_token_id=PATCH, downsample_ratio=0.5),
        ("model.vision_tower.encoder.layer.0.attention", "model.language_model.layers.0.self_attn"),
        lambda lit: told(4) | {"pixel_values": picture((32, 32), (26, 2) if lit else None) + 0.01},
        (0, (3, 0), (4, 4), None), ((1, 0), (2, 2), None),
    ),
    "pali gemma": Case(
        lambda: made("PaliGemmaForConditionalGeneration", "PaliGemma",
                     WORDS | {"model_type": "gemma", "head_dim": 8, "num_key_value_heads": 1},
                     {"model_type": "siglip_vision_model", "image_size": 32, "patch_size": 8,
                      "vision_use_head": False} | EYE, image_token_index=PATCH, projection_dim=32),
        (SIGLIP, "model.language_model.layers.0.self_attn"),
        lambda lit: told(16) | {"pixel_values": picture((32, 32), (10, 26) if lit else None)},
        (0, (1, 3), (4, 4), None), ((1, 3), (4, 4), None),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_both_the_eye_and_the_words_name_the_bright_patch(name: str) -> None:
    case = CASES[name]
    model = case.make()
    eye, words = (model.get_submodule(part) for part in case.attends)

    def run(lit: bool) -> Any:
        return model(**case.inputs(lit))

    look_at_what_changes(words, 4, run)
    look_at_what_changes(eye, 4, run, case.names)
    with torch.no_grad():
        plain = run(True)
        with av.capture(model) as recording:
            seen = run(True)
    assert torch.equal(plain.logits, seen.logits)
    trace = recording.trace
    number, cell, grid, part = case.eye
    stacks = ["vision"] if case.maps == 1 else [f"vision_{n}" for n in range(case.maps)]
    assert [name for name in trace.stacks if name.startswith("vision")] == stacks
    pictures = [trace.stack(name).layer(0) for name in stacks]
    assert patch(pictures[number].keys, looked_at(pictures[number])) == (cell, grid, part)
    decoder = next(m for m in trace.maps if m.module == case.attends[1])
    assert patch(decoder.keys, looked_at(decoder)) == case.words
    ids = case.inputs(True)["input_ids"][0].tolist()
    assert decoder.keys.ids == tuple(ids)
    assert [kind in ("patch", "special") for kind in decoder.keys.kinds] == [token == PATCH for token in ids]


LAYOUT = {"coordinate_size": 4, "shape_size": 4, "max_position_embeddings": 64, "vocab_size": 97,
          "input_size": 32, "patch_size": 8, "has_relative_attention_bias": False,
          "has_spatial_attention_bias": False, "pad_token_id": 0}  # fmt: skip
TOGETHER: dict[str, tuple[Callable[[], Any], str, tuple[str, str], int]] = {
    # model, its attention, the projections, how many positions stand before the patches
    "layoutlmv3, words first": (
        lambda: redrawn(transformers.LayoutLMv3Model(transformers.LayoutLMv3Config(
            **LAYOUT | TINY | {"hidden_size": 24, "num_hidden_layers": 1}
        ))),
        "encoder.layer.0.attention.self", ("query", "key"), 5,
    ),
    "git, patches first": (
        lambda: redrawn(transformers.GitModel(transformers.GitConfig(
            vision_config={"image_size": 32, "patch_size": 8} | EYE, vocab_size=97, **TINY
        ))),
        "encoder.layer.0.attention.self", ("query", "key"), 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TOGETHER)
def test_words_and_patches_in_one_sequence(name: str) -> None:
    make, attention, projections, before = TOGETHER[name]
    model = make()
    ids = torch.tensor([[5, 6, 7, 8]])
    boxes = {"bbox": torch.zeros(1, 4, 4, dtype=torch.long)} if "layout" in name else {}
    with torch.no_grad():
        for part, parameter in model.named_parameters():
            if "image_encoder" in part and ("out_proj" in part or "fc2" in part):
                parameter.zero_()

    def run(lit: bool) -> Any:
        return model(input_ids=ids, pixel_values=picture((32, 32), (18, 10) if lit else None), **boxes)

    look_at_what_changes(model.get_submodule(attention), 4, run, projections)
    with av.capture(model) as recording:
        run(True)
    found = next(m for m in recording.trace.maps if m.module == attention)
    assert patch(found.keys, looked_at(found)) == ((2, 1), (4, 4), None)
    assert found.keys.kinds.index("patch") == before
    assert [number for number in found.keys.ids if number is not None] == ids[0].tolist()
    assert found.queries == found.keys


def test_two_rows_of_a_batch_have_their_own_pictures() -> None:
    """The first row reads one picture, the second two of other sizes; each is numbered within its own row."""
    model = qwen()
    one, two = told(8), told(6, 4)
    rows = [row["input_ids"][0].tolist() for row in (one, two)]
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    grids = [(4, 8), (6, 4), (4, 4)]
    inputs = {
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
        "mm_token_type_ids": (ids == PATCH).int(),
        "image_grid_thw": torch.tensor([[1, *grid] for grid in grids]),
        "pixel_values": torch.randn(sum(r * c for r, c in grids), 96),
    }
    with av.capture(model) as recording:
        model(**inputs)
    first, second = recording.traces
    assert [m.keys.segments[0].grid for m in first.vision.maps] == [(4, 8)]
    assert [m.keys.segments[0].grid for m in second.maps[:2]] == [(6, 4), (4, 4)]
    assert torch.equal(second.vision_1.maps[0].weights, recording.calls[2].weights[0])
    found = [[(s.part, s.grid, s.stop - s.start) for s in t.decoder.keys.segments if s.kind == "patch"]
             for t in (first, second)]  # fmt: skip
    assert found == [[(None, (2, 4), 8)], [(0, (3, 2), 6), (1, (2, 2), 4)]]


@pytest.mark.parametrize("options", [{}, {"num_beams": 2, "num_return_sequences": 2}, {"use_cache": False}], ids=str)
def test_generated_words_keep_the_pictures_patches(options: dict[str, Any]) -> None:
    model = CASES["llava"].make()
    one, two = CASES["llava"].inputs(True), CASES["llava"].inputs(False)
    inputs = {name: torch.cat([one[name], two[name]]) for name in one}
    settings = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None} | options
    plain = model.generate(**inputs, **settings)
    with av.capture(model) as recording:
        out = model.generate(**inputs, **settings)
    assert torch.equal(plain, out)
    with av.capture(model) as forward:
        model(**inputs)
    assert len(recording.traces) == len(out)
    for sequence, trace in zip(out, recording.traces, strict=True):
        assert trace.decoder.keys.ids == tuple(sequence[:-1].tolist())
        assert [s.grid for s in trace.decoder.keys.segments if s.kind == "patch"] == [(4, 4)]
        assert trace.vision.keys.texts[:3] == ("[CLS]", "r0 c0", "r0 c1")
        alone = forward.traces[trace.item].vision
        assert len(trace.vision) == len(alone) == 1
        torch.testing.assert_close(trace.vision.maps[0].weights, alone.maps[0].weights, atol=1e-6, rtol=1e-5)


class Always(transformers.LogitsProcessor):
    def __init__(self, token: int) -> None:
        self.token = token

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.full_like(scores, -1e9).index_fill(1, torch.tensor([self.token]), 0.0)


def test_a_placeholder_that_is_put_out_stands_for_nothing() -> None:
    model, inputs = CASES["llava"].make(), CASES["llava"].inputs(True)
    placeholder = model.config.image_token_id
    settings = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}
    with av.capture(model) as recording:
        model.generate(**inputs, **settings, logits_processor=[Always(placeholder)])
    keys = recording.trace.decoder.keys
    assert keys.ids[-2:] == (placeholder, placeholder)
    assert [s.grid for s in keys.segments if s.kind == "patch"] == [(4, 4)]
    assert "patch" not in keys.kinds[-2:]


def test_a_videos_frames_are_parts() -> None:
    """Two pairs of frames of 16 × 24: each is looked at by itself, and is 2 × 3 merged positions of the decoder."""
    model = qwen()
    words = told(12, token=91)
    frames = [picture((16, 24), None), picture((16, 24), (9, 17), 2)]
    kinds = {"mm_token_type_ids": 2 * (words["input_ids"] == 91).int()}
    video = torch.cat([cut(frame, 4, 2) for frame in frames])
    with av.capture(model) as recording:
        model(**words, **kinds, pixel_values_videos=video, video_grid_thw=torch.tensor([[2, 4, 6]]))
    trace = recording.trace
    assert [trace.stack(name).keys.segments[0].grid for name in ("vision_0", "vision_1")] == [(4, 6)] * 2
    assert trace.vision_1.keys.cells[:5] == ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2))  # block by block
    found = [(s.part, s.grid, s.stop - s.start) for s in trace.decoder.keys.segments if s.kind == "patch"]
    assert found == [(0, (2, 3), 6), (1, (2, 3), 6)]


def test_latents_of_a_resampler_are_no_patches() -> None:
    """Four learned queries stand for 4 × 4 patches: as many as patches merged two by two, and none of them is one."""
    config = transformers.Blip2Config(
        vision_config={"image_size": 32, "patch_size": 8} | EYE,
        qformer_config={"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 37,
                        "encoder_hidden_size": 32, "vocab_size": 97},
        text_config={"model_type": "opt", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
                     "ffn_dim": 37, "vocab_size": 97, "word_embed_proj_dim": 32},
        num_query_tokens=16, image_token_index=PATCH,
    )  # fmt: skip
    model = redrawn(transformers.Blip2ForConditionalGeneration._from_config(config))
    with av.capture(model) as recording:
        model(**told(16), pixel_values=picture((32, 32), (8, 8)))
    trace = recording.trace
    assert set(trace.decoder.keys.kinds) == {"text", "latent"}
    assert trace.vision.keys.kinds.count("patch") == 16


def test_traces_of_pictures_are_saved_and_drawn(tmp_path: Path) -> None:
    case = CASES["llava next, tiles"]
    model = case.make()
    with av.capture(model) as recording:
        model(**case.inputs(True))
    trace = recording.trace
    loaded = av.load(trace.save(tmp_path / "t"))
    for one, other in zip(trace.maps, loaded.maps, strict=True):
        assert one.keys == other.keys and one.queries == other.queries and one.stack == other.stack
    page = av.head_view(loaded, stack="decoder").html
    assert "#2 r1 c1" in page
    assert "r1 c1" in av.model_view(loaded, stack="vision_2").html
    assert len(av.rollout(loaded, stack="vision_1").values) == 1  # tiles are no layers of one another
