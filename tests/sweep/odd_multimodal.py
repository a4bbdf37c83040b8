"""Rows for types that read more than one kind of input (images, video or sound with text). Shaped like ``odd.py``."""

from typing import Any, Final

from transformers import CONFIG_MAPPING

from tests.sweep import multimodal_feeds
from tests.sweep.rows import Feed, of
from tests.sweep.shrink import WIDTH

# Windows of two by two patches, and one layer that looks at the whole image.
_WINDOWS: Final = {"window_size": 16, "fullatt_block_indexes": [1]}
_TILES: Final = {"image_grid_pinpoints": [[32, 32], [64, 64]]}

_SOFT: Final = {"mm_tokens_per_image": 4}  # of sixteen patches
_FOUR_WIDE: Final = {"audio_config.intermediate_size": 4 * WIDTH}  # the projector reads four frames at once
_LLAMA4_VISION: Final = {
    "intermediate_size": 4 * WIDTH, "projector_input_dim": WIDTH, "projector_output_dim": WIDTH,
    "vision_output_dim": WIDTH,
}  # fmt: skip
_SAM_DOWN: Final = {"image_size": 128, "window_size": 4, "global_attn_indexes": [1], "downsample_channels": [32, WIDTH]}

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
    "align": {"projection_dim": 80},
    "kosmos-2.5": {"latent_query_num": 4},
    "gemma3n": {
        "audio_soft_tokens_per_image": 8,
        "vision_soft_tokens_per_image": 16,
        "vision_config.vocab_offset": 128,
        "audio_config.vocab_offset": 144,
        "image_token_id": 130,
        "audio_token_id": 146,
    },
    "omdet-turbo": {
        "encoder_in_channels": [32, 64, 128],
        "apply_layernorm_after_vision_backbone": False,
        "text_projection_in_dim": WIDTH,
        "text_projection_out_dim": WIDTH,
        "class_embed_dim": WIDTH,
        "decoder_hidden_dim": 32,
        "d_model": 32,
        "vision_features_channels": [32] * 3,
    },
    "fast_vlm": {"vision_config.hidden_size": 256},
    "vibevoice": {"audio_config.num_filters": 2, "semantic_model_config.num_filters": 2},
    "chameleon": {
        "vq_config.num_embeddings": 8,
        "vq_config.base_channels": 32,
        "vq_config.channel_multiplier": [1, 1, 2],
        "vq_config.latent_channels": WIDTH,
        "image_token_id": 150,
    },
    **{f"muse_{name}": {"out_hidden_size": 4 * WIDTH} for name in ("glimmer", "spark")},
    **{f"minicpm{name}": {"image_token_id": 150, "video_token_id": 151} for name in ("_ocr", "v4_6", "v4_7")},
    "molmo2": {"image_patch_id": 150},
    "glm_image": {"vq_config.latent_channels": WIDTH, "vq_config.num_embeddings": 100},
    "gemma4_unified": {"vision_config.patch_size": 8, "vision_config.output_proj_dims": WIDTH},
    **{name: {"window_size": 15, "downsample_rate": 5} for name in ("granite_speech", "granite_speech_plus")},
    "nemotron_h_omni": {"image_token_id": 150, "video_token_id": 151, "audio_token_id": 152},
    **{
        f"qwen{name}_thinker": {
            "vision_start_token_id": 150,
            "vision_end_token_id": 151,
            "audio_start_token_id": 152,
            "audio_end_token_id": 153,
        }
        for name in ("2_5_omni", "3_omni_moe")
    },
    "vipllava": {"vision_feature_layers": [-2, -1]},
    "step3p7": {"text_config.sliding_window": 4},
    "deepseek_ocr2_sam_vision_model": _SAM_DOWN,
    "unlimited_ocr_sam_vision_model": _SAM_DOWN,
    "deepseek_ocr2_vision": {"image_size": 128},
    "emu3": {"vq_config.codebook_size": 8, "vq_config.base_channels": 32, "vq_config.channel_multiplier": [1, 2]},
    "granite4_vision": _TILES
    | {"deepstack_layer_map": [(0, 0), (1, 1)], "spatial_target_layers": [0, 0, 1, 1], "downsample_rate": "1/2"},
    "inkling_vision": {"num_hidden_layers": 3},
    "mllama": {"vision_config.vision_output_dim": 6 * WIDTH},
    "mllama_vision_model": {"vision_output_dim": 6 * WIDTH},
    "molmo2_vision": {"num_position_embeddings": 16},
    "molmo2_adapter": {"vision_feature_layer": [0, 1]},
    "shieldgemma2": _SOFT | {"yes_token_index": 20, "no_token_index": 21},
    "siglip2_text_model": {"projection_size": WIDTH},
    "tvp": {"visual_prompt_size": 4, "num_frames": 2, "max_img_size": 64},
    "vit": {"pooler_output_size": WIDTH},
    "voxtral": _FOUR_WIDE | {"audio_token_id": 150},
    "xclip_vision_model": {"num_frames": 2},
}

CLASSES: Final[dict[str, str]] = {}


def odd_text(key: str) -> Any:
    """The configuration of a text model as its own row makes it."""
    from tests.sweep import odd  # the rows of both files are read together only when a model is made

    return odd.MAKERS[key]()


def filmed() -> Any:
    """The configuration of an encoder of films whose pictures go through a ViT."""
    return CONFIG_MAPPING["pe_video_encoder"](vision_config=CONFIG_MAPPING["vit"](num_labels=WIDTH))


def seen_by_siglip() -> Any:
    """Gemma 3n takes the configuration of a tower of timm only; another is put in its place once it is made."""
    config = CONFIG_MAPPING["gemma3n"]()
    vars(config)["vision_config"] = CONFIG_MAPPING["siglip_vision_model"](
        vocab_size=32, vocab_offset=128, rms_norm_eps=1e-6
    )
    return config


MAKERS: Final[dict[str, Any]] = {
    # timm is not installed here: another tower stands where its models stand
    "perception_lm": of(
        "perception_lm", vision_config={"model_type": "siglip_vision_model", "model_args": {"embed_dim": WIDTH}}
    ),
    "fast_vlm": of("fast_vlm", vision_config={"model_type": "resnet", "hidden_size": 256}),
    "pe_video": lambda: CONFIG_MAPPING["pe_video"](video_config=filmed()),
    "pe_video_encoder": lambda: filmed(),
    "pe_audio_video_encoder": lambda: CONFIG_MAPPING["pe_audio_video_encoder"](video_config=filmed()),
    "pe_audio_video": lambda: CONFIG_MAPPING["pe_audio_video"](audio_video_config=MAKERS["pe_audio_video_encoder"]()),
    "gemma3n": seen_by_siglip,
    "omdet-turbo": of("omdet-turbo", backbone_config={"model_type": "swin", "out_indices": [2, 3, 4]}, timm_kwargs={}),
    "gemma4_unified": of("gemma4_unified", vision_config={}, audio_config={}),
    **{
        key: of(key, vision_config={"model_type": "gemma4_vision"}, audio_config={"model_type": "gemma4_audio"})
        for key in ("gemma4", "embedding_gemma2")
    },
    "emu3": of(
        "emu3",
        vocabulary_map={"<image>": 150, "<|extra_200|>": 151}
        | {f"<|visual token {i:06d}|>": 140 + i for i in range(8)},
    ),
    "nemotron_h_omni": of("nemotron_h_omni", audio_config={"projection_hidden_size": WIDTH, "projection_bias": False}),
    "dots3_note": lambda: CONFIG_MAPPING["dots3_note"](text_config=odd_text("dots3_note_text")),
    "chameleon": of(
        "chameleon",
        vocabulary_map={"<image>": 150} | {f"IMGIMG{letter}Z": 140 + i for i, letter in enumerate("ABCDEFGH")},
    ),
}

FEEDS: Final[dict[str, Feed]] = multimodal_feeds.FEEDS

NOT_BUILT: Final[dict[str, str]] = {
    "sam3_video": "its forward reads and changes a session of video frames, so that no two runs are alike",
    "nougat": "transformers has no modelling file of this type; its weights run in the classes of another type",
    "layoutlmv2": "its pictures are read by detectron2, which is not installed here",
    **dict.fromkeys(
        ["qwen2_5_omni", "qwen3_omni_moe"],
        "the whole only generates and has no forward; its thinker, talker and towers are types of their own",
    ),
    **dict.fromkeys(
        ["idefics_vision", "idefics_perciever", "gemma4_unified_vision", "gemma4_unified_audio"],
        "the configuration of a piece: its module is a part of a model, no model of its own",
    ),
}
