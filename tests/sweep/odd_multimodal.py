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

CONFIGS: Final[dict[str, dict[str, Any]]] = {
    **dict.fromkeys(["qwen2_5_vl", "exaone4_5", "hyperclovax_vision_v2", "qwen2_5_omni_thinker"], inside("vision_config", _WINDOWS)),
    **dict.fromkeys(["qwen2_5_vl_vision", "exaone4_5_vision", "qwen2_5_omni_vision_encoder"], _WINDOWS),
    **dict.fromkeys(["llava_next", "llava_next_video", "llava_onevision", "granite4_vision"], _TILES),
    "aria": {"projector_patch_to_query_dict": {16: 4}},
    "blip-2": {"image_token_index": 150},
}
CLASSES: Final[dict[str, str]] = {}
MAKERS: Final[dict[str, Any]] = {}
FEEDS: Final[dict[str, Feed]] = {
    **dict.fromkeys(["audioflamingo3", "fun_asr_nano", "glmasr", "qwen3_asr"], mask_of("input_features")),
    **dict.fromkeys(["idefics2", "idefics3", "smolvlm", "modernvbert", "colmodernvbert", "ultravbert"], framed()),
    **dict.fromkeys(["mistral3", "mistral_large4", "lighton_ocr"], adding(image_sizes=sizes(32, 32))),
    **dict.fromkeys(["llava_next", "llava_next_video", "llava_onevision"], adding(pixel_values=normal(1, 2, 3, 32, 32), image_sizes=sizes(32, 32))),
    **dict.fromkeys(["glm46v", "glm4v", "glm4v_moe", "glm5_next", "glm_ocr"], without("pixel_values_videos", "video_grid_thw")),
    "qwen2_audio": lambda model, made: made | {"feature_attention_mask": torch.ones(1, made["input_features"].shape[-1], dtype=torch.long)},
    "kosmos-2": adding(image_embeds_position_mask=None),
    "deepseek_vl_hybrid": adding(high_res_pixel_values=normal(1, 3, 64, 64)),
    "lxmert": adding(visual_feats=normal(1, 5, 64), visual_pos=normal(1, 5, 4)),
}
