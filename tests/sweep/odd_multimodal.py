"""Rows for types that read more than one kind of input (images, video or sound with text). Shaped like ``odd.py``."""

from typing import Any, Final

import torch

from tests.sweep.rows import Feed, adding, normal, of, ones, tokens
from tests.sweep.shrink import HEAD_SIZE, WIDTH


def inside(part: str, values: dict[str, Any]) -> dict[str, Any]:
    """The values for a part of a configuration, by their whole names."""
    return {f"{part}.{name}": value for name, value in values.items()}


def without(*names: str, **more: Any) -> Feed:
    """What was made, less some of it, with more."""
    return lambda model, made: adding(**more)(model, {key: one for key, one in made.items() if key not in names})


def framed(**more: Any) -> Feed:
    """The image as the only one of its text ``[1, 1, channel, height, width]``."""
    return lambda model, made: adding(**more)(model, made | {"pixel_values": made["pixel_values"][:, None]})


def sizes(*size: int) -> torch.Tensor:
    """Height and width of the one image."""
    return torch.tensor([size])


def mask_of(name: str) -> Any:
    """A mask over the last axis of what is made under a name (a spectrogram's frames), that hides nothing."""
    return lambda model, made: made | {f"{name}_mask": torch.ones(1, made[name].shape[-1], dtype=torch.long)}


# Windows of two by two patches, and one layer that looks at the whole image.
_WINDOWS: Final = {"window_size": 16, "fullatt_block_indexes": [1]}
_TILES: Final = {"image_grid_pinpoints": [[32, 32], [64, 64]]}

_SOFT: Final = {"mm_tokens_per_image": 4}  # of sixteen patches
_FOUR_WIDE: Final = {"audio_config.intermediate_size": 4 * WIDTH}  # the projector reads four frames at once
_LLAMA4_VISION: Final = {
    "intermediate_size": 4 * WIDTH, "projector_input_dim": WIDTH, "projector_output_dim": WIDTH, "vision_output_dim": WIDTH,
}  # fmt: skip
_PATCHES: Final = normal(1, 16, 3 * 8 * 8)  # four by four patches of eight by eight pixels
_CUTS: Final = normal(16, 3, 8, 8)
_SHAPES: Final = {"pixel_values": _PATCHES, "pixel_attention_mask": ones(1, 16), "spatial_shapes": sizes(4, 4)}
_MLLAMA: Final = {
    "pixel_values": normal(1, 1, 4, 3, 32, 32), "aspect_ratio_ids": torch.tensor([[6]]), "aspect_ratio_mask": ones(1, 1, 4),
}  # fmt: skip


def grid(side: int) -> torch.Tensor:
    """Where the patches of a square image stand, as (x, y) ``[1, patch, 2]``."""
    return torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="xy"), dim=-1).reshape(1, -1, 2)


def placed(name: str, count: int, **more: Any) -> Feed:
    """So many placeholders of a name among the words."""

    def place(model: Any, made: dict[str, Any]) -> dict[str, Any]:
        ids = made["input_ids"]
        ids = torch.cat([ids[:, :3], torch.full((1, count), getattr(model.config, name)), ids[:, 3:]], 1)
        return adding(**more)(model, made | {"input_ids": ids, "attention_mask": torch.ones_like(ids)})

    return place


_GEMMA4: Final = {
    "pixel_values": normal(1, 36, 3 * 8 * 8), "image_position_ids": grid(6),
    "input_features": normal(1, 96, 128), "input_features_mask": ones(1, 96, dtype=torch.bool),
}  # fmt: skip

CONFIGS: Final[dict[str, dict[str, Any]]] = {
    **dict.fromkeys(["qwen2_5_vl_vision", "exaone4_5_vision", "qwen2_5_omni_vision_encoder"], _WINDOWS),
    **dict.fromkeys(["llava_next", "llava_next_video", "llava_onevision", "granite4_vision"], _TILES),
    **dict.fromkeys(["gemma3", "shieldgemma2", "t5gemma2_encoder"], _SOFT),
    **dict.fromkeys(["glmasr", "voxtral"], _FOUR_WIDE),
    "aria": {"projector_patch_to_query_dict": {16: 4}},
    "blip-2": {"image_token_index": 150, "num_query_tokens": 4},
    "instructblip": {"image_token_index": 150, "num_query_tokens": 4},
    "instructblipvideo": {"video_token_index": 150, "num_query_tokens": 4},
    "dots3_note_vision_encoder": {"adapter_in_dim": WIDTH, "adapter_out_dim": WIDTH},
    "kosmos-2": {"latent_query_num": 4},
    "layoutlmv3": {"coordinate_size": 12, "shape_size": 8, "input_size": 32},
    "llama4_text": {"attention_chunk_size": 4},
    "llama4_vision_model": _LLAMA4_VISION,
    "minimax_m3_vl": {"merged_hidden_size": 4 * WIDTH},
    "siglip_text_model": {"projection_size": WIDTH},
    "tvp": {"visual_prompt_size": 4, "num_frames": 2, "max_img_size": 32},
    "vit": {"pooler_output_size": WIDTH},
    "voxtral": _FOUR_WIDE | {"audio_token_id": 150},
    "xclip_vision_model": {"num_frames": 2},
}
CLASSES: Final[dict[str, str]] = {}
MAKERS: Final[dict[str, Any]] = {
    **{key: of(key, vision_config={"model_type": "gemma4_vision"}, audio_config={"model_type": "gemma4_audio"}) for key in ("gemma4", "embedding_gemma2")},
    "chameleon": of("chameleon", vocabulary_map={"<image>": 150} | {f"IMGIMG{letter}Z": 140 + i for i, letter in enumerate("ABCDEFGH")}),
}
FEEDS: Final[dict[str, Feed]] = {
    **dict.fromkeys(["audioflamingo3", "glmasr"], mask_of("input_features")),
    "fun_asr_nano": adding(input_features=normal(1, 20, 560), input_features_mask=ones(1, 20)),
    "qwen3_asr": adding(input_features=normal(1, 128, 100), input_features_mask=ones(1, 100)),
    **dict.fromkeys(["idefics2", "idefics3", "smolvlm", "modernvbert", "colmodernvbert", "ultravbert"], framed()),
    **dict.fromkeys(["mistral3", "mistral_large4", "lighton_ocr"], adding(image_sizes=sizes(32, 32))),
    **dict.fromkeys(["llava_next", "llava_next_video", "llava_onevision", "granite4_vision"], adding(pixel_values=normal(1, 2, 3, 32, 32), image_sizes=sizes(32, 32))),
    **dict.fromkeys(["glm46v", "glm4v", "glm4v_moe", "glm5_next", "glm_ocr"], without("pixel_values_videos", "video_grid_thw")),
    **dict.fromkeys(["siglip2", "siglip2_vision_model", "lfm2_vl"], adding(**_SHAPES)),
    **dict.fromkeys(["gemma4", "embedding_gemma2"], without("pixel_values_videos", **_GEMMA4)),
    "gemma4_vision": adding(pixel_values=normal(1, 36, 3 * 8 * 8), pixel_position_ids=grid(6)),
    "blip-2": placed("image_token_id", 4),
    "blip_2_qformer": adding(query_embeds=normal(1, 4, WIDTH), encoder_hidden_states=normal(1, 17, WIDTH)),
    "bridgetower_vision_model": adding(image=normal(1, 3, 32, 32)),
    "clap": adding(input_features=normal(1, 1, 64, 64)),
    "colqwen2": lambda model, made: without("pixel_values_videos", "video_grid_thw")(model, made | {"pixel_values": made["pixel_values"][None]}),
    "deepseek_vl_hybrid": adding(high_res_pixel_values=normal(1, 3, 32, 32)),
    "fuyu": adding(pixel_values=_PATCHES),
    "granite_docling": framed(pixel_attention_mask=ones(1, 1, 32, 32)),
    "idefics": framed(image_attention_mask=ones(1, 12, 1)),
    "idefics2_perceiver": adding(context=normal(1, 16, WIDTH)),
    "inkling2": adding(pixel_values=normal(4, 16, 16, 3)),
    "inkling2_vision": adding(pixel_values=normal(4, 16, 16, 3)),
    "instructblip": placed("image_token_id", 4, qformer_input_ids=tokens(1, 6)),
    "instructblipvideo": placed("video_token_id", 16, qformer_input_ids=tokens(1, 6), pixel_values=normal(1, 4, 3, 32, 32)),
    "kimi_k25": adding(pixel_values=_CUTS, pixel_values_videos=_CUTS),
    "kimi_k25_vision": adding(pixel_values=_CUTS),
    "kosmos-2": adding(image_embeds_position_mask=torch.tensor([[0] * 3 + [1] * 4 + [0] * 5])),
    "lxmert": adding(visual_feats=normal(1, 5, 2048), visual_pos=normal(1, 5, 4)),
    "mllama": adding(**_MLLAMA, cross_attention_mask=ones(1, 12, 1, 4)),
    "mllama_vision_model": adding(**_MLLAMA),
    "paddleocr_vl": adding(pixel_values=_CUTS),
    "paddleocr_vl_vision": adding(pixel_values=normal(1, 16, 3, 8, 8)),
    "tvp": adding(pixel_values=normal(1, 2, 3, 32, 32)),
    "voxtral_realtime": adding(input_ids=tokens(1, 8), attention_mask=ones(1, 8)),
    "xclip": adding(pixel_values=normal(1, 2, 3, 32, 32)),
    "xclip_vision_model": adding(pixel_values=normal(2, 3, 32, 32)),
    **{key: adding(pixel_values=normal(1, 3, 8, 8 * 16), target_sizes=sizes(4, 4)) for key in ("minicpm_ocr_vision", "minicpmv4_6_vision", "minicpmv4_7_vision")},
}
