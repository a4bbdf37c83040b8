"""Tiny random models whose attention is far from uniform, and a slow reference that shares no code with the package."""

from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37, "vocab_size": 97}

CONFIGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertConfig", "BertModel", SMALL | {"max_position_embeddings": 64}),
    "roberta": ("RobertaConfig", "RobertaModel", SMALL | {"max_position_embeddings": 66}),
    "distilbert": ("DistilBertConfig", "DistilBertModel", {"dim": 32, "n_layers": 2, "n_heads": 4, "vocab_size": 97}),
    "gpt2": (
        "GPT2Config",
        "GPT2LMHeadModel",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 97, "n_positions": 64},
    ),
    "llama": ("LlamaConfig", "LlamaForCausalLM", SMALL | {"num_key_value_heads": 2, "max_position_embeddings": 64}),
    "t5": (
        "T5Config",
        "T5ForConditionalGeneration",
        {"d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4, "vocab_size": 97},
    ),
    "bart": (
        "BartConfig",
        "BartForConditionalGeneration",
        {
            "d_model": 32,
            "encoder_layers": 3,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 37,
            "decoder_ffn_dim": 37,
            "vocab_size": 97,
            "max_position_embeddings": 64,
        },
    ),
}
# The same with a head that answers: for explanations, which need something to explain.
ANSWERING: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert_masked": ("BertConfig", "BertForMaskedLM", SMALL | {"max_position_embeddings": 64}),
    "bert_classifier": (
        "BertConfig",
        "BertForSequenceClassification",
        SMALL | {"max_position_embeddings": 64, "id2label": {0: "no", 1: "yes", 2: "perhaps"}},
    ),
    "bert_tagger": ("BertConfig", "BertForTokenClassification", SMALL | {"max_position_embeddings": 64}),
    "gpt2_classifier": (
        "GPT2Config",
        "GPT2ForSequenceClassification",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 97, "n_positions": 64},
    ),
}
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def tiny(name: str, attn_implementation: str = "sdpa", seed: int = 0, **changes: Any) -> Any:
    """A tiny model of a family; the same seed gives the same weights under every backend."""
    config_class, model_class, options = (CONFIGS | ANSWERING)[name]
    options = options | ENDS | changes
    if name in ("t5", "bart"):
        options["decoder_start_token_id"] = 1
    config = getattr(transformers, config_class)(**options)
    model: PreTrainedModel = getattr(transformers, model_class)._from_config(
        config, attn_implementation=attn_implementation
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 2.5 * parameter.shape[-1] ** -0.5)
    model.tie_weights()
    if hasattr(model, "generation_config"):
        model.generation_config.pad_token_id = 0
        model.generation_config.forced_eos_token_id = None
    return model.eval()


def ids(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    """Random token ids without special ones."""
    return torch.randint(3, 97, (batch, length), generator=torch.Generator().manual_seed(seed))


def padded(lengths: list[int], side: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """A batch of random sequences padded on one side."""
    longest = max(lengths)
    tokens, mask = torch.zeros(len(lengths), longest, dtype=torch.long), torch.zeros(len(lengths), longest)
    for row, length in enumerate(lengths):
        where = slice(longest - length, None) if side == "left" else slice(0, length)
        tokens[row, where] = ids(1, length, seed + row)[0]
        mask[row, where] = 1
    return {"input_ids": tokens, "attention_mask": mask.long()}
