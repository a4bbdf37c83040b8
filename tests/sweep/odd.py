"""What a type needs beyond the common sizes, as rows of data."""

from collections.abc import Callable
from typing import Any, Final

import torch
from transformers import CONFIG_MAPPING, PreTrainedConfig

from tests.sweep.shrink import HEAD_SIZE, WIDTH


Feed = Callable[[Any, dict[str, Any]], dict[str, Any]]


def of(key: str, **values: Any) -> Callable[[], PreTrainedConfig]:
    """A maker: the configuration of a type with some values given."""
    return lambda: CONFIG_MAPPING[key](**values)


def normal(*shape: int) -> Callable[[Any], torch.Tensor]:
    """Random numbers, drawn when the inputs are made."""
    return lambda model: torch.randn(shape)


def tokens(*shape: int, below: int = 128) -> Callable[[Any], torch.Tensor]:
    """Random tokens, drawn when the inputs are made."""
    return lambda model: torch.randint(0, below, shape)


def ones(*shape: int, dtype: torch.dtype = torch.long) -> Callable[[Any], torch.Tensor]:
    """A mask that hides nothing."""
    return lambda model: torch.ones(shape, dtype=dtype)


def adding(**more: Any) -> Feed:
    """These inputs besides those that were made; what can be called is called with the model."""
    return lambda model, made: made | {name: one(model) if callable(one) else one for name, one in more.items()}


def only(**inputs: Any) -> Feed:
    """These inputs in place of those that were made."""
    return lambda model, made: adding(**inputs)(model, {})


def boxes(model: Any) -> torch.Tensor:
    """A box for each of the twelve words ``[1, 12, 4]``: left, top, right, bottom."""
    corner = torch.randint(0, 100, (1, 12, 2))
    return torch.cat([corner, corner + torch.randint(1, 100, (1, 12, 2))], dim=-1)


def patches(model: Any) -> torch.Tensor:
    """The first four tokens of four words, for models that group bytes."""
    return torch.tensor([[3, 3, 3, 3]])


_HYBRID: Final = ["linear_attention", "full_attention"]
_ZAMBA: Final = {"layers_block_type": ["linear_attention", "hybrid"], "num_hidden_layers": 2}
_SERIES: Final[dict[str, Any]] = {
    "prediction_length": 6, "context_length": 12, "num_time_features": 2, "lags_sequence": [1, 2, 3],
}  # fmt: skip
_SERIES_FEED: Final = only(
    past_values=normal(1, 15), past_time_features=normal(1, 15, 2), past_observed_mask=ones(1, 15),
    future_values=normal(1, 6), future_time_features=normal(1, 6, 2),
)  # fmt: skip

# type -> names of numbers that are not what their name suggests, and what they must be
CONFIGS: Final[dict[str, dict[str, Any]]] = {
    # recurrent and hybrid layers: one of each kind
    "bamba": {"attn_layer_indices": [1]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "granitemoehybrid": {"layer_types": _HYBRID},
    "recurrent_gemma": {"block_types": ("recurrent", "attention"), "attention_window_size": 4},
    "zamba": _ZAMBA | {"attention_head_dim": 32, "attention_hidden_size": 128},
    "zamba2": _ZAMBA | {"hybrid_layer_ids": [1]},
    "mamba2": {"head_dim": 32},
    "falcon_h1": {"mamba_d_ssm": 128},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "xlstm": {"qk_dim_factor": 1.0},
    # per-layer lists and depths
    "gemma3n_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 2, "num_hidden_layers": 4, "num_kv_shared_layers": 2,
        "intermediate_size": [96] * 4, "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0],
    },
    "hrm_text": {"num_hidden_layers": 8, "num_layers_per_stack": 1, "H_cycles": 2, "L_cycles": 3},
    "deepseek_ocr2_text": {"mlp_layer_types": ["dense", "sparse"]},
    "step3p5": {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 4},
    "cohere_compass_text": {
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
            for kind in ("full_attention", "sliding_attention")
        },
    },
    # widths that must agree
    "longcat_flash": {"head_dim": HEAD_SIZE // 2},
    "reformer": {
        "axial_pos_embds_dim": (16, 48), "axial_pos_shape": (4, 4), "attn_layers": ["local", "lsh"],
        "num_hidden_layers": 2, "local_attn_chunk_length": 4, "lsh_attn_chunk_length": 4, "num_buckets": 4,
    },
    "led": {"attention_window": 4},
    "lilt": {"channel_shrink_ratio": 4},
    "ernie4_5_vl_moe_text": {"rope_parameters.mrope_section": [3, 3, 2]},
    "paddleocr_vl_text": {"rope_parameters.mrope_section": [2, 3, 3]},
    # numbers that have no default
    "dbrx": {"attn_config.rope_theta": 10000.0},
    "diffusion_gemma_text": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 96},
    "esm": {"vocab_size": 33, "mask_token_id": 32, "pad_token_id": 1},
    "esmc": {"vocab_size": 160},
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
}  # fmt: skip

# type -> the class of its model, where no Auto class has one
CLASSES: Final[dict[str, str]] = {"voxtral_realtime_text": "VoxtralRealtimeTextModel"}

# type -> how its configuration is made where it cannot be made from nothing
MAKERS: Final[dict[str, Callable[[], Any]]] = {
    "autoformer": of("autoformer", moving_average=5, label_length=4, **_SERIES),
    "informer": of("informer", **_SERIES),
    "time_series_transformer": of("time_series_transformer", **_SERIES),
}

# type -> how its inputs differ from what its forward's names suggest
FEEDS: Final[dict[str, Feed]] = {
    # text that comes with more than its tokens
    "blt": adding(use_cache=False),
    "blt_global_transformer": lambda model, made: {"input_embeds": made["inputs_embeds"]},
    "bros": adding(bbox=lambda model: boxes(model) / 1000),
    "lilt": adding(bbox=boxes),
    "qwen3_omni_moe_talker_code_predictor": only(inputs_embeds=normal(1, 12, WIDTH)),
    "muse_glimmer_assistant": only(noise_embeds=normal(1, 4, WIDTH), context_hidden_states=normal(1, 8, WIDTH)),
    "jev": adding(
        marks=lambda model: torch.tensor([[5, 11]]), num_options=lambda model: torch.tensor([[2, 3]]),
        question_type_ids=lambda model: torch.tensor([[0, 1]]),
    ),
    "rag": adding(
        context_input_ids=tokens(5, 12), context_attention_mask=ones(5, 12), doc_scores=normal(1, 5),
        decoder_input_ids=tokens(1, 7),
    ),
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
    "timesfm": only(past_values=normal(1, 128), past_values_padding=tokens(1, 128, below=1), freq=tokens(1, 1, below=1)),
    "timesfm2_5": only(past_values=lambda model: [torch.randn(128)]),
}  # fmt: skip

# type -> why it is not built: what is missing here, or that it is no model
NOT_BUILT: Final[dict[str, str]] = {}
