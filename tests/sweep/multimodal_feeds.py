"""What the types of ``odd_multimodal.py`` read that the names of their forward do not say."""

from typing import Any, Final

import torch

from tests.sweep.feed import words
from tests.sweep.rows import Feed, adding, boxes, mels, normal, ones, tokens
from tests.sweep.shrink import WIDTH


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


_NAVIT: Final = {
    "pixel_values": normal(1, 3, 8, 8 * 16), "target_sizes": sizes(4, 4),
    "pixel_values_videos": normal(1, 3, 8, 8 * 16), "target_sizes_videos": sizes(4, 4),
}  # fmt: skip
_PATCHES: Final = normal(1, 16, 3 * 8 * 8)  # four by four patches of eight by eight pixels
_CUTS: Final = normal(16, 3, 8, 8)
_SHAPES: Final = {"pixel_values": _PATCHES, "pixel_attention_mask": ones(1, 16), "spatial_shapes": sizes(4, 4)}
_MLLAMA: Final = {
    "pixel_values": normal(1, 1, 4, 3, 32, 32), "aspect_ratio_ids": torch.tensor([[6]]),
    "aspect_ratio_mask": ones(1, 1, 4),
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
    """A picture as a whole and as its one crop (two by two places and line ends, twice), and twelve frames of sound."""
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

FEEDS: Final[dict[str, Feed]] = {
    **dict.fromkeys(["audioflamingo3", "glmasr"], mask_of("input_features")),
    "fun_asr_nano": adding(input_features=normal(1, 20, 560), input_features_mask=ones(1, 20)),
    "qwen3_asr": adding(input_features=normal(1, 128, 100), input_features_mask=ones(1, 100)),
    **dict.fromkeys(["idefics2", "idefics3", "smolvlm", "modernvbert", "colmodernvbert", "ultravbert"], framed()),
    **dict.fromkeys(["mistral3", "mistral_large4", "lighton_ocr"], adding(image_sizes=sizes(32, 32))),
    **dict.fromkeys(
        ["llava_next", "granite4_vision"], adding(pixel_values=normal(1, 2, 3, 32, 32), image_sizes=sizes(32, 32))
    ),
    **dict.fromkeys(
        ["glm46v", "glm4v", "glm4v_moe", "glm5_next", "glm_ocr"], without("pixel_values_videos", "video_grid_thw")
    ),
    **dict.fromkeys(["siglip2", "siglip2_vision_model", "lfm2_vl"], adding(**_SHAPES)),
    **dict.fromkeys(["gemma4", "embedding_gemma2"], adding(**_GEMMA4)),
    "gemma4_vision": adding(pixel_values=normal(1, 36, 3 * 8 * 8), pixel_position_ids=grid(6)),
    "blip-2": placed("image_token_id", 4),
    "blip_2_qformer": adding(query_embeds=normal(1, 4, WIDTH), encoder_hidden_states=normal(1, 17, WIDTH)),
    "bridgetower_vision_model": adding(image=normal(1, 3, 32, 32)),
    "clap": adding(input_features=normal(1, 1, 64, 64)),
    "colqwen2": lambda model, made: without("pixel_values_videos", "video_grid_thw")(
        model, made | {"pixel_values": made["pixel_values"][None]}
    ),
    "deepseek_vl_hybrid": adding(high_res_pixel_values=normal(1, 3, 32, 32)),
    "fuyu": adding(pixel_values=_PATCHES),
    "granite_docling": framed(pixel_attention_mask=ones(1, 1, dtype=torch.bool)),
    "idefics": framed(image_attention_mask=ones(1, 12, 1)),
    "idefics2_perceiver": adding(context=normal(1, 16, WIDTH)),
    "inkling2": adding(pixel_values=normal(4, 16, 16, 3), image_grid_thw=torch.tensor([[1, 2, 2]])),
    "inkling2_vision": adding(pixel_values=normal(4, 16, 16, 3), image_grid_thw=torch.tensor([[1, 2, 2]])),
    "inkling_mm_model": lambda model, made: placed(
        "audio_token_id", 6, pixel_values=normal(4, 2, 8, 8, 3), audio_input_ids=tokens(1, 6, 80)
    )(model, made),
    "inkling_vision": adding(pixel_values=normal(4, 2, 8, 8, 3)),
    "instructblip": placed("image_token_id", 4, qformer_input_ids=tokens(1, 6)),
    "instructblipvideo": placed(
        "video_token_id", 16, qformer_input_ids=tokens(1, 6), pixel_values=normal(1, 4, 3, 32, 32)
    ),
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
    "gemma4_unified": adding(
        pixel_values_videos=normal(2, 4, 3 * 24 * 24),
        video_position_ids=grid(2).repeat(2, 1, 1),
        num_frames_per_video=torch.tensor([2]),
        pixel_values=normal(1, 4, 3 * 24 * 24),
        image_position_ids=grid(2),
        input_features=normal(1, 6, 64),
        input_features_mask=ones(1, 6, dtype=torch.bool),
    ),
    "minicpmv4_7": adding(**_NAVIT, mm_token_type_ids=None),
    "moss_transcribe_diarize": lambda model, made: (
        mask_of("input_features")(model, made)
        | {"padding_mask": torch.ones(1, made["input_features"].shape[-1] * 160, dtype=torch.long)}
    ),
    "nemo_speechlm": mels(64, 128, input_features_mask=ones(1, 64)),
    "oneformer": adding(pixel_values=normal(1, 3, 128, 128), task_inputs=tokens(1, 77)),
    "vibevoice": adding(input_values=normal(1, 1, 6400), padding_mask=ones(1, 6400), sample=False),
    "vibevoice_asr": adding(input_values=normal(1, 1, 6400), padding_mask=ones(1, 6400), sample=False),
    "pe_audio": adding(input_values=normal(1, 1, 19200)),
    "molmo2": without(
        "pixel_values_videos",
        pixel_values=_PATCHES,
        image_token_pooling=torch.arange(16).reshape(4, 4),
        image_grids=torch.tensor([[2, 2, 0, 0]]),
    ),
    "molmo2_vision": adding(pixel_values=_PATCHES),
    "molmo2_adapter": adding(
        image_features=normal(1, 16, 2 * WIDTH), pooled_patches_idx=torch.arange(16).reshape(4, 4)
    ),
    "neomme": adding(pixel_values=normal(16, 3 * 8 * 8)),
    "nemotron_h_omni": without(
        "pixel_values_videos",
        input_features=normal(1, 96, 80),
        input_features_mask=ones(1, 96),
        pixel_values=normal(16, 3 * 8 * 8),
        image_grid_hw=sizes(4, 4),
    ),
    "pix2struct": adding(flattened_patches=flattened, decoder_input_ids=tokens(1, 7)),
    "pix2struct_vision_model": adding(flattened_patches=flattened),
    "udop": adding(bbox=boxed, decoder_input_ids=tokens(1, 7)),
    "layoutlmv3": adding(bbox=boxes),
    "pi0": lambda model, made: adding(
        action_embeds=normal(1, 4, WIDTH), pixel_attention_mask=ones(1, 1, dtype=torch.bool)
    )(
        model,
        made
        | {
            "pixel_values": made["pixel_values"][:, None],
            "input_ids": torch.cat([torch.full((1, 16), model.config.vlm_config.image_token_id), made["input_ids"]], 1),
            "attention_mask": torch.ones(1, 28, dtype=torch.long),
        },
    ),
    "ernie4_5_vl_moe": without("pixel_values_videos", "video_grid_thw"),
    "video_llama_3": adding(image_merge_sizes=torch.tensor([1]), video_merge_sizes=torch.tensor([2])),
    "video_llama_3_vision": adding(merge_sizes=torch.tensor([2])),
    "dots3_note_audio_encoder": adding(chunk_sample_lengths=torch.tensor([64 * 160])),
    **dict.fromkeys(
        ["qwen2_5_omni_thinker", "qwen3_omni_moe_thinker"],
        adding(
            input_features=normal(1, 128, 96),
            feature_attention_mask=ones(1, 96),
            video_second_per_grid=torch.tensor([1.0]),
        ),
    ),
    "muse_spark": adding(input_values=normal(1, 19200)),
    "diffusion_gemma": adding(
        pixel_values=normal(1, 36, 3 * 8 * 8), image_position_ids=grid(6), decoder_input_ids=tokens(1, 8)
    ),
    "kosmos-2.5": adding(
        flattened_patches=flattened, image_embeds_position_mask=torch.tensor([[0] * 3 + [1] * 4 + [0] * 5])
    ),
    "llava_next_video": adding(
        pixel_values=normal(1, 2, 3, 32, 32), image_sizes=sizes(32, 32), pixel_values_videos=normal(1, 4, 3, 32, 32)
    ),
    "llava_onevision": adding(
        pixel_values=normal(1, 2, 3, 32, 32),
        image_sizes=sizes(32, 32),
        pixel_values_videos=normal(1, 4, 3, 32, 32),
        image_sizes_videos=sizes(32, 32),
    ),
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
    "gemma3n": placed(
        "audio_token_id", 8, input_features=normal(1, 64, 128), input_features_mask=ones(1, 64, dtype=torch.bool)
    ),
    "omdet-turbo": adding(
        pixel_values=normal(1, 3, 128, 128),
        classes_input_ids=tokens(3, 5),
        classes_attention_mask=ones(3, 5),
        classes_structure=torch.tensor([3]),
        tasks_input_ids=tokens(1, 6),
        tasks_attention_mask=ones(1, 6),
    ),
    "qwen2_audio": heard,
    "musicflamingo": lambda model, made: without(
        "feature_attention_mask", input_features_mask=ones(1, made["input_features"].shape[-1])
    )(model, heard(model, made)),
    **{key: adding(**_NAVIT) for key in ("minicpm_ocr", "minicpmv4_6")},
    "voxtral_realtime": adding(input_ids=tokens(1, 8), attention_mask=ones(1, 8)),
    "xclip": adding(pixel_values=normal(1, 2, 3, 32, 32)),
    "xclip_vision_model": adding(pixel_values=normal(2, 3, 32, 32)),
    **{
        key: adding(pixel_values=normal(1, 3, 8, 8 * 16), target_sizes=sizes(4, 4))
        for key in ("minicpm_ocr_vision", "minicpmv4_6_vision", "minicpmv4_7_vision")
    },
}
