"""Rows for types that read more than one kind of input (images, video or sound with text). Shaped like ``odd.py``."""

from typing import Any, Final

import torch
from transformers import CONFIG_MAPPING

from tests.sweep.feed import words
from tests.sweep.rows import Feed, adding, boxes, mels, normal, of, ones, tokens
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
_SAM_DOWN: Final = {"image_size": 128, "window_size": 4, "global_attn_indexes": [1], "downsample_channels": [32, WIDTH]}
_NAVIT: Final = {
    "pixel_values": normal(1, 3, 8, 8 * 16), "target_sizes": sizes(4, 4),
    "pixel_values_videos": normal(1, 3, 8, 8 * 16), "target_sizes_videos": sizes(4, 4),
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
        ids = made.get("input_ids", words(model))
        ids = torch.cat([ids[:, :3], torch.full((1, count), getattr(model.config, name)), ids[:, 3:]], 1)
        return adding(**more)(model, made | {"input_ids": ids, "attention_mask": torch.ones_like(ids)})

    return place


def flattened(model: Any) -> torch.Tensor:
    """Sixteen patches of a picture, each behind its row and its column, which count from one."""
    places = grid(4).flip(-1) + 1
    return torch.cat([places.float(), torch.randn(1, 16, WIDTH)], dim=-1)


def boxed(model: Any) -> torch.Tensor:
    """Boxes in parts of the page."""
    return boxes(model) / 1000


def heard(model: Any, made: dict[str, Any]) -> dict[str, Any]:
    """As many placeholders as the tower makes of the sound's frames."""
    frames = made["input_features"].shape[-1]
    count = int(model.audio_tower._get_feat_extract_output_lengths(torch.tensor([frames]))[1])
    return placed("audio_token_id", count, feature_attention_mask=ones(1, frames))(model, made)


def seen_and_heard(model: Any, made: dict[str, Any]) -> dict[str, Any]:
    """A picture as a whole and as its one crop (two by two places and their line ends, twice), and twelve frames of sound."""
    marks = [model.config.vision_config.image_token_id] * 13 + [model.config.audio_config.audio_token_id] * 12
    ids = torch.cat([made["input_ids"][:, :3], torch.tensor([marks]), made["input_ids"][:, 3:]], dim=1)
    return {
        "input_ids": ids, "attention_mask": torch.ones_like(ids), "image_pixel_values": torch.randn(1, 2, 3, 32, 32),
        "image_sizes": sizes(32, 32), "image_attention_mask": torch.ones(1, 2, 4, 4),
        "audio_input_features": torch.randn(1, 96, 80), "audio_embed_sizes": torch.tensor([12]),
    }  # fmt: skip


_GEMMA4: Final = {
    "pixel_values": normal(1, 36, 3 * 8 * 8), "image_position_ids": grid(6),
    "input_features": normal(1, 96, 128), "input_features_mask": ones(1, 96, dtype=torch.bool),
    "pixel_values_videos": normal(2, 36, 3 * 8 * 8), "video_position_ids": grid(6).repeat(2, 1, 1),
    "num_frames_per_video": torch.tensor([2]),
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
    "align": {"projection_dim": 80},
    "kosmos-2.5": {"latent_query_num": 4},
    "gemma3n": {"audio_soft_tokens_per_image": 8, "vision_soft_tokens_per_image": 16, "vision_config.vocab_offset": 128, "audio_config.vocab_offset": 144, "image_token_id": 130, "audio_token_id": 146},
    "omdet-turbo": {"encoder_in_channels": [32, 64, 128], "apply_layernorm_after_vision_backbone": False, "text_projection_in_dim": WIDTH, "text_projection_out_dim": 32, "class_embed_dim": 32, "decoder_hidden_dim": WIDTH, "d_model": WIDTH, "vision_features_channels": [WIDTH] * 3},
    "fast_vlm": {"vision_config.hidden_size": 256},
    "vibevoice": {"audio_config.num_filters": 2, "semantic_model_config.num_filters": 2},
    "chameleon": {"vq_config.num_embeddings": 8, "vq_config.base_channels": 32, "vq_config.channel_multiplier": [1, 1, 2], "vq_config.latent_channels": WIDTH, "image_token_id": 150},
    **{f"muse_{name}": {"out_hidden_size": 4 * WIDTH} for name in ("glimmer", "spark")},
    **{f"minicpm{name}": {"image_token_id": 150, "video_token_id": 151} for name in ("_ocr", "v4_6", "v4_7")},
    "molmo2": {"image_patch_id": 150},
    "glm_image": {"vq_config.latent_channels": WIDTH, "vq_config.num_embeddings": 100},
    "gemma4_unified": {"vision_config.patch_size": 8, "vision_config.output_proj_dims": WIDTH},
    **{name: {"window_size": 15, "downsample_rate": 5} for name in ("granite_speech", "granite_speech_plus")},
    "nemotron_h_omni": {"image_token_id": 150, "video_token_id": 151, "audio_token_id": 152},
    **{f"qwen{name}_thinker": {"vision_start_token_id": 150, "vision_end_token_id": 151, "audio_start_token_id": 152, "audio_end_token_id": 153} for name in ("2_5_omni", "3_omni_moe")},
    "vipllava": {"vision_feature_layers": [-2, -1]},
    "step3p7": {"text_config.sliding_window": 4},
    "deepseek_ocr2_sam_vision_model": _SAM_DOWN,
    "unlimited_ocr_sam_vision_model": _SAM_DOWN,
    "deepseek_ocr2_vision": {"image_size": 128},
    "emu3": {"vq_config.codebook_size": 8, "vq_config.base_channels": 32, "vq_config.channel_multiplier": [1, 2]},
    "granite4_vision": _TILES | {"deepstack_layer_map": [(0, 0), (1, 1)], "spatial_target_layers": [0, 0, 1, 1], "downsample_rate": "1/2"},
    "inkling_vision": {"num_hidden_layers": 3},
    "mllama": {"vision_config.vision_output_dim": 6 * WIDTH},
    "mllama_vision_model": {"vision_output_dim": 6 * WIDTH},
    "molmo2_vision": {"num_position_embeddings": 16},
    "molmo2_adapter": {"vision_feature_layer": [0, 1]},
    "neomme": {},
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
    vars(config)["vision_config"] = CONFIG_MAPPING["siglip_vision_model"](vocab_size=32, vocab_offset=128, rms_norm_eps=1e-6)
    return config


MAKERS: Final[dict[str, Any]] = {
    # timm is not installed here: another tower stands where its models stand
    "perception_lm": of("perception_lm", vision_config={"model_type": "siglip_vision_model", "model_args": {"embed_dim": WIDTH}}),
    "fast_vlm": of("fast_vlm", vision_config={"model_type": "resnet", "hidden_size": 256}),
    "pe_video": lambda: CONFIG_MAPPING["pe_video"](video_config=filmed()),
    "pe_video_encoder": lambda: filmed(),
    "pe_audio_video_encoder": lambda: CONFIG_MAPPING["pe_audio_video_encoder"](video_config=filmed()),
    "pe_audio_video": lambda: CONFIG_MAPPING["pe_audio_video"](audio_video_config=MAKERS["pe_audio_video_encoder"]()),
    "gemma3n": seen_by_siglip,
    "omdet-turbo": of("omdet-turbo", backbone_config={"model_type": "swin", "out_indices": [2, 3, 4]}, timm_kwargs={}),
    "gemma4_unified": of("gemma4_unified", vision_config={}, audio_config={}),
    **{key: of(key, vision_config={"model_type": "gemma4_vision"}, audio_config={"model_type": "gemma4_audio"}) for key in ("gemma4", "embedding_gemma2")},
    "emu3": of("emu3", vocabulary_map={"<image>": 150, "<|extra_200|>": 151} | {f"<|visual token {i:06d}|>": 140 + i for i in range(8)}),
    "nemotron_h_omni": of("nemotron_h_omni", audio_config={"projection_hidden_size": WIDTH, "projection_bias": False}),
    "dots3_note": lambda: CONFIG_MAPPING["dots3_note"](text_config=odd_text("dots3_note_text")),
    "chameleon": of("chameleon", vocabulary_map={"<image>": 150} | {f"IMGIMG{letter}Z": 140 + i for i, letter in enumerate("ABCDEFGH")}),
}
FEEDS: Final[dict[str, Feed]] = {
    **dict.fromkeys(["audioflamingo3", "glmasr"], mask_of("input_features")),
    "fun_asr_nano": adding(input_features=normal(1, 20, 560), input_features_mask=ones(1, 20)),
    "qwen3_asr": adding(input_features=normal(1, 128, 100), input_features_mask=ones(1, 100)),
    **dict.fromkeys(["idefics2", "idefics3", "smolvlm", "modernvbert", "colmodernvbert", "ultravbert"], framed()),
    **dict.fromkeys(["mistral3", "mistral_large4", "lighton_ocr"], adding(image_sizes=sizes(32, 32))),
    **dict.fromkeys(["llava_next", "granite4_vision"], adding(pixel_values=normal(1, 2, 3, 32, 32), image_sizes=sizes(32, 32))),
    **dict.fromkeys(["glm46v", "glm4v", "glm4v_moe", "glm5_next", "glm_ocr"], without("pixel_values_videos", "video_grid_thw")),
    **dict.fromkeys(["siglip2", "siglip2_vision_model", "lfm2_vl"], adding(**_SHAPES)),
    **dict.fromkeys(["gemma4", "embedding_gemma2"], adding(**_GEMMA4)),
    "gemma4_vision": adding(pixel_values=normal(1, 36, 3 * 8 * 8), pixel_position_ids=grid(6)),
    "blip-2": placed("image_token_id", 4),
    "blip_2_qformer": adding(query_embeds=normal(1, 4, WIDTH), encoder_hidden_states=normal(1, 17, WIDTH)),
    "bridgetower_vision_model": adding(image=normal(1, 3, 32, 32)),
    "clap": adding(input_features=normal(1, 1, 64, 64)),
    "colqwen2": lambda model, made: without("pixel_values_videos", "video_grid_thw")(model, made | {"pixel_values": made["pixel_values"][None]}),
    "deepseek_vl_hybrid": adding(high_res_pixel_values=normal(1, 3, 32, 32)),
    "fuyu": adding(pixel_values=_PATCHES),
    "granite_docling": framed(pixel_attention_mask=ones(1, 1, dtype=torch.bool)),
    "idefics": framed(image_attention_mask=ones(1, 12, 1)),
    "idefics2_perceiver": adding(context=normal(1, 16, WIDTH)),
    "inkling2": adding(pixel_values=normal(4, 16, 16, 3), image_grid_thw=torch.tensor([[1, 2, 2]])),
    "inkling2_vision": adding(pixel_values=normal(4, 16, 16, 3), image_grid_thw=torch.tensor([[1, 2, 2]])),
    "inkling_mm_model": lambda model, made: placed("audio_token_id", 6, pixel_values=normal(4, 2, 8, 8, 3), audio_input_ids=tokens(1, 6, 80))(model, made),
    "inkling_vision": adding(pixel_values=normal(4, 2, 8, 8, 3)),
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
    "tvp": adding(pixel_values=normal(1, 2, 3, 64, 64)),
    "deepseek_ocr2": adding(pixel_values=normal(1, 3, 128, 128)),
    "deepseek_ocr2_vision": adding(pixel_values=normal(1, 3, 128, 128)),
    "deepseek_ocr2_encoder": adding(num_patches=4),
    "unlimited_ocr": adding(pixel_values=normal(1, 3, 128, 128)),
    "unlimited_ocr_vision": adding(pixel_values=normal(1, 3, 128, 128)),
    "unlimited_ocr_vision_encoder": adding(patch_embeds=normal(1, WIDTH, 4, 4)),
    "emu3": adding(pixel_values=normal(1, 3, 32, 32), image_sizes=sizes(32, 32)),
    "align": adding(pixel_values=normal(1, 3, 64, 64)),
    "dots3_note": adding(input_features=normal(1, 128, 64), chunk_sample_lengths=torch.tensor([64 * 160])),
    "glm_image": placed("image_token_id", 16, image_grid_thw=torch.tensor([[1, 4, 4]] * 2)),
    "granite_speech": mels(40, 160),
    "granite_speech_plus": mels(40, 160),
    "granite4_vision": placed("image_token_id", 10, pixel_values=normal(1, 2, 3, 32, 32), image_sizes=sizes(32, 32)),
    "gemma4_unified": adding(pixel_values_videos=normal(2, 4, 3 * 24 * 24), video_position_ids=grid(2).repeat(2, 1, 1), num_frames_per_video=torch.tensor([2]), pixel_values=normal(1, 4, 3 * 24 * 24), image_position_ids=grid(2), input_features=normal(1, 6, 64), input_features_mask=ones(1, 6, dtype=torch.bool)),
    "minicpmv4_7": adding(**_NAVIT, mm_token_type_ids=None),
    "moss_transcribe_diarize": lambda model, made: mask_of("input_features")(model, made) | {"padding_mask": torch.ones(1, made["input_features"].shape[-1] * 160, dtype=torch.long)},
    "nemo_speechlm": mels(64, 128, input_features_mask=ones(1, 64)),
    "oneformer": adding(pixel_values=normal(1, 3, 128, 128), task_inputs=tokens(1, 77)),
    "vibevoice": adding(input_values=normal(1, 1, 6400), padding_mask=ones(1, 6400), sample=False),
    "vibevoice_asr": adding(input_values=normal(1, 1, 6400), padding_mask=ones(1, 6400), sample=False),
    "pe_audio": adding(input_values=normal(1, 1, 19200)),
    "molmo2": without("pixel_values_videos", pixel_values=_PATCHES, image_token_pooling=torch.arange(16).reshape(4, 4), image_grids=torch.tensor([[2, 2, 0, 0]])),
    "molmo2_vision": adding(pixel_values=_PATCHES),
    "molmo2_adapter": adding(image_features=normal(1, 16, 2 * WIDTH), pooled_patches_idx=torch.arange(16).reshape(4, 4)),
    "neomme": adding(pixel_values=normal(16, 3 * 8 * 8)),
    "nemotron_h_omni": without("pixel_values_videos", input_features=normal(1, 96, 80), input_features_mask=ones(1, 96), pixel_values=normal(16, 3 * 8 * 8), image_grid_hw=sizes(4, 4)),
    "pix2struct": adding(flattened_patches=flattened, decoder_input_ids=tokens(1, 7)),
    "pix2struct_vision_model": adding(flattened_patches=flattened),
    "udop": adding(bbox=boxed, decoder_input_ids=tokens(1, 7)),
    "layoutlmv3": adding(bbox=boxes),
    "pi0": lambda model, made: adding(action_embeds=normal(1, 4, WIDTH), pixel_attention_mask=ones(1, 1, dtype=torch.bool))(model, made | {"pixel_values": made["pixel_values"][:, None], "input_ids": torch.cat([torch.full((1, 16), model.config.vlm_config.image_token_id), made["input_ids"]], 1), "attention_mask": torch.ones(1, 28, dtype=torch.long)}),
    "ernie4_5_vl_moe": without("pixel_values_videos", "video_grid_thw"),
    "video_llama_3": adding(image_merge_sizes=torch.tensor([1]), video_merge_sizes=torch.tensor([2])),
    "video_llama_3_vision": adding(merge_sizes=torch.tensor([2])),
    "dots3_note_audio_encoder": adding(chunk_sample_lengths=torch.tensor([64 * 160])),
    **dict.fromkeys(["qwen2_5_omni_thinker", "qwen3_omni_moe_thinker"], adding(input_features=normal(1, 128, 96), feature_attention_mask=ones(1, 96), video_second_per_grid=torch.tensor([1.0]))),
    "muse_spark": adding(input_values=normal(1, 19200)),
    "diffusion_gemma": adding(pixel_values=normal(1, 36, 3 * 8 * 8), image_position_ids=grid(6), decoder_input_ids=tokens(1, 8)),
    "kosmos-2.5": adding(flattened_patches=flattened, image_embeds_position_mask=torch.tensor([[0] * 3 + [1] * 4 + [0] * 5])),
    "llava_next_video": adding(pixel_values=normal(1, 2, 3, 32, 32), image_sizes=sizes(32, 32), pixel_values_videos=normal(1, 4, 3, 32, 32)),
    "llava_onevision": adding(pixel_values=normal(1, 2, 3, 32, 32), image_sizes=sizes(32, 32), pixel_values_videos=normal(1, 4, 3, 32, 32), image_sizes_videos=sizes(32, 32)),
    "layoutlm": adding(bbox=boxes),
    "phi4_multimodal": seen_and_heard,
    "video_llava": adding(pixel_values_videos=normal(1, 8, 3, 32, 32)),
    "visual_bert": adding(visual_embeds=normal(1, 5, WIDTH)),
    "perception_lm": framed(),
    "fast_vlm": adding(pixel_values=normal(1, 3, 64, 64)),
    "pe_video": adding(pixel_values_videos=normal(1, 4, 3, 32, 32)),
    "pe_video_encoder": adding(pixel_values_videos=normal(1, 4, 3, 32, 32)),
    "pe_audio_video": adding(pixel_values_videos=normal(1, 4, 3, 32, 32), input_values=normal(1, 1, 19200)),
    "pe_audio_video_encoder": adding(pixel_values_videos=normal(1, 4, 3, 32, 32), input_values=normal(1, 1, 19200)),
    "gemma3n": placed("audio_token_id", 8, input_features=normal(1, 64, 128), input_features_mask=ones(1, 64, dtype=torch.bool)),
    "omdet-turbo": adding(pixel_values=normal(1, 3, 128, 128), classes_input_ids=tokens(3, 5), classes_attention_mask=ones(3, 5), classes_structure=torch.tensor([3]), tasks_input_ids=tokens(1, 6), tasks_attention_mask=ones(1, 6)),
    "qwen2_audio": heard,
    "musicflamingo": lambda model, made: without("feature_attention_mask", input_features_mask=ones(1, made["input_features"].shape[-1]))(model, heard(model, made)),
    **{key: adding(**_NAVIT) for key in ("minicpm_ocr", "minicpmv4_6")},
    "voxtral_realtime": adding(input_ids=tokens(1, 8), attention_mask=ones(1, 8)),
    "xclip": adding(pixel_values=normal(1, 2, 3, 32, 32)),
    "xclip_vision_model": adding(pixel_values=normal(2, 3, 32, 32)),
    **{key: adding(pixel_values=normal(1, 3, 8, 8 * 16), target_sizes=sizes(4, 4)) for key in ("minicpm_ocr_vision", "minicpmv4_6_vision", "minicpmv4_7_vision")},
}
NOT_BUILT: Final[dict[str, str]] = {
    "sam3_video": "its forward reads and changes a session of video frames, so that no two runs are alike",
    "nougat": "transformers has no modelling file of this type; its weights run in the classes of another type",
    "layoutlmv2": "its pictures are read by detectron2, which is not installed here",
    **dict.fromkeys(["qwen2_5_omni", "qwen3_omni_moe"], "the whole only generates and has no forward; its thinker, talker and towers are types of their own"),
    **dict.fromkeys(["idefics_vision", "idefics_perciever", "gemma4_unified_vision", "gemma4_unified_audio"], "the configuration of a piece: its module is a part of a model, no model of its own"),
}
