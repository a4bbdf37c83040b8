"""What a type needs beyond the common sizes, as rows of data."""

from collections.abc import Callable
from typing import Any, Final

import torch
from transformers import CONFIG_MAPPING
from transformers.models.esmfold2.modeling_esmfold2 import EsmFold2AtomInputs

from tests.sweep import odd_audio, odd_vision
from tests.sweep.rows import Feed, adding, boxes, normal, of, ones, only, tokens
from tests.sweep.shrink import HEAD_SIZE, WIDTH

_HYBRID: Final = ["linear_attention", "full_attention"]
_ZAMBA: Final = {"layers_block_type": ["linear_attention", "hybrid", "hybrid"], "num_hidden_layers": 3}
_ASSISTANT: Final[dict[str, Any]] = {
    "layer_types": ["sliding_attention", "full_attention"] * 2, "global_head_dim": HEAD_SIZE,
}  # fmt: skip
# All their layers take the keys of another model; but this version of transformers refuses that none makes its own.
_SHARED: Final[dict[str, Any]] = {
    "backbone_hidden_size": WIDTH, "text_config.layer_types": ["sliding_attention", "full_attention"] * 2,
    "text_config.num_hidden_layers": 4, "text_config.num_kv_shared_layers": 2,
}  # fmt: skip
_SERIES: Final[dict[str, Any]] = {
    "prediction_length": 6, "context_length": 12, "num_time_features": 2, "lags_sequence": [1, 2, 3],
}  # fmt: skip
_SERIES_FEED: Final = only(
    past_values=normal(1, 15), past_time_features=normal(1, 15, 2), past_observed_mask=ones(1, 15),
    future_values=normal(1, 6), future_time_features=normal(1, 6, 2),
)  # fmt: skip


def _atoms(model: Any) -> EsmFold2AtomInputs:
    """Two atoms for each of six residues."""
    return EsmFold2AtomInputs(
        ref_pos=torch.randn(1, 12, 3), ref_charge=torch.zeros(1, 12),
        atom_attention_mask=torch.ones(1, 12, dtype=torch.bool),
        ref_element=torch.randint(1, 20, (1, 12)), ref_atom_name_chars=torch.randint(1, 60, (1, 12, 4)),
        ref_space_uid=torch.arange(12)[None] // 2, atom_to_token=torch.arange(12)[None] // 2,
    )  # fmt: skip


def _residues(model: Any) -> torch.Tensor:
    return torch.arange(6)[None]


_ATOM_PARTS: Final = ("", "structure_head.diffusion_module.")
_FOLD: Final = only(
    **dict.fromkeys(("token_index", "residue_index"), _residues), res_type=tokens(1, 6, below=20),
    **dict.fromkeys(("asym_id", "sym_id", "entity_id", "mol_type"), tokens(1, 6, below=1)),
    token_bonds=lambda model: torch.zeros(1, 6, 6, 1), attention_mask=ones(1, 6, dtype=torch.bool),
    input_ids=tokens(1, 6, below=20), atom_inputs=_atoms,
)  # fmt: skip
_ASSISTANT_FEED: Final = only(
    inputs_embeds=normal(1, 8, 2 * WIDTH), output_hidden_states=True, position_ids=lambda model: torch.arange(8)[None],
    shared_kv_states=lambda model: {
        kind: (torch.randn(1, heads, 8, HEAD_SIZE), torch.randn(1, heads, 8, HEAD_SIZE))
        for kind, heads in (("full_attention", 2), ("sliding_attention", 2))
    },
)  # fmt: skip

# type -> names of numbers that are not what their name suggests, and what they must be
CONFIGS: Final[dict[str, dict[str, Any]]] = {
    # recurrent and hybrid layers: one of each kind
    "bamba": {"attn_layer_indices": [1]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "granitemoehybrid": {"layer_types": _HYBRID},
    "recurrent_gemma": {"block_types": ("recurrent", "attention"), "attention_window_size": 4},
    "zamba": _ZAMBA | {"attention_head_dim": 32, "attention_hidden_size": 128},
    "zamba2": _ZAMBA | {"hybrid_layer_ids": [1, 2]},
    "mamba2": {"head_dim": 32},
    "falcon_h1": {"mamba_d_ssm": 128, "mamba_d_head": 32},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "xlstm": {"qk_dim_factor": 1.0},
    # per-layer lists and depths
    "gemma3n_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 2, "num_hidden_layers": 4, "num_kv_shared_layers": 2,
        "intermediate_size": [96] * 4, "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0],
    },
    "hrm_text": {"num_hidden_layers": 8, "num_layers_per_stack": 1, "H_cycles": 2, "L_cycles": 3},
    "deepseek_ocr2_text": {"mlp_layer_types": ["dense", "sparse"]},
    "cohere_compass_text": {
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
            for kind in ("full_attention", "sliding_attention")
        },
    },
    # widths that must agree
    "gemma4_assistant": _SHARED,
    "gemma4_unified_assistant": _SHARED,
    "blt": {
        "local_attention_window_len": 4, "encoder_hash_byte_group_vocab": 500,
        "global_config.encoder_cross_output_size": 2 * WIDTH, "decoder_config.hidden_size_global": WIDTH,
    },
    "blt_global_transformer": {"encoder_cross_output_size": 2 * WIDTH},
    "blt_local_decoder": {"hidden_size_global": WIDTH},
    "longcat_flash": {"head_dim": HEAD_SIZE // 2, "zero_expert_num": 2},
    "kolibri1": {"n_routed_experts": 4, "num_experts": 4},
    # windows and blocks smaller than the text
    "big_bird": {"block_size": 1, "num_random_blocks": 1},
    "bigbird_pegasus": {"block_size": 1, "num_random_blocks": 1},
    "canine": {"local_transformer_stride": 4},
    "doge": {"keep_window_size": 4},
    "gpt_neo": {"window_size": 4},
    "longt5": {"global_block_size": 4},
    "minimax": {"block_size": 4},
    "minimax_m3_vl_text": {"index_block_size": 4, "index_topk_blocks": 2},
    "pegasus_x": {"block_size": 4},
    "llama4_text": {"attention_chunk_size": 4},
    "reformer": {
        "axial_pos_embds_dim": (16, 48), "axial_pos_shape": (4, 4), "attn_layers": ["local", "lsh"],
        "num_hidden_layers": 2, "local_attn_chunk_length": 4, "lsh_attn_chunk_length": 4, "num_buckets": 4,
    },
    "led": {"attention_window": 4},
    "lilt": {"hidden_size": 96},
    "ernie4_5_vl_moe_text": {"rope_parameters.mrope_section": [3, 3, 2]},
    "paddleocr_vl_text": {"rope_parameters.mrope_section": [2, 3, 3]},
    # numbers that have no default
    "dbrx": {"attn_config.rope_theta": 10000.0, "attn_config.clip_qkv": 8.0},
    "diffusion_gemma_text": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 96},
    "esm": {"vocab_size": 160, "mask_token_id": 32, "pad_token_id": 1},
    "esmfold2": {
        "single_inputs_size": WIDTH + 67, "char_vocab_size": 64, "atom_feature_dim": 389, "num_loops": 1,
        "folding_trunk_num_hidden_layers": 2, "parcae_num_coda_layers": 1, "vocab_size": 160,
        **{f"{part}atom_encoder.num_uid_rope_pairs": 4 for part in _ATOM_PARTS},
        **{f"{part}atom_encoder.num_spatial_rope_pairs_per_axis": 1 for part in _ATOM_PARTS},
    },
    "pix2struct_text_model": {"initializer_range": 0.02},
    "qwen3_omni_moe_talker_text": {"shared_expert_intermediate_size": 96},
    "qwen4_exp_text": {
        "indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 4,
        "indexer_compress_ratio": 2, "ngram_vocab_size_base": 100,
    },
    "t5gemma2_text": {"dropout_rate": 0.0},
    "t5gemma2_decoder": {"dropout_rate": 0.0},
    "xmod": {"default_language": "en_XX"},
    # series
    "patchtst": {"patch_length": 4, "patch_stride": 4},
    "timesfm2_5": {"context_length": 128, "output_quantile_len": 64},
    **odd_audio.CONFIGS,
    **odd_vision.CONFIGS,
}  # fmt: skip

# type -> the class of its model, where no Auto class has one
CLASSES: Final[dict[str, str]] = {
    "voxtral_realtime_text": "VoxtralRealtimeTextModel",
    "t5gemma2_decoder": "T5Gemma2Decoder",
    **odd_audio.CLASSES,
    **odd_vision.CLASSES,
}

# type -> how its configuration is made where it cannot be made from nothing
MAKERS: Final[dict[str, Callable[[], Any]]] = {
    "autoformer": of("autoformer", moving_average=5, label_length=4, **_SERIES),
    "informer": of("informer", **_SERIES),
    "time_series_transformer": of("time_series_transformer", **_SERIES),
    "gemma4_assistant": lambda: CONFIG_MAPPING["gemma4_assistant"](
        text_config=CONFIG_MAPPING["gemma4_text"](
            hidden_size_per_layer_input=0, vocab_size_per_layer_input=0, use_double_wide_mlp=False,
            enable_moe_block=False, num_hidden_layers=4, num_kv_shared_layers=4, **_ASSISTANT,
        )
    ),
    "gemma4_unified_assistant": lambda: CONFIG_MAPPING["gemma4_unified_assistant"](
        text_config=CONFIG_MAPPING["gemma4_unified_text"](num_hidden_layers=4, num_kv_shared_layers=4, **_ASSISTANT)
    ),
    "step3p5": of(
        "step3p5", layer_types=["full_attention", "sliding_attention"], sliding_window=512, num_hidden_layers=2
    ),
    "dots3_note_text": of(
        "dots3_note_text", layer_types=["indexed_attention", "sliding_attention"], num_hidden_layers=2, head_dim=16,
        qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=16, swa_num_attention_heads=4, swa_num_key_value_heads=4,
        swa_q_lora_rank=16, swa_kv_lora_rank=16, swa_head_dim=16, swa_qk_nope_head_dim=8, swa_v_head_dim=16,
    ),
    **odd_audio.MAKERS,
    **odd_vision.MAKERS,
}  # fmt: skip

# type -> how its inputs differ from what its forward's names suggest
FEEDS: Final[dict[str, Feed]] = {
    # text that comes with more than its tokens
    "blt": adding(use_cache=False),
    "blt_global_transformer": only(inputs_embeds=normal(1, 12, 2 * WIDTH)),
    "blt_local_encoder": only(
        input_ids=tokens(1, 12), num_patches=4, patch_ids=lambda model: torch.arange(12)[None] // 3,
    ),
    "blt_local_decoder": only(inputs_embeds=normal(1, 12, WIDTH), patch_embeds=normal(1, 4, WIDTH)),
    "voxtral_realtime_text": adding(t_cond=normal(1, 1, WIDTH)),
    "t5gemma2_decoder": adding(encoder_hidden_states=normal(1, 9, WIDTH)),
    "bros": adding(bbox=lambda model: boxes(model) / 1000),
    "lilt": adding(bbox=boxes),
    "qwen3_omni_moe_talker_code_predictor": only(inputs_embeds=normal(1, 12, WIDTH)),
    "qwen3_omni_moe_talker_text": only(inputs_embeds=normal(1, 12, WIDTH)),
    "muse_glimmer_assistant": only(
        noise_embeds=normal(1, 4, WIDTH), context_hidden_states=normal(1, 8, 2 * WIDTH), attention_mask=ones(1, 12)
    ),
    "jev": adding(
        marks=lambda model: torch.tensor([[5, 11]]), num_options=lambda model: torch.tensor([[2, 3]]),
        question_type_ids=lambda model: torch.tensor([[0, 1]]),
    ),
    "rag": adding(
        context_input_ids=tokens(5, 12), context_attention_mask=ones(5, 12), doc_scores=normal(1, 5),
        decoder_input_ids=tokens(1, 7),
    ),
    "gemma4_assistant": _ASSISTANT_FEED,
    "gemma4_unified_assistant": _ASSISTANT_FEED,
    "esmfold2": _FOLD,
    "perceiver": only(inputs=normal(1, 12, WIDTH)),
    # decisions and series
    "decision_transformer": only(
        states=normal(1, 6, 17), actions=normal(1, 6, 4), rewards=normal(1, 6, 1), returns_to_go=normal(1, 6, 1),
        timesteps=lambda model: torch.arange(6)[None], attention_mask=ones(1, 6),
    ),
    "autoformer": _SERIES_FEED,
    "informer": _SERIES_FEED,
    "time_series_transformer": _SERIES_FEED,
    "patchtst": only(past_values=normal(1, 32, 1)),
    "patchtsmixer": only(past_values=normal(1, 32, 1)),
    "timesfm": only(
        past_values=normal(1, 128), past_values_padding=tokens(1, 128, below=1), freq=tokens(1, 1, below=1)
    ),
    "timesfm2_5": only(past_values=normal(1, 128)),
    **odd_audio.FEEDS,
    **odd_vision.FEEDS,
}  # fmt: skip

_NO_FILE: Final = "transformers has no modelling file of this type; its weights run in the classes of another type"

# type -> why it is not built: what is missing here, or that it is no model
NOT_BUILT: Final[dict[str, str]] = {
    "t5_gemma_module": "the configuration of a side of t5gemma: its module is a part, no model of its own",
    **dict.fromkeys(["glmga", "internlm3", "iquestcoder", "layoutxlm"], _NO_FILE),
    **dict.fromkeys(["pp_chart2table", "pp_chart2table_vision"], _NO_FILE),
    **odd_audio.NOT_BUILT,
    **odd_vision.NOT_BUILT,
}

# type -> how many softmaxes went into a product there that is no look at other positions, and so no map
NO_MAPS: Final[dict[str, int]] = {
    "deepseek_v4": 4,  # streams of the residual, mixed in place
    "glm5_next": 4,
    "glm5_next_text": 4,
    "convbert": 2,  # a convolution whose kernel each position makes
    "esmfold2": 1,  # one weight for each layer of another model, the same at every position
}

# type -> how many layers attend there whose kernels do not show it (windows by strides, hash buckets)
PROBED: Final[dict[str, int]] = {
    "big_bird": 2, "bigbird_pegasus": 6, "informer": 6, "led": 6, "longformer": 2, "longt5": 6, "reformer": 2,
}  # fmt: skip
