"""Rows for types that read images or videos alone. Shaped like ``odd.py``."""

from collections.abc import Callable
from typing import Any, Final

import torch
from transformers import CONFIG_MAPPING

from tests.sweep.rows import Feed, adding, image, normal, of, ones, only
from tests.sweep.shrink import WIDTH

_EFFICIENT: Final[dict[str, Any]] = {
    "width_coefficient": 0.25, "depth_coefficient": 1.0, "num_block_repeats": (1,) * 7,
    "in_channels": (32, 16, 24, 40, 80, 112, 192), "out_channels": (16, 24, 40, 80, 112, 192, 320), "hidden_dim": 320,
}  # fmt: skip
_HIERA: Final[dict[str, Any]] = {
    "hidden_size": 16, "image_size": [64, 64], "blocks_per_stage": [1, 2, 1, 1],
    "embed_dim_per_stage": [16, 32, 64, 128], "num_attention_heads_per_stage": [1, 2, 4, 4],
    "window_size_per_stage": [4, 4, 2, 2], "global_attention_blocks": [2],
}  # fmt: skip
_SAM2: Final[dict[str, Any]] = {
    "backbone_channel_list": [128, 64, 32, 16], "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    **{f"backbone_config.{name}": one for name, one in _HIERA.items()},
}  # fmt: skip
_LCNET: Final[dict[str, Any]] = {"stem_channels": (3, 48, 96)}
_OCR: Final[dict[str, Any]] = {f"backbone_config.{name}": one for name, one in _LCNET.items()}
_INTRACLASS: Final[dict[str, list[Any]]] = {  # kernel, stride, padding
    "reduce_channel": [1, 1, 0], "return_channel": [1, 1, 0],
    **{
        f"{way}_{length}": [[k if up else 1, k if across else 1], 1, [k // 2 if up else 0, k // 2 if across else 0]]
        for way, up, across in (
            ("vertical_long_to_small_conv", True, False), ("horizontal_small_to_long_conv", False, True),
            ("symmetric_conv_long", True, True),
        )
        for length, k in (("longratio", 7), ("midratio", 5), ("shortratio", 3))
    },
}  # fmt: skip
_READING: Final[dict[str, Any]] = {
    "class_thresholds": [0.5] * 25, "class_order": [0] * 25, "reading_order_config.max_2d_position_embeddings": 1024,
    "reading_order_config.start_token_id": 0, "reading_order_config.pad_token_id": 1,
    "reading_order_config.end_token_id": 2, "reading_order_config.pred_token_id": 3,
}  # fmt: skip
_PAIR: Final = image(64, 64, frames=2)


def _resnet(key: str) -> Callable[[], Any]:
    """A detector on a ResNet of transformers in place of one of timm."""
    stages = ["stage1", "stage2", "stage3", "stage4"]
    return lambda: CONFIG_MAPPING[key](
        use_timm_backbone=False, backbone_config=CONFIG_MAPPING["resnet"](out_features=stages)
    )


def _flattened(model: Any) -> torch.Tensor:
    """Twelve patches that say their row and column ``[1, 12, 2 + value]``."""
    places = torch.stack([torch.arange(12) // 4 + 1, torch.arange(12) % 4 + 1], dim=-1)[None].float()
    return torch.cat([places, torch.randn(1, 12, WIDTH)], dim=-1)


def _grid(side: int) -> Callable[[Any], torch.Tensor]:
    """Column and row of each patch of a square ``[1, patch, 2]``."""
    return lambda model: torch.stack([torch.arange(side**2) % side, torch.arange(side**2) // side], dim=-1)[None]


def _shape(height: int, width: int) -> Callable[[Any], torch.Tensor]:
    return lambda model: torch.tensor([[height, width]])


_LEVELS: Final = only(
    vision_features=lambda model: [torch.randn(1, WIDTH, 4, 4)], text_features=normal(1, 6, WIDTH),
    vision_pos_embeds=lambda model: [torch.randn(1, WIDTH, 4, 4)],
)  # fmt: skip
_QUERIES: Final = only(
    vision_features=normal(1, 16, WIDTH), text_features=normal(1, 6, WIDTH), vision_pos_encoding=normal(1, 16, WIDTH),
    spatial_shapes=_shape(4, 4),
)  # fmt: skip
_MASKS: Final = only(
    decoder_queries=normal(1, 8, WIDTH), encoder_hidden_states=normal(1, 16, WIDTH),
    prompt_features=normal(1, 6, WIDTH),
    backbone_features=lambda model: [torch.randn(1, WIDTH, side, side) for side in (16, 8, 4)],
)  # fmt: skip

CONFIGS: Final[dict[str, dict[str, Any]]] = {
    "align_vision_model": _EFFICIENT,
    "bit": {"num_groups": 8},
    "depth_pro": {"intermediate_hook_ids": (1, 0)},
        "efficientloftr": {"head_dim": 8, "num_key_value_heads": 8, "num_attention_heads": 8},
    "efficientnet": _EFFICIENT,
    "janus_vqgan": {"num_patches": 2, "base_channels": 32, "latent_channels": 32},
    "levit": {"patch_size": 16, "image_size": 128},
    "lw_detr_vit": {"num_windows": 4, "num_windows_side": 2},
    "llama4_vision_model": {
        "intermediate_size": 4 * WIDTH, "projector_input_dim": WIDTH, "projector_output_dim": WIDTH,
        "vision_output_dim": WIDTH,
    },
    "molmo2_vision": {"num_position_embeddings": 16},
    "pp_doclayout_v2": _READING,
    "pp_doclayout_v3": {"x4_feat_dim": 16},
    "pp_formulanet": {"vision_config.output_channels": 256},
    "pp_formulanet_vision": {"output_channels": 256},
    "pp_lcnet_v4": _LCNET,
    "pp_ocrv5_server_det": {
        "kernel_list": [3, 2, 2], "scale_factor_list": [1, 2, 4, 8], "intraclass_block_config": _INTRACLASS,
    },
    "pp_ocrv6_small_rec": _OCR,
    "pp_ocrv6_tiny_rec": _OCR,
    "slanext": {"vision_config.output_channels": 256},
    "lightglue": {
        "intermediate_size": 2 * WIDTH, "descriptor_dim": WIDTH,
        "keypoint_detector_config.descriptor_decoder_dim": WIDTH,
    },
    "superglue": {"keypoint_detector_config.descriptor_decoder_dim": WIDTH},
    "minicpm_ocr_vision": {"insert_layer_id": 0},
    "minicpmv4_6_vision": {"insert_layer_id": 0},
    "minicpmv4_7_vision": {"insert_layer_id": 0},
    "sam2": {f"vision_config.{name}": one for name, one in _SAM2.items()}
    | {"prompt_encoder_config.image_size": 64, "prompt_encoder_config.patch_size": 16},
    "sam2_hiera_det_model": _HIERA,
    "sam2_vision_model": _SAM2,
    "sam3_tracker": {"vision_config.backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]},
    "sam3_lite_text_text_model": {"num_hidden_layers": 3},  # the first and the last have no attention
    "sapiens2": {"num_key_value_heads_per_layer": [4, 2]},
    "seggpt": {"image_size": (64, 32), "merge_index": 0},
    "textnet": {"stem_out_channels": 8},
    "unlimited_ocr_vision": {"sam_config.downsample_channels": (WIDTH, WIDTH)},
    "vitmatte": {
        "backbone_config.patch_size": 16, "backbone_config.num_channels": 4, "fusion_hidden_sizes": [32, 16, 8, 8],
    },
    "zoedepth": {"bottleneck_features": WIDTH},
}  # fmt: skip

CLASSES: Final[dict[str, str]] = {}

MAKERS: Final[dict[str, Callable[[], Any]]] = {
    **{key: _resnet(key) for key in ("conditional_detr", "dab-detr", "deformable_detr", "detr", "table-transformer")},
    "efficientloftr": of(
        "efficientloftr", hidden_size=WIDTH, out_features=[16, 16, 32, WIDTH], stage_num_blocks=[1, 1, 1, 2],
        num_attention_heads=8,
    ),
    "lw_detr": of("lw_detr", projector_scale_factors=[1.0]),
    "uvdoc": lambda: CONFIG_MAPPING["uvdoc"](
        backbone_config=CONFIG_MAPPING["uvdoc_backbone"](out_features=[f"stage{stage}" for stage in range(1, 7)])
    ),
}  # fmt: skip

FEEDS: Final[dict[str, Feed]] = {
    "blip_2_qformer": adding(query_embeds=normal(1, 8, WIDTH), encoder_hidden_states=normal(1, 9, WIDTH)),
    "bridgetower_vision_model": only(image=normal(1, 3, 32, 32)),
    "deepseek_ocr2_encoder": only(inputs_embeds=normal(1, 16, WIDTH), num_patches=16),
    "efficientloftr": _PAIR,
    "florence_vision": only(hidden_states=normal(1, 3, 64, 64)),
    "gemma4_vision": only(pixel_values=normal(1, 36, 192), pixel_position_ids=_grid(6)),
    "idefics2_perceiver": only(context=normal(1, 16, WIDTH), attention_mask=ones(1, 16)),
    "inkling2_vision": adding(pixel_values=normal(16, 64, 3)),
    "kimi_k25_vision": adding(pixel_values=normal(16, 3, 8, 8)),
    "lightglue": _PAIR,
    "mllama_vision_model": only(
        pixel_values=normal(1, 1, 4, 3, 32, 32), aspect_ratio_ids=lambda model: torch.tensor([[6]]),
        aspect_ratio_mask=ones(1, 1, 4),
    ),
    "mobilevitv2": image(64, 64),
    "molmo2_vision": only(pixel_values=normal(1, 16, 192)),
    "paddleocr_vl_vision": adding(pixel_values=normal(1, 16, 3, 8, 8)),
    "pix2struct_vision_model": only(flattened_patches=_flattened, attention_mask=ones(1, 12)),
    "pp_ocrv5_mobile_rec": image(96, 96),
    "pp_ocrv5_server_rec": image(48, 96),
    "pp_ocrv6_small_rec": image(48, 96),
    "pp_ocrv6_tiny_rec": image(48, 96),
    "sam2": image(64, 64),
    "sam2_hiera_det_model": image(64, 64),
    "sam2_vision_model": image(64, 64),
    "sam3_detr_decoder": _QUERIES,
    "sam3_detr_encoder": _LEVELS,
    "sam3_lite_text_detr_decoder": _QUERIES,
    "sam3_lite_text_detr_encoder": _LEVELS,
    "sam3_lite_text_mask_decoder": _MASKS,
    "sam3_mask_decoder": _MASKS,
    "seggpt": only(
        pixel_values=normal(1, 3, 32, 32), prompt_pixel_values=normal(1, 3, 32, 32), prompt_masks=normal(1, 3, 32, 32)
    ),
    "siglip2_vision_model": only(
        pixel_values=normal(1, 16, 192), pixel_attention_mask=ones(1, 16), spatial_shapes=_shape(4, 4)
    ),
    "superglue": _PAIR,
    "timesformer": image(32, 32, frames=8),
    "uvdoc": image(192, 192),
    "unlimited_ocr_vision_encoder": only(patch_embeds=normal(1, WIDTH, 4, 4)),
    "video_llama_3_vision": adding(merge_sizes=lambda model: torch.tensor([2])),
    "videomae": image(32, 32, frames=16),
    "vitmatte": image(64, 64, channels=4),
    "vivit": image(32, 32, frames=32),
    "xclip_vision_model": only(pixel_values=normal(8, 3, 32, 32)),
}  # fmt: skip

_TIMM: Final = "its images go through a model of timm, which is not installed here"
_SESSION: Final = "its forward reads and changes a session of video frames, so that no two runs are alike"
_PIECE: Final = "the configuration of a piece: its module is a part of a model, no model of its own"
_NO_FORWARD: Final = "its class has no forward, only ways to encode and decode"

NOT_BUILT: Final[dict[str, str]] = {
    **dict.fromkeys(["edgetam", "edgetam_vision_model", "edgetam_video", "gemma3n_vision", "timm_backbone"], _TIMM),
    "timm_wrapper": _TIMM,
    "dinat": "its attention is a kernel of natten, which is not installed here",
    **dict.fromkeys(["sam2_video", "sam3_tracker_video"], _SESSION),
    **dict.fromkeys(
        ["pp_ocrv6_medium_det", "pp_ocrv6_small_det"],
        "its neck wants maps that halve both ways; the strides that its backbone has from nothing halve one way only",
    ),
    **dict.fromkeys(["chameleon_vqgan", "emu3_vqgan", "glm_image_vqmodel"], _NO_FORWARD),
    **dict.fromkeys(
        [
            "edgetam_mask_decoder", "edgetam_prompt_encoder", "edgetam_video_mask_decoder",
            "edgetam_video_prompt_encoder", "sam2_mask_decoder", "sam2_prompt_encoder", "sam2_video_mask_decoder",
            "sam2_video_prompt_encoder", "sam3_geometry_encoder", "sam3_lite_text_geometry_encoder",
            "sam3_tracker_mask_decoder", "sam3_tracker_prompt_encoder", "sam3_tracker_video_mask_decoder",
            "sam3_tracker_video_prompt_encoder", "sam_hq_mask_decoder", "sam_hq_prompt_encoder", "sam_mask_decoder",
            "sam_prompt_encoder", "sapiens2_head",
        ],
        _PIECE,
    ),
}  # fmt: skip
